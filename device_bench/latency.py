"""Run the pipeline under every arm, interleaved, and say where each second went (Table 3).

An arm is a residency and a schedule of the one runtime. Each repeat runs every arm once, in an
order drawn anew, after one round that is recorded as warm-up. All arms must give the same
tokens and rankings; a run in which they differ fails.

    python -m device_bench.latency
    python -m device_bench.latency pipeline=assembly
    python -m device_bench.latency quant=int8 'residencies=[resident,reload_stage]' repeats=10
"""

import random
from itertools import product
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("latency")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.device.machine import this_machine
    from atom_repro.engines.checkpoints import Checkpoint
    from atom_repro.models.generation import GenerationSettings
    from atom_repro.records.record import find, recording, stage_key
    from atom_repro.runtime.loaders import module_loaders
    from atom_repro.runtime.runtime import Arm, Runtime
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

    # The job: the first clips of the test split; the modules, in the wanted precision.
    model, dataset = config.build(cfg.model), config.build(cfg.dataset)
    quantiser, pipeline = config.build(cfg.quant), config.build(cfg.pipeline)
    dataset.prepare()
    clips = dataset.clips("test")[: cfg.job_clips]
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
    key = stage_key("latency", Path(__file__), settings, inputs)
    done = find(results, machine, "latency", key)
    if done and not cfg.force:
        print(f"latency {quantiser.name}: unchanged, {done.folder}")
        return

    loaders = module_loaders(checkpoint, quantiser.name, model, embedder=cfg.embedder)
    with recording(
        results,
        machine,
        stage="latency",
        key=key,
        config=settings,
        inputs=inputs,
        weights=checkpoint.weights(),
        protocol=f"{dataset.name}/{pipeline.name}-{len(clips)}",
    ) as run:
        order = random.Random(cfg.seed)
        said: dict[str, Any] = {}
        rounds = tqdm(total=(cfg.repeats + 1) * len(arms), desc="sessions", mininterval=1)
        with rounds as bar:
            for repeat in range(cfg.repeats + 1):
                for arm in order.sample(arms, len(arms)):
                    with Runtime(
                        arm,
                        loaders,
                        prompt=model.prompt,
                        settings=GenerationSettings(**settings["generation"]),
                    ) as runtime:
                        answers = pipeline.run(runtime, clips)
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
        run.values |= {
            "precision": quantiser.name,
            "clips": len(clips),
            "prompts": len(pipeline.prompts),
            "session": pipeline.session,
            "arms": [arm.name for arm in arms],
            "tokens_identical": True,
            "module_bytes": {name: loader.bytes for name, loader in loaders.items()},
            "caption_tokens": [len(ids) for ids in said["output"][0][0]],
        }
    print(f"latency {quantiser.name}: {len(arms)} arms, {cfg.repeats} repeats, same tokens in all")


if __name__ == "__main__":
    main()
