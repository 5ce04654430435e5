"""A thousand clips through one session, one in a hundred broken: does it last, and stay level?

Each broken clip must be named and nothing else lost; each outcome is in the journal before the next
one is made. Memory is sampled on the way, and its slope after the warm-up is the figure: bytes a
clip, by least squares, with an interval.

    python -m device_bench.endurance
    python -m device_bench.endurance schedule=sequential clips=300
"""

from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("endurance")
def main(cfg: Any) -> None:
    from dataclasses import asdict

    from tqdm import tqdm

    from atom_repro.device.machine import this_machine
    from atom_repro.engines.checkpoints import Checkpoint
    from atom_repro.metrics.slope import slope
    from atom_repro.models.generation import GenerationSettings
    from atom_repro.pipelines.endurance import endure, many_clips
    from atom_repro.records.journal import Journal
    from atom_repro.records.record import find, recording, stage_key
    from atom_repro.runtime.loaders import module_loaders
    from atom_repro.runtime.runtime import Arm, Runtime

    arm = Arm(
        residency=cfg.residency,
        schedule=cfg.schedule,
        queue=cfg.runtime.queue,
        threads_alone=cfg.runtime.threads_alone,
        threads_beside=cfg.runtime.threads_beside,
    )
    model, dataset, quantiser = (config.build(n) for n in (cfg.model, cfg.dataset, cfg.quant))
    dataset.prepare()
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    checkpoint = Checkpoint.of(
        work=cfg.paths.work,
        model=model,
        dataset=dataset.name,
        scale=cfg.scale.name,
        seed=cfg.seed,
        folder=cfg.checkpoint.folder,
    )
    checkpoint.prepare(quantiser, model)
    inputs = {"dataset": dataset.fingerprint, "weights": checkpoint.weights()}
    key = stage_key("endurance", Path(__file__), settings, inputs)
    done = find(results, machine, "endurance", key)
    if done and not cfg.force:
        print(f"endurance {quantiser.name}: unchanged, {done.folder}")
        return

    folder = Path(cfg.paths.work) / "endurance"
    clips, broken = many_clips(
        dataset.clips("test"),
        cfg.clips,
        broken_every=cfg.broken_every,
        folder=folder / f"broken-{dataset.fingerprint[:12]}",
    )
    loaders = module_loaders(checkpoint, quantiser.name, model, embedder="embedded")
    with (
        recording(
            results,
            machine,
            stage="endurance",
            key=key,
            config=settings,
            inputs=inputs,
            weights=checkpoint.weights(),
            protocol=f"{dataset.name}/{len(clips)}-clips",
        ) as run,
        Journal(folder / f"{key[:24]}.jsonl") as journal,
        tqdm(total=len(clips), desc="endurance", unit="clip", mininterval=1) as bar,
        Runtime(
            arm,
            loaders,
            prompt=model.prompt,
            settings=GenerationSettings(**settings["generation"]),
        ) as runtime,
    ):
        journal.rewrite([])  # a session is measured whole: nothing of an earlier one counts
        endured = endure(
            runtime,
            clips,
            sample_every=cfg.sample_every,
            keep=lambda outcome: (journal.add(asdict(outcome)), bar.update()),
        )
        if endured.failed != broken:
            raise RuntimeError(f"broken are {broken}, named were {endured.failed}")
        warm = endured.at > cfg.warmup_share * len(clips)
        rise = slope(endured.at[warm], endured.memory_bytes[warm], seed=cfg.seed)
        run.samples += [
            {"clips": int(at), "anonymous_bytes": int(held)}
            for at, held in zip(endured.at, endured.memory_bytes, strict=True)
        ]
        run.values |= {
            "precision": quantiser.name,
            "arm": arm.name,
            "clips": len(clips),
            "captioned": endured.captioned,
            "broken_named": list(endured.failed),
            "slope_bytes_per_clip": {"mean": rise.mean, "low": rise.low, "high": rise.high},
            "samples_after_warmup": int(warm.sum()),
            "anonymous_bytes_at_end": int(endured.memory_bytes[-1]),
            "clips_per_s": len(clips) / endured.seconds,
        }
    print(
        f"endurance {quantiser.name} {arm.name}: {endured.captioned} captions, "
        f"{len(broken)} broken clips named, {rise.mean:+.0f} bytes a clip "
        f"({rise.low:+.0f} to {rise.high:+.0f}), {len(clips) / endured.seconds:.1f} clips a second"
    )


if __name__ == "__main__":
    main()
