"""Run the whole study: fine-tune, evaluate, time the pipeline, write the tables (make reproduce).

Checks all overrides first, gives each stage those that it knows, and runs the stages as commands
of their own. What is unchanged since an earlier run is reused; a run that was killed goes on
where it stopped.

    python -m eval.reproduce
    python -m eval.reproduce quant=int8 train.max_steps=200
    python -m eval.reproduce dry_run=true
    python -m eval.reproduce scale=smoke paths.work=.atom/smoke paths.results=.atom/smoke/results
"""

import os
import sys
import time
from pathlib import Path

from atom_repro import config
from atom_repro.datatypes import AtomError
from atom_repro.device.machine import this_machine
from atom_repro.study.overrides import applicable_overrides, plan_stages
from atom_repro.study.plan import print_plan_of_stages
from atom_repro.study.processes import die_with_parent, one_line_errors, run_stage, work_folder_lock


def main() -> None:
    if "--help" in sys.argv[1:]:
        print(__doc__)
        return
    with one_line_errors():
        stages = plan_stages("reproduce", sys.argv[1:])
        study = config.compose("reproduce", applicable_overrides("reproduce", sys.argv[1:]))
        if study.dry_run:
            print_plan_of_stages(stages, this_machine())
            return
        work, results = Path(study.paths.work), Path(study.paths.results)
        began, reported = time.perf_counter(), -1
        with work_folder_lock(work):
            for number, stage in enumerate(stages, 1):
                # Without a new record since the last report, the tables would be the same.
                if stage.module == "eval.report":
                    count = sum(1 for _ in results.glob("records/*/*/*/record.json"))
                    if count == reported and number < len(stages):
                        continue
                    reported = count
                passed = time.perf_counter() - began
                print(f"[{number}/{len(stages)}] {passed:5.0f} s  {stage}", flush=True)
                code = run_stage(stage)
                if code:
                    raise AtomError(
                        f"{stage} ended with status {code}; what was finished is kept, the same "
                        "command goes on from there"
                    )
        print(f"done in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    if "MAKELEVEL" in os.environ:
        die_with_parent(os.getppid())  # a killed make takes its study along
    main()
