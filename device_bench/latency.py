"""Run the pipeline under every arm, interleaved, and say where each second went (Table 3).

An arm is a residency and a schedule of the one runtime. Each repeat runs every arm once, in an
order drawn anew, after one round that is recorded as warm-up. All arms must give the same
tokens and rankings; a run in which they differ fails. With `limits` the device's rates are measured
in the same run, and stages are held against the least time that they allow.

    python -m device_bench.latency
    python -m device_bench.latency pipeline=assembly
    python -m device_bench.latency quant=int8 'residencies=[resident,reload_stage]' repeats=10
    python -m device_bench.latency experiment=latency/full_size device=cuda
"""

import random
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("latency")
def main(cfg: Any) -> None:
    import torch
    from tqdm import tqdm

    from atom_repro.device.limits import limits
    from atom_repro.device.machine import this_machine
    from atom_repro.engines.roofline import least_work
    from atom_repro.models.tokenizer import Tokenizer
    from atom_repro.records.record import find, recording, stage_key
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Subject
    from atom_repro.runtime.timeline import waterfall

    arms = [
        Arm(
            residency=residency,
            schedule=schedule,
            queue=cfg.runtime.queue,
            threads_alone=cfg.runtime.threads_alone,
            threads_beside=cfg.runtime.threads_beside,
        )
        for residency, schedule in product(cfg.residencies, cfg.schedules)
    ]

    if cfg.limits and not cfg.generation.forbid_end:
        raise AtomError(
            "limits=true holds captions of full length against the machine's rates; set "
            "generation.forbid_end=true, or limits=false"
        )

    # The job: the first clips of the test split; the modules, in the wanted precision.
    subject, pipeline = Subject.of(cfg), config.build(cfg.pipeline)
    dataset, precision, device = subject.dataset, subject.quantiser.name, subject.device
    dataset.prepare()
    clips = dataset.clips("test")[: cfg.job_clips]
    subject.make_modules(judged=False)
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    key = stage_key("latency", Path(__file__), settings, subject.inputs)
    done = find(results, machine, "latency", key)
    if done and not cfg.force:
        print(f"latency {precision}: unchanged, {done.folder}")
        return

    with recording(
        results,
        machine,
        stage="latency",
        key=key,
        config=settings,
        inputs=subject.inputs,
        weights=subject.weights,
        protocol=f"{dataset.name}/{pipeline.name}-{len(clips)}",
        device=device.name,
    ) as run:
        # What the device can do, before and after, with the threads of a module that works alone.
        torch.set_num_threads(cfg.runtime.threads_alone)
        rates = [limits(device, cfg.limits_s)] if cfg.limits else []

        order = random.Random(cfg.seed)
        said: dict[str, Any] = {}
        rounds = tqdm(total=(cfg.repeats + 1) * len(arms), desc="sessions", mininterval=1)
        with rounds as bar:
            for repeat in range(cfg.repeats + 1):
                for arm in order.sample(arms, len(arms)):
                    device.start_peak()
                    with subject.session(arm) as runtime:
                        answers = pipeline.run(runtime, clips)
                    peak_bytes = device.peak_bytes()
                    place = {"arm": arm.name, "repeat": repeat, "warmup": repeat == 0}
                    for number, answer in enumerate(answers):
                        fall = waterfall(runtime.timeline.spans(), answer.start_s, answer.end_s)
                        run.samples.append(
                            {
                                "kind": "prompt",
                                **place,
                                "prompt": number,
                                "end_to_end_s": fall.end_to_end_s,
                                "stages_s": fall.stages,
                                "overlap_s": fall.overlap_s,
                                "residual_s": fall.residual_s,
                                "session_device_peak_bytes": peak_bytes,
                            }
                        )
                    for span in runtime.timeline.spans():
                        run.samples.append({"kind": "span", **place, **span.to_dict()})
                    output = [
                        [[p.token_ids for p in a.predictions], list(a.ranking), list(a.texts)]
                        for a in answers
                    ]
                    if said.setdefault("output", output) != output:
                        raise RuntimeError(
                            f"{arm.name} gave other tokens, rankings or texts than {said['arm']}"
                        )
                    said.setdefault("arm", arm.name)
                    bar.update()
        if cfg.limits:
            rates.append(limits(device, cfg.limits_s))
            fastest = {name: max(r[name] for r in rates) for name in rates[0]}
            model, folder = subject.model, subject.checkpoint.decoder(precision)
            tokenizer = Tokenizer.load(folder, model.specials)
            work = least_work(model, tokenizer, subject.generation, precision)
            run.values |= {
                "limits_before": rates[0],
                "limits_after": rates[1],
                "least_work_per_clip": asdict(work),
                "least_s_per_clip": work.least_s(fastest, precision),
            }
        run.values |= {
            "precision": precision,
            "clips": len(clips),
            "prompts": len(pipeline.prompts),
            "session": pipeline.session,
            "arms": [arm.name for arm in arms],
            "tokens_identical": True,
            "module_bytes": {name: loader.bytes for name, loader in subject.loaders.items()},
            "caption_tokens": [len(ids) for ids in said["output"][0][0]],
        }
    print(f"latency {precision}: {len(arms)} arms, {cfg.repeats} repeats, same tokens in all")


if __name__ == "__main__":
    main()
