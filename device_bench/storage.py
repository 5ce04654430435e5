"""Bytes on disk of each module in each precision, and parameters by layer type (Tables 6 and 9).

What is stored does not depend on what the weights say, so full-size modules are made with random
ones, written as every checkpoint is, measured and deleted. Parameters are counted without memory,
the encoder in its reference form, as the paper counts.

    python -m device_bench.storage model=mplug2plus
    python -m device_bench.storage model=mplug2
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("storage")
def main(cfg: Any) -> None:
    import torch

    from atom_repro.checkpoints.module_files import save_decoder, save_encoder
    from atom_repro.device.capacity import require_disk
    from atom_repro.device.machine import this_machine
    from atom_repro.models.census import census
    from atom_repro.records.record import find, recording, stage_key

    model, quantisers = config.build(cfg.model), [config.build(q) for q in cfg.quants.values()]
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    key = stage_key("storage", Path(__file__), settings, {})
    done = find(results, machine, "storage", key)
    if done and not cfg.force:
        print(f"storage {model.name}: unchanged, {done.folder}")
        return

    # Parameters by layer type, on the meta device.
    counted = replace(model, form="reference") if hasattr(model, "form") else model
    with torch.device("meta"):
        counts = census(counted.make_encoder(), counted.make_decoder())
    work = Path(cfg.paths.work) / "storage"
    work.mkdir(parents=True, exist_ok=True)
    require_disk(work, 4 * counts.total, f"writing {model.name}")

    with recording(
        results,
        machine,
        stage="storage",
        key=key,
        config=settings,
        inputs={},
        weights="random",
        protocol=f"storage/{model.name}",
    ) as run:
        # Each module in each precision: made, written, measured, deleted.
        bytes_on_disk: dict[str, dict[str, int]] = {}
        quantised: dict[str, Any] = {}
        for quantiser in quantisers:
            for side, make in (("encoder", model.make_encoder), ("decoder", model.make_decoder)):
                with torch.device("meta"):
                    network = make()
                network.to_empty(device="cpu")
                for parameter in network.parameters():
                    torch.nn.init.uniform_(parameter, -0.02, 0.02)
                network.restore_constants()
                for alias, source in network.tied.items():
                    owner, _, name = alias.rpartition(".")
                    setattr(network.get_submodule(owner), name, network.get_parameter(source))
                if quantiser.name != "fp32":
                    report = quantiser.quantise(network)
                    quantised[side] = report.skipped
                folder = work / f"{model.name}-{quantiser.name}-{side}"
                try:
                    if side == "encoder":
                        save_encoder(folder, model, network, quantiser, "random")
                    else:
                        save_decoder(folder, model, network, None, quantiser, "random")
                    size = sum(f.stat().st_size for f in folder.iterdir())
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                bytes_on_disk.setdefault(quantiser.name, {})[side] = size
                del network
                print(f"{model.name} {quantiser.name} {side}: {size / 1e6:.1f} MB", flush=True)
        run.values |= {
            "model": model.name,
            "parameters": counts.total,
            "parameters_by_type": dict(counts.parameters),
            "tied_parameters": counts.tied,
            "bytes": bytes_on_disk,
            "left_in_fp32": quantised,
        }
    print(f"storage {model.name}: {counts.total:,} parameters")


if __name__ == "__main__":
    main()
