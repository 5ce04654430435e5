"""What the n-th prompt of a session costs: modules kept or read again, videos indexed or seen anew.

The paper says that without reuse each prompt restarts the cycle of loading models. Here every
residency, schedule and kind of session runs the same prompts over the same clips, interleaved, and
each prompt's loads, bytes read and seconds are counted. A session of P prompts is the beginning of
a longer one, so one session serves every number of prompts. All must say and find the same; a run
in which they differ fails. An arm that runs out of memory is recorded as that and left out.

    python -m device_bench.sessions
    python -m device_bench.sessions quant=int8 'residencies=[resident,reload_stage]' repeats=5
"""

import gc
import random
from dataclasses import replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("sessions")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.device.machine import this_machine
    from atom_repro.pipelines.session import Session
    from atom_repro.records.record import find, recording, stage_key
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Subject
    from atom_repro.runtime.timeline import reads, waterfall

    # Sessions: the pipeline's prompts, over and over until there are enough, under every arm.
    subject, pipeline = Subject.of(cfg), config.build(cfg.pipeline, Session)
    dataset, precision = subject.dataset, subject.quantiser.name
    prompts = tuple(islice(cycle(pipeline.prompts), max(cfg.prompt_counts)))
    threads = {k: cfg.runtime[k] for k in ("queue", "threads_alone", "threads_beside")}
    sessions = [
        (
            replace(pipeline, session=kind, prompts=prompts),
            Arm(residency=residency, schedule=schedule, **threads),
        )
        for kind, residency, schedule in product(cfg.sessions, cfg.residencies, cfg.schedules)
    ]

    # The job: the first clips of the test split; the modules, in the wanted precision.
    dataset.prepare()
    clips = dataset.clips("test")[: cfg.job_clips]
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    subject.make_modules(judged=False)
    key = stage_key("sessions", Path(__file__), settings, subject.inputs)
    done = find(results, machine, "sessions", key)
    if done and not cfg.force:
        print(f"sessions {precision}: unchanged, {done.folder}")
        return

    with recording(
        results,
        machine,
        stage="sessions",
        key=key,
        config=settings,
        inputs=subject.inputs,
        weights=subject.weights,
        protocol=f"{dataset.name}/{pipeline.name}-{len(clips)}",
        device=subject.device.name,
    ) as run:
        order = random.Random(cfg.seed)
        said: dict[str, Any] = {}
        out_of_memory: set[str] = set()
        rounds = cfg.repeats + 1
        with tqdm(total=rounds * len(sessions), desc="sessions", mininterval=1) as bar:
            for repeat, (session, arm) in (
                (repeat, one)
                for repeat in range(rounds)
                for one in order.sample(sessions, len(sessions))
            ):
                bar.update()
                name = f"{session.session}/{arm.name}"
                if name in out_of_memory:
                    continue
                place = {
                    "session": session.session,
                    "residency": arm.residency,
                    "schedule": arm.schedule,
                    "repeat": repeat,
                    "warmup": repeat == 0,
                }
                try:
                    with subject.session(arm) as runtime:
                        answers = session.run(runtime, clips)
                except MemoryError as error:
                    out_of_memory.add(name)
                    run.samples.append({"kind": "oom", **place, "detail": str(error)})
                    answers = []
                if not answers:
                    gc.collect()  # the error's frames are gone, and with them what they held
                    subject.device.give_back()
                    continue
                spans = runtime.timeline.spans()
                for number, answer in enumerate(answers, 1):
                    fall = waterfall(spans, answer.start_s, answer.end_s)
                    read = reads(spans, answer.start_s, answer.end_s)
                    run.samples.append(
                        {
                            "kind": "prompt",
                            **place,
                            "prompt": number,
                            "end_to_end_s": fall.end_to_end_s,
                            "stages_s": fall.stages,
                            "overlap_s": fall.overlap_s,
                            "residual_s": fall.residual_s,
                            "loads": read.loads,
                            "bytes_read": read.bytes_read,
                        }
                    )
                output = [
                    ([p.token_ids for p in a.predictions], a.ranking, a.texts) for a in answers
                ]
                if said.setdefault("output", output) != output:
                    raise RuntimeError(f"{name} said or found other than {said['by']}")
                said.setdefault("by", name)
                said["failed_clips"] = len(answers[0].failures)
        if len(out_of_memory) == len(sessions):
            raise MemoryError(f"no memory for any session of {precision} modules")
        run.values |= {
            "precision": precision,
            "pipeline": pipeline.name,
            "clips": len(clips),
            "prompt_counts": list(cfg.prompt_counts),
            "sessions": [f"{session.session}/{arm.name}" for session, arm in sessions],
            "out_of_memory": sorted(out_of_memory),
            "tokens_identical": True,
            "module_bytes": {name: loader.bytes for name, loader in subject.loaders.items()},
            "failed_clips": said["failed_clips"],
        }
    print(
        f"sessions {precision}: {len(sessions)} sessions of {len(prompts)} prompts, "
        f"{cfg.repeats} repeats, same tokens in all"
    )


if __name__ == "__main__":
    main()
