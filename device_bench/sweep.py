"""Measure devices over adb, several at once: every arm, precision, pipeline and setting.

Checks all overrides first, then runs `device_bench.latency` for each point of each device as a
command of its own, the arms of a point interleaved. A point has a record, whatever becomes of it;
the same command does what has no good one, so a cable, a reboot or Ctrl-C costs one point. On
stand-ins all of it runs without a phone.

    python -m device_bench.sweep hosts=[standin,standin] scale=systems
    python -m device_bench.sweep hosts=[pixel_8a] settings=table05 dry_run=true
    python -m device_bench.sweep hosts=[auto] quants=[8da8w] pipelines=[assembly] minutes=30
    python -m device_bench.sweep hosts=[auto] clean_up=true
"""

import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from atom_repro import config
from atom_repro.datatypes import AtomError
from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records
from atom_repro.study.overrides import StageCommand, applicable_overrides, device_points
from atom_repro.study.plan import print_plan_of_stages
from atom_repro.study.processes import one_line_errors, run_lanes, run_stage, work_folder_lock


def main() -> None:
    if "--help" in sys.argv[1:]:
        print(__doc__)
        return
    with one_line_errors():
        from atom_repro.hosts.lanes import clean_up_devices, device_lanes

        # The points of every device.
        sweep = config.compose("device_sweep", applicable_overrides("device_sweep", sys.argv[1:]))
        hosts = device_lanes(sweep.command.primary, sweep.hosts, planned=sweep.dry_run)
        lanes = {
            name: device_points("device_sweep", sys.argv[1:], overrides)
            for name, overrides in hosts.items()
        }
        if sweep.dry_run:
            for name, points in lanes.items():
                print(f"{name}: {len(points)} points")
                print_plan_of_stages(list(points.values()), this_machine())
            return

        # All devices at once, each point after point; what they print goes to a file each.
        work, results = Path(sweep.paths.work), Path(sweep.paths.results)
        report = StageCommand("eval.report", applicable_overrides("report", sys.argv[1:]), "report")
        began, started = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        logs = work / "device_sweep"
        with work_folder_lock(work):
            failed = run_lanes(lanes, logs)
            wrong = run_stage(report)

        # What became of them, by the records.
        made = [
            str(r.data["status"]) + (", throttled" if r.values.get("throttled") else "")
            for r in load_records((results / "records").glob("*"))
            if r.data["started_utc"] >= started
        ]
        outcomes = ", ".join(f"{n} {what}" for what, n in Counter(made).items()) or "none"
        count = sum(map(len, lanes.values()))
        print(f"{count - len(failed)} of {count} points done, {time.perf_counter() - began:.0f} s; "
              f"new records: {outcomes}")  # fmt: skip
        if failed:
            raise AtomError(
                f"these points failed: {', '.join(failed)}; their records and the files in {logs} "
                "say why, and the same command tries them again"
            )
        if sweep.clean_up and (cleaned := clean_up_devices(sweep.command.primary, hosts)):
            print(f"removed what was sent to {', '.join(cleaned)}")
        if wrong:
            raise AtomError(f"eval.report ended with status {wrong}; every point is recorded")


if __name__ == "__main__":
    main()
