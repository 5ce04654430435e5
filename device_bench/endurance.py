"""Endurance test: many clips in one session, one in a hundred broken; memory growth per clip.

Every broken clip must be reported and no other be lost; each outcome is in the journal before the
next one. Memory is sampled meanwhile; the result is its slope after the warm-up, in bytes per clip,
by least squares with a confidence interval.

    python -m device_bench.endurance
    python -m device_bench.endurance schedule=sequential clips=300
"""

from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("endurance")
def main(cfg: Any) -> None:
    from atom_repro.evaluation.endurance import Endurance, repeat_clips
    from atom_repro.metrics.bootstrap import slope
    from atom_repro.report.console import summary
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup

    settings = config.to_dict(cfg)
    arm = Arm(residency=cfg.residency, schedule=cfg.schedule, **settings["runtime"])
    for key in ("sample_every", "broken_every"):
        if cfg[key] < 1:
            raise AtomError(f"{key}={cfg[key]}: must be at least 1")
    samples = sum(
        at > cfg.warmup_share * cfg.clips
        for at in range(cfg.sample_every, cfg.clips + 1, cfg.sample_every)
    )
    if samples < 4:
        raise AtomError(
            f"clips={cfg.clips} sample_every={cfg.sample_every}: {samples} samples of memory after "
            "the warm-up, and a slope needs 4; raise clips"
        )
    setup, host = Setup.of(cfg), config.build(cfg.host)
    dataset, precision = setup.dataset, setup.quantiser.recipe
    if setup.planned_only("endurance", settings):
        return
    dataset.prepare()
    setup.prepare_modules(for_quality=False)
    protocol = f"{dataset.name}/{cfg.clips}-clips"
    stage = setup.stage("endurance", __file__, settings, protocol, machine=host.machine)
    if stage.unchanged(f"endurance {precision}"):
        return

    folder = Path(cfg.paths.work) / "endurance"
    clips, broken = repeat_clips(
        dataset.clips("test"),
        cfg.clips,
        broken_every=cfg.broken_every,
        folder=folder / f"broken-{dataset.fingerprint[:12]}",
    )
    pipeline = Endurance(cfg.sample_every, folder / f"{stage.key[:24]}.jsonl")
    with stage.recording() as run:
        (result,) = host.run(setup, pipeline, clips, arm).results
        if result.failed != broken:
            raise RuntimeError(f"corrupt clips {broken}, but failures reported for {result.failed}")
        warm = result.at > cfg.warmup_share * len(clips)
        rise = slope(result.at[warm], result.memory_bytes[warm], seed=cfg.seed)
        run.samples += [
            {"clips": int(at), "anonymous_bytes": int(held)}
            for at, held in zip(result.at, result.memory_bytes, strict=True)
        ]
        run.values |= {
            **setup.labels,
            "host": host.name,
            **host.facts(),
            "arm": arm.name,
            "clips": len(clips),
            "captioned": result.captioned,
            "broken_named": list(result.failed),
            "slope_bytes_per_clip": rise.to_dict(),
            "samples_after_warmup": int(warm.sum()),
            "anonymous_bytes_at_end": int(result.memory_bytes[-1]),
            "clips_per_s": len(clips) / result.seconds,
        }
    print(
        f"endurance {precision} {arm.name}: {result.captioned} captions, "
        f"{len(broken)} broken clips named, {rise.mean:+.0f} bytes a clip "
        f"({rise.low:+.0f} to {rise.high:+.0f}), {len(clips) / result.seconds:.1f} clips a second"
    )
    print(summary(run.folder))


if __name__ == "__main__":
    main()
