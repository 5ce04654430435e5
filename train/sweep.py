"""Fine-tune at every point of a grid and write the table (paper appendix G).

Checks the grid and all overrides first, then runs `train.finetune` for each point as a command of
its own, with a checkpoint folder of its own. What is unchanged since an earlier run is reused; a
run that was killed goes on where it stopped. A point that fails is named at the end, and the
others are run all the same.

    python -m train.sweep
    python -m train.sweep "grid.learning_rate=[1e-3,2e-3]" "grid.seed=[0,1,2]" train.epochs=15
    python -m train.sweep scale=smoke paths.work=.atom/smoke paths.results=.atom/smoke/results
"""

import sys
import time
from pathlib import Path

from atom_repro import config
from atom_repro.datatypes import AtomError
from atom_repro.device.machine import this_machine
from atom_repro.study.overrides import StageCommand, applicable_overrides, sweep_points
from atom_repro.study.plan import print_plan_of_stages
from atom_repro.study.processes import one_line_errors, run_stage, work_folder_lock


def main() -> None:
    if "--help" in sys.argv[1:]:
        print(__doc__)
        return
    with one_line_errors():
        points = sweep_points("sweep", sys.argv[1:])
        sweep = config.compose("sweep", applicable_overrides("sweep", sys.argv[1:]))
        if sweep.dry_run:
            print_plan_of_stages(list(points.values()), this_machine())
            return
        work = Path(sweep.paths.work)
        report = StageCommand("eval.report", applicable_overrides("report", sys.argv[1:]), "report")
        failed: dict[str, int] = {}
        began, longest = time.perf_counter(), 0.0
        with work_folder_lock(work):
            for number, (name, stage) in enumerate(points.items()):
                # The longest point so far, because those that are unchanged take no time.
                remaining = longest * (len(points) - number)
                estimate = (
                    f"at most about {remaining:.0f} s left" if number else "time left not known yet"
                )
                passed = time.perf_counter() - began
                print(
                    f"[{number + 1}/{len(points)}] {passed:5.0f} s, {estimate}  {name}", flush=True
                )
                code = run_stage(stage)
                if code:
                    failed[name] = code
                    print(f"{name} ended with status {code}; going on", flush=True)
                longest = max(longest, time.perf_counter() - began - passed)
            wrong = run_stage(report)
        print(f"{len(points) - len(failed)} of {len(points)} points done, "
              f"{time.perf_counter() - began:.0f} s")  # fmt: skip
        if failed:
            listed = ", ".join(f"{name} (status {code})" for name, code in failed.items())
            raise AtomError(f"these points failed: {listed}; the same command tries them again")
        if wrong:
            raise AtomError(f"eval.report ended with status {wrong}; every point is recorded")


if __name__ == "__main__":
    main()
