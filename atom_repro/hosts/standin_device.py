"""The host that runs sessions on a stand-in device, through a real adb client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atom_repro.adb.connection import Connection
from atom_repro.adb.guard import Guard
from atom_repro.adb.probe import device_facts
from atom_repro.adb.standin import StandIn
from atom_repro.datatypes import AtomError
from atom_repro.device.architecture import Architecture
from atom_repro.hosts.phone import Control, Phone


def build(
    *,
    folder: str,
    number: int,
    architecture: str | None,
    guard: Mapping[str, Any],
    control: Mapping[str, Any],
) -> Phone:
    """Build the host of `conf/host/standin.yaml`: a device with the interfaces of a phone and the
    speed of this machine, or of an emulator where its architecture is another.

    Args:
        folder: of builds and jobs, and of the devices' files.
        number: of the device; several can run at once.
        architecture: of its programs; None for this machine's.
    """
    job = Path(folder) / f"standin-{number}"
    named = Architecture.of(architecture) if architecture else Architecture.of_this_machine()

    @contextmanager
    def connected() -> Iterator[Connection]:
        """A stand-in device of its own, and adb's connection to it."""
        with StandIn(job.with_name(f"{job.name}-device"), architecture=named) as device:
            connection = Connection.open(device.address)
            try:
                if not device_facts(connection).standin:
                    raise AtomError(f"{device.address} is another device than the stand-in's")
                yield connection
            finally:
                connection.close()

    return Phone(job, connected, Guard(**guard), Control(**control))
