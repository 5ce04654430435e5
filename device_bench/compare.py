"""One pipeline in one arm under several settings, interleaved: engines, hosts, switches.

A variant is a list of overrides (`conf/variants`). Each repeat runs every variant once, in an order
drawn anew, after one round that is recorded as warm-up. A variant must give the same tokens every
time; the record tells how many of its captions are those of the first variant. With `limits` the
device's rates are measured in the same run, by the products of all engines, and each variant is
held against the least time that its bytes and operations take at those rates.

    python -m device_bench.compare variants=switches
    python -m device_bench.compare experiment=compare/full_size 'only=[eager_fp32,executorch_int8]'
"""

import random
from dataclasses import asdict
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("compare")
def main(cfg: Any) -> None:
    import torch
    from hydra.core.hydra_config import HydraConfig
    from tqdm import tqdm

    from atom_repro.device.limits import measure_rates
    from atom_repro.device.memory import trim_heap
    from atom_repro.engines.roofline import rate_values
    from atom_repro.hosts.host import same_machine
    from atom_repro.pipelines.session import OutputCheck, trace_samples
    from atom_repro.report.console import summary
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup
    from atom_repro.study.overrides import variants
    from atom_repro.video.sampling import windows_of

    # The variants: each a setup and an arm of its own.
    settings, given = config.to_dict(cfg), HydraConfig.get().overrides.task
    composed = variants("compare", given, settings["variants"], only=cfg.only)
    setups = {name: Setup.of(variant) for name, variant in composed.items()}
    arms = {
        name: Arm(residency=v.residency, schedule=v.schedule, **config.to_dict(v.runtime))
        for name, v in composed.items()
    }
    first = next(iter(setups.values()))
    hosts = {name: config.build(variant.host) for name, variant in composed.items()}
    pipeline, dataset = config.build(cfg.pipeline), first.dataset
    # In the record a variant is all its settings, beside the overrides that made it.
    settings["variants"] = {
        name: {k: v for k, v in config.to_dict(c).items() if k not in ("paths", "variants")}
        for name, c in composed.items()
    }
    if first.planned_only("compare", settings):
        return

    # The job, the first clips of the test split or windows of them; the modules of every variant.
    dataset.prepare()
    clips = windows_of(dataset.clips("test"), cfg.window_s, cfg.stride_s)[: cfg.job_clips]
    for setup in setups.values():
        setup.prepare_modules(for_quality=False)
    labels = {name: setup.weights for name, setup in setups.items()}
    inputs = first.inputs | {f"weights of {name}": label for name, label in labels.items()}
    protocol = f"{dataset.name}/{pipeline.name}-{len(clips)}"
    machine = same_machine(hosts.values(), limits=cfg.limits)
    stage = first.stage("compare", __file__, settings, protocol, inputs=inputs, machine=machine)
    if stage.unchanged("compare"):
        return

    with stage.recording() as run:
        # What the device can do by the fastest products of any engine, before and after.
        torch.set_num_threads(cfg.runtime.threads_alone)
        kernels: dict[str, dict[str, Any]] = {}
        for setup in setups.values() if cfg.limits else ():
            for precision, by_name in setup.engine.matmul_kernels().items():
                kernels[precision] = {**by_name, **kernels.get(precision, {})}
        before = measure_rates(first.device, cfg.limits_s, kernels) if cfg.limits else None

        order, outputs = random.Random(cfg.seed), {name: OutputCheck() for name in setups}
        with tqdm(total=(cfg.repeats + 1) * len(setups), desc="sessions", mininterval=1) as bar:
            for repeat in range(cfg.repeats + 1):
                for name in order.sample(list(setups), len(setups)):
                    bar.set_postfix_str(name)
                    trim_heap()  # what another variant freed is none of this one's memory
                    round_ = {"variant": name, "repeat": repeat, "warmup": repeat == 0}
                    trace = hosts[name].run(setups[name], pipeline, clips, arms[name])
                    run.samples += trace_samples(trace, round_)
                    outputs[name].add(name, trace.results)
                    bar.update()
        if before:
            after = measure_rates(first.device, cfg.limits_s, kernels)
            run.values |= rate_values(before, after)
        captions = {name: check.captions() for name, check in outputs.items()}
        of_first = set(next(iter(captions.values())))
        run.values |= {
            "clips": len(clips),
            "prompts": len(pipeline.prompts),
            "variants": {
                name: {
                    **setup.labels,
                    "host": {"name": hosts[name].name, **hosts[name].facts()},
                    **setup.thread_values([arms[name]]),
                    **arms[name].labels,
                    "weights": labels[name],
                    "overrides": list(cfg.variants[name]),
                    "arithmetic": setup.quantiser.arithmetic,
                    "module_bytes": {n: loader.bytes for n, loader in setup.loaders.items()},
                    "least_work_per_clip": asdict(setup.caption_work()) if cfg.limits else None,
                    "captions": len(captions[name]),
                    "captions_of_first": sum(each in of_first for each in captions[name]),
                }
                for name, setup in setups.items()
            },
        }
    print(f"compare: {len(setups)} variants, {cfg.repeats} repeats, {pipeline.name}")
    print(summary(run.folder))


if __name__ == "__main__":
    main()
