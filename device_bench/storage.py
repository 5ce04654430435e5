"""Bytes on disk of each module in each precision, and parameters by layer type (Tables 6 and 9).

What is stored does not depend on what the weights say, so full-size checkpoints are written with
random ones, measured and deleted. Parameters are counted without memory,
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

    from atom_repro.checkpoints.checkpoint import Checkpoint
    from atom_repro.checkpoints.module_files import weights_bytes
    from atom_repro.checkpoints.random_weights import RANDOM_WEIGHTS_LABEL, write_random_weights
    from atom_repro.device.capacity import require_disk
    from atom_repro.device.machine import this_machine
    from atom_repro.models.census import count_parameters
    from atom_repro.records.stage import Stage
    from atom_repro.report.console import summary
    from atom_repro.study.plan import planned_only

    # Parameters by layer type, on the meta device.
    model, quantisers = config.build(cfg.model), [config.build(q) for q in cfg.quants.values()]
    counted = replace(model, form="reference") if hasattr(model, "form") else model
    with torch.device("meta"):
        counts = count_parameters(counted.make_encoder(), counted.make_decoder())
    settings = config.to_dict(cfg)
    written = {"modules, which are deleted": 6 * counts.total}
    if planned_only("storage", settings, this_machine(), writes=lambda: written):
        return
    stage = Stage.of(
        "storage",
        __file__,
        settings,
        this_machine(),
        inputs={},
        weights=RANDOM_WEIGHTS_LABEL,
        protocol=f"storage/{model.name}",
    )
    if stage.unchanged(f"storage {model.name}"):
        return

    checkpoint = Checkpoint(Path(cfg.paths.work) / "storage" / model.name)
    require_disk(checkpoint.folder, 6 * counts.total, f"writing {model.name}")

    with stage.recording() as run:
        # Both modules in each precision: written, measured; deleted at the end.
        bytes_on_disk: dict[str, dict[str, int]] = {}
        left_in_fp32: dict[str, Any] = {}
        try:
            write_random_weights(checkpoint, model, seed=cfg.seed)
            for quantiser in quantisers:
                precision = quantiser.recipe
                for side, report in checkpoint.prepare(quantiser, model).items():
                    left_in_fp32[side] = report["skipped"]
                bytes_on_disk[precision] = {
                    "encoder": weights_bytes(checkpoint.encoder(quantiser)),
                    "decoder": weights_bytes(checkpoint.decoder(quantiser)),
                }
                for side, size in bytes_on_disk[precision].items():
                    print(f"{model.name} {precision} {side}: {size / 1e6:.1f} MB", flush=True)
        finally:
            shutil.rmtree(checkpoint.folder, ignore_errors=True)
        run.values |= {
            "model": model.name,
            "parameters": counts.total,
            "parameters_by_type": dict(counts.parameters),
            "tied_parameters": counts.tied,
            "bytes": bytes_on_disk,
            "left_in_fp32": left_in_fp32,
        }
    print(f"storage {model.name}: {counts.total:,} parameters")
    print(summary(run.folder))


if __name__ == "__main__":
    main()
