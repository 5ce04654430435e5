"""Cost of the n-th prompt of a session: modules kept or reloaded, videos indexed or processed anew.

The paper says that without reuse each prompt restarts the cycle of loading models. Here every
residency, schedule and kind of session runs the same prompts over the same clips, interleaved, and
each prompt's loads, bytes read and seconds are counted. A session of P prompts is the beginning of
a longer one, so one session serves every number of prompts. All must give the same tokens,
rankings and texts; a run in which they differ fails. An arm that runs out of memory is recorded so
and skipped.

    python -m device_bench.sessions
    python -m device_bench.sessions quant=int8 'residencies=[resident,reload_stage]' repeats=5
"""

import gc
import random
from dataclasses import asdict, replace
from itertools import cycle, islice, product
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("sessions")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.pipelines.session import OutputCheck, Session
    from atom_repro.report.console import summary
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup
    from atom_repro.runtime.timeline import module_loads, waterfall

    # Sessions: the pipeline's prompts, over and over until there are enough, under every arm.
    settings = config.to_dict(cfg)
    setup, pipeline = Setup.of(cfg), config.build(cfg.pipeline, Session)
    host = config.build(cfg.host)
    dataset, precision = setup.dataset, setup.quantiser.recipe
    prompts = tuple(islice(cycle(pipeline.prompts), max(cfg.prompt_counts)))
    sessions = [
        (
            replace(pipeline, session=kind, prompts=prompts),
            Arm(residency=residency, schedule=schedule, **settings["runtime"]),
        )
        for kind, residency, schedule in product(cfg.sessions, cfg.residencies, cfg.schedules)
    ]
    if setup.planned_only("sessions", settings):
        return

    # The job: the first clips of the test split; the modules, in the wanted precision.
    dataset.prepare()
    clips = dataset.clips("test")[: cfg.job_clips]
    setup.prepare_modules(for_quality=False)
    protocol = f"{dataset.name}/{pipeline.name}-{len(clips)}"
    stage = setup.stage("sessions", __file__, settings, protocol, machine=host.machine)
    if stage.unchanged(f"sessions {precision}"):
        return

    with stage.recording() as run:
        order, outputs = random.Random(cfg.seed), OutputCheck()
        out_of_memory: set[str] = set()
        rounds = [
            (repeat, *one)
            for repeat in range(cfg.repeats + 1)
            for one in order.sample(sessions, len(sessions))
        ]
        for repeat, session, arm in tqdm(rounds, desc="sessions", mininterval=1):
            name = f"{session.session}/{arm.name}"
            if name in out_of_memory:
                continue
            round_ = {
                "session": session.session,
                "residency": arm.residency,
                "schedule": arm.schedule,
                "repeat": repeat,
                "warmup": repeat == 0,
            }
            trace = None
            try:
                trace = host.run(setup, session, clips, arm)
            except MemoryError as error:
                out_of_memory.add(name)
                run.samples.append({"kind": "oom", **round_, "detail": str(error)})
            if trace is None:
                gc.collect()  # the error's frames are gone, and with them what they held
                setup.device.empty_cache()
                continue
            for number, answer in enumerate(trace.results, 1):
                seconds = waterfall(trace.spans, answer.start_s, answer.end_s).to_dict()
                read = asdict(module_loads(trace.spans, answer.start_s, answer.end_s))
                run.samples.append(
                    {"kind": "prompt", **round_, "prompt": number, **seconds, **read}
                )
            outputs.add(name, trace.results)
        if len(out_of_memory) == len(sessions):
            raise MemoryError(f"no memory for any session of {precision} modules")
        run.values |= {
            **setup.labels,
            **setup.thread_values(arm for _, arm in sessions),
            "host": host.name,
            **host.facts(),
            "pipeline": pipeline.name,
            "clips": len(clips),
            "prompt_counts": list(cfg.prompt_counts),
            "sessions": [f"{session.session}/{arm.name}" for session, arm in sessions],
            "out_of_memory": sorted(out_of_memory),
            "tokens_identical": True,
            "module_bytes": {name: loader.bytes for name, loader in setup.loaders.items()},
            "failed_clips": len(outputs.answers[0].failures),
        }
    print(
        f"sessions {precision}: {len(sessions)} sessions of {len(prompts)} prompts, "
        f"{cfg.repeats} repeats, same tokens in all"
    )
    print(summary(run.folder))


if __name__ == "__main__":
    main()
