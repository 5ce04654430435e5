"""Run all tests, those that `make test` leaves out too, and record the run (make test-all).

The record says which tests passed, failed or were left out and why, with the seconds of each; a run
that failed is a record too.

    python -m eval.test_all
    python -m eval.test_all tests=[tests/report,tests/records]
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("test_all")
def main(cfg: Any) -> None:
    from atom_repro.device.machine import this_machine
    from atom_repro.records.stage import Stage
    from atom_repro.study.processes import child_subreaper
    from atom_repro.study.pytest_report import read_report

    settings = {**config.to_dict(cfg), "scale": {"name": "tests"}}
    stage = Stage.of("test_all", __file__, settings, this_machine(), inputs={}, weights="none")
    with tempfile.TemporaryDirectory() as folder, stage.recording() as run:
        report = Path(folder) / "report.xml"
        options = ["-n", str(cfg.workers), f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *cfg.tests]
        with child_subreaper():  # of the studies that tests kill
            status = subprocess.run(command, check=False).returncode
        if not report.is_file():
            raise AtomError(f"pytest ended with status {status} and without a report")
        tests = read_report(report)
        run.samples += [test.to_dict() for test in tests]
        run.values |= {
            **{
                outcome: sum(test.outcome == outcome for test in tests)
                for outcome in ("passed", "failed", "skipped")
            },
            "seconds": sum(test.seconds for test in tests),
        }
        if status:
            raise AtomError(f"pytest ended with status {status}; the record names what failed")


if __name__ == "__main__":
    main()
