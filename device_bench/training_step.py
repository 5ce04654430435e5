"""Training step benchmark: tokens/s, memory, and the largest batch that fits on this device.

A step of 1 clip is tried, then twice as many, and so on until one does not fit; then sizes between,
until the largest is known to an eighth. Each size is a record of its own, a size without memory
too, so an interrupted run resumes. Clips and weights are random: nothing is read, and the loss
means nothing. Each step's multiplications are held against the rate that the
device reaches in the same run.

    python -m device_bench.training_step
    python -m device_bench.training_step model=mplug2plus device=cuda train.precision=bf16
    python -m device_bench.training_step model=mplug2plus train.gradient_checkpointing=true
"""

import gc
from dataclasses import asdict
from functools import partial
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("training_step")
def main(cfg: Any) -> None:
    import torch

    from atom_repro.checkpoints.random_weights import RANDOM_WEIGHTS_LABEL
    from atom_repro.device.limits import measure_rates
    from atom_repro.device.machine import this_machine
    from atom_repro.engines.eager import EagerEngine
    from atom_repro.records.record import out_of_memory
    from atom_repro.records.stage import Stage
    from atom_repro.report.console import summary
    from atom_repro.study.plan import planned_only
    from atom_repro.training.network import training_network
    from atom_repro.training.processes import training_precision
    from atom_repro.training.step_memory import require_step_memory, step_memory
    from atom_repro.training.step_trial import SyntheticCaptions, measure_step, next_batch_size

    model, device = config.build(cfg.model), config.build(cfg.device)
    _refuse_unused_settings(cfg.train)
    if planned_only("training_step", config.to_dict(cfg), this_machine()):
        return
    precision = training_precision(cfg.train.precision, device.torch.type)
    captions = SyntheticCaptions.of(model, length=cfg.caption_tokens, seed=cfg.seed)
    make_network = partial(training_network, model, captions, cfg.train)
    torch.set_num_threads(cfg.train.threads)
    rates, kernels = dict[str, float](), EagerEngine().matmul_kernels()

    fits, too_large, folders = 0, None, []
    while clips := next_batch_size(fits, too_large, cfg.most_clips):
        # One size of step, unless it is on record.
        settings = config.to_dict(cfg)
        settings["train"]["batch_size"] = clips
        stage = Stage.of(
            "training_step", __file__, settings, this_machine(), inputs={"device": device.name},
            weights=RANDOM_WEIGHTS_LABEL, protocol=f"training_step/{model.name}",
            device=device.name,
        )  # fmt: skip
        if done := stage.existing_record(statuses=("ok", "oom")):
            print(f"{clips} clips: unchanged")
            folders.append(done.folder)
            fits, too_large = (clips, too_large) if done.ok else (fits, clips)
            continue
        batch = captions.micro_batch(clips=clips, captions_per_clip=cfg.train.captions_per_clip)
        try:
            with stage.recording() as run:
                kind = device.torch.type
                needed = step_memory(make_network, [batch], precision=precision, device=kind)
                run.values |= {
                    "model": model.name,
                    "precision": precision,
                    "clips": clips,
                    "text_tokens": int(batch["captions"].size),
                    "visual_tokens": clips * model.encoder.visual_tokens,
                    "step_memory_estimated_bytes": needed.peak,
                    "step_memory_bound_bytes": needed.bound,
                    "step_memory_parts_bytes": asdict(needed),
                }
                if kind == "cpu":  # a system without memory kills, and says nothing
                    require_step_memory(needed, device.torch)
                # Other work on the machine can hide what it can do: the best so far counts.
                measured = measure_rates(device, cfg.limits_s, kernels).values
                rates = {name: max(rate, rates.get(name, 0)) for name, rate in measured.items()}
                measurement = measure_step(
                    make_network, cfg.train, batch, device, precision=precision, steps=cfg.steps
                )
                tokens = run.values["text_tokens"] + run.values["visual_tokens"]
                run.values |= measurement.values(tokens, rates, precision)
                run.samples += measurement.samples()
        except Exception as error:
            if not out_of_memory(error):
                raise
            too_large = clips
            print(f"{clips} clips: no memory ({' '.join(str(error).split())[:160]})")
        else:
            fits = clips
            print(f"{clips} clips: {run.values['tokens_per_s']:,.0f} tokens/s")
        folders.append(run.folder)
        gc.collect()  # recomputed blocks hold themselves
        device.empty_cache()
    limit = (
        "the most_clips of the configuration" if too_large is None else f"{too_large} do not fit"
    )
    print(f"training step of {model.name} in {precision} on {device.name}: {fits} clips, {limit}")
    print(summary(*folders))


def _refuse_unused_settings(train: Any) -> None:
    for key, default in (("shard", False), ("accumulate", 1), ("start", ""), ("text_every", 0)):
        if train[key] != default:
            raise AtomError(
                f"train.{key}={train[key]}: a step of one process on synthetic captions does not "
                "use it; leave it out"
            )


if __name__ == "__main__":
    main()
