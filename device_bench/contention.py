"""Training steps beside busy processes: a process a core against one process of as many threads.

Beside `k` processes that compute all the time, a fair system leaves a training c / (c + k) of its
`c` cores. Threads of one process wait for each other in every operator, so that one core that is
taken holds all of them up; processes meet once a step. Each round runs every number of processes
beside every number of busy ones, each as a training of its own, so that what else the machine does
meets all of them.

    python -m device_bench.contention
    python -m device_bench.contention busy=[0,4] rounds=3
"""

import shutil
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("contention")
def main(cfg: Any) -> None:
    from statistics import median

    from tqdm import tqdm

    from atom_repro.device.contention import busy_processes
    from atom_repro.device.machine import this_machine
    from atom_repro.records.record import load_records
    from atom_repro.records.stage import Stage
    from atom_repro.report.console import summary
    from atom_repro.study.overrides import StageCommand
    from atom_repro.study.plan import planned_only
    from atom_repro.study.processes import run_stage

    settings, machine = config.to_dict(cfg), this_machine()
    if 0 not in cfg.busy or any(k < 0 for k in cfg.busy) or any(w < 1 for w in cfg.workers):
        raise AtomError(
            f"busy={list(cfg.busy)} workers={list(cfg.workers)}: busy needs a 0, which the others "
            "are compared with, and no number below it; workers are 1 or more"
        )
    if planned_only("contention", settings, machine):
        return
    stage = Stage.of(
        "contention", __file__, settings, machine, inputs={}, weights="training",
        protocol="contention",
    )  # fmt: skip
    if stage.unchanged("contention"):
        return

    choices = [(workers, busy) for busy in cfg.busy for workers in cfg.workers]
    scratch = Path(cfg.paths.work) / "contention"
    with stage.recording() as run, tqdm(total=cfg.rounds * len(choices), unit="training") as bar:
        for number in range(cfg.rounds):
            for workers, busy in choices:
                # A training of few steps, of which the record has the seconds.
                folder = scratch / f"{number}-{workers}-{busy}"
                training = StageCommand(
                    "train.finetune",
                    (
                        *cfg.training, f"train.workers={workers}", "force=true",
                        f"paths.work={cfg.paths.work}", f"paths.results={folder}/results",
                        f"checkpoint.folder={folder}/modules",
                    ),
                    "finetune",
                )  # fmt: skip
                with busy_processes(busy):
                    if status := run_stage(training):
                        raise AtomError(f"`{training}` ended with status {status}")
                record = load_records([folder / "results/records" / machine.fingerprint])[-1]
                processes = record.values["processes"]
                seconds = [s["step_s"] for s in record.samples() if "step_s" in s]
                run.samples += [
                    {"workers": workers, "processes": processes, "busy": busy,
                     "round": number, "step": step, "seconds": s, "warmup": step < cfg.warmup_steps}
                    for step, s in enumerate(seconds)
                ]  # fmt: skip
                shutil.rmtree(folder)  # its modules are a byproduct
                bar.update()
        timed = [s for s in run.samples if not s["warmup"]]
        run.values |= {
            "model": record.config("model.name"),
            "cores": cfg.cores,
            "step_s": {
                f"{workers} workers, {busy} busy": median(
                    s["seconds"] for s in timed if (s["workers"], s["busy"]) == (workers, busy)
                )
                for workers, busy in choices
            },
        }
    print(summary(run.folder))


if __name__ == "__main__":
    main()
