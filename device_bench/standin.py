"""A stand-in device for adb, until Ctrl-C: the interfaces of a phone, the speed of this computer.

Any adb client can connect to it, such as Debian's or the one that adbutils carries:

    python -m device_bench.standin
    adb connect 127.0.0.1:5595 && adb -s 127.0.0.1:5595 shell getprop ro.product.model
"""

import time
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("standin")
def main(cfg: Any) -> None:
    from atom_repro.adb.standin import StandIn
    from atom_repro.device.architecture import Architecture

    settings = config.to_dict(cfg)
    architecture = Architecture.of(cfg.architecture) if cfg.architecture else None
    try:
        device = StandIn(Path(settings["folder"]), port=settings["port"], architecture=architecture)
    except ValueError as error:
        raise AtomError(f"{error}; choose another, such as port=5595") from error
    try:
        device.start()
        print(f"stand-in device at {device.address}, its files in {device.root}")
        print(f"adb connect {device.address}    (Ctrl-C here ends it)", flush=True)
        while True:
            time.sleep(0.5)  # a long sleep goes on where Ctrl-C comes right before it
    except OSError as error:
        raise AtomError(
            f"port {cfg.port} cannot be used ({error.strerror}); port=0 finds one"
        ) from error
    finally:
        device.stop()


if __name__ == "__main__":
    main()
