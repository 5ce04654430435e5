"""Pipeline latency under every arm, interleaved, with a waterfall of its stages (Table 3).

An arm is a residency and a schedule of the one runtime. Each repeat runs every arm once, in an
order drawn anew, after one round that is recorded as warm-up. All arms must give the same
tokens and rankings; a run in which they differ fails. With `limits` the device's rates are measured
in the same run, and stages are held against the least time that they allow. With `minutes` rounds
go on for so long, and show how a device fares that gets no rest.

    python -m device_bench.latency
    python -m device_bench.latency pipeline=assembly
    python -m device_bench.latency quant=int8 'residencies=[resident,reload_stage]' repeats=10
    python -m device_bench.latency experiment=latency/full_size device=cuda
"""

import random
import time
from itertools import count, product
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("latency")
def main(cfg: Any) -> None:
    import torch
    from tqdm import tqdm

    from atom_repro.device.limits import measure_rates
    from atom_repro.engines.roofline import roofline_values
    from atom_repro.hosts.host import require_this_machine
    from atom_repro.pipelines.session import OutputCheck, trace_samples
    from atom_repro.records.lock import hold
    from atom_repro.report.console import summary
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup

    if cfg.limits and not cfg.generation.forbid_end:
        raise AtomError(
            "limits=true compares captions of full length with the machine's rates; set "
            "generation.forbid_end=true, or limits=false"
        )

    # The arms; the job, the first clips of the test split; the modules in the wanted precision.
    settings = config.to_dict(cfg)
    arms = [
        Arm(residency=residency, schedule=schedule, **settings["runtime"])
        for residency, schedule in product(cfg.residencies, cfg.schedules)
    ]
    setup, pipeline, host = Setup.of(cfg), config.build(cfg.pipeline), config.build(cfg.host)
    dataset, precision, device = setup.dataset, setup.quantiser.recipe, setup.device
    if cfg.limits:
        require_this_machine(host)
    if setup.planned_only("latency", settings):
        return
    with hold(Path(cfg.paths.work) / "modules.lock", cfg.paths.work, wait=True):
        dataset.prepare()
        setup.prepare_modules(for_quality=False)
    clips = dataset.clips("test")[: cfg.job_clips]
    protocol = f"{dataset.name}/{pipeline.name}-{len(clips)}"
    stage = setup.stage("latency", __file__, settings, protocol, machine=host.machine)
    if stage.unchanged(f"latency {precision}"):
        return

    with stage.recording() as run:
        # What the device can do, before and after, with the threads of a module that works alone.
        torch.set_num_threads(cfg.runtime.threads_alone)
        kernels = setup.engine.matmul_kernels()
        before = measure_rates(device, cfg.limits_s, kernels) if cfg.limits else None

        order, outputs = random.Random(cfg.seed), OutputCheck()
        total = None if cfg.minutes else (cfg.repeats + 1) * len(arms)
        began = time.perf_counter()
        with tqdm(total=total, desc="sessions", mininterval=1) as bar:
            for repeat in count():
                passed_s = time.perf_counter() - began
                if repeat and (passed_s > 60 * cfg.minutes > 0 or bar.n == total):
                    break
                for arm in order.sample(arms, len(arms)):
                    round_ = {
                        "arm": arm.name, "repeat": repeat, "warmup": repeat == 0,
                        "at_s": round(time.perf_counter() - began, 3),
                    }  # fmt: skip
                    trace = host.run(setup, pipeline, clips, arm)
                    run.samples += trace_samples(trace, round_)
                    outputs.add(arm.name, trace.results)
                    bar.update()
        if before:
            after = measure_rates(device, cfg.limits_s, kernels)
            work, arithmetic = setup.caption_work(), setup.quantiser.arithmetic
            run.values |= roofline_values(work, arithmetic, before, after)
        run.values |= {
            **setup.labels,
            **setup.thread_values(arms),
            "host": host.name,
            **host.facts(),
            "clips": len(clips),
            "prompts": len(pipeline.prompts),
            "session": pipeline.session,
            "arms": [arm.name for arm in arms],
            "tokens_identical": True,
            "module_bytes": {name: loader.bytes for name, loader in setup.loaders.items()},
            "caption_tokens": [len(p.token_ids) for p in outputs.answers[0].predictions],
        }
    print(f"latency {precision}: {len(arms)} arms, {repeat - 1} repeats, same tokens in all")
    print(summary(run.folder))


if __name__ == "__main__":
    main()
