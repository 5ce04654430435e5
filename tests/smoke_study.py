"""A study at smoke scale in a folder of its own: run whole, or killed at a place."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ROOT
from readme_commands import NO_EXPORT, SMALL, run

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records

STAGES = {"finetune": 1, "caption": 2, "retrieval": 2, "tasks": 2, "latency": 4}
EXPORTED = {"latency": 5}  # with the engine that runs exported modules


def study(folder, exported):
    return [
        sys.executable, "-m", "eval.reproduce", "scale=smoke", *SMALL,
        *([] if exported else [NO_EXPORT]),
        f"paths.work={folder}/work", f"paths.results={folder}/results",
    ]  # fmt: skip


def finish(folder, *, exported=False):
    return run(study(folder, exported))


def records(folder):
    return load_records([folder / "results/records" / this_machine().fingerprint])


def is_whole(made, *, exported=False):
    """Whether these are the records of one study, each stage run once."""
    stages = [r.stage for r in made]
    expected = STAGES | (EXPORTED if exported else {})
    return {s: stages.count(s) for s in expected} == expected and all(r.ok for r in made)


def stop_at(folder, line, how=signal.SIGKILL, *, exported=False):
    """Start the study, send it a signal once `line` stands in its output, and wait for its stages.

    The study alone is told: its stage must not outlive it.
    """
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            study(folder, exported), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 900
            while line not in (folder / "log").read_text():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, f"no {line!r} in 900 s"
                time.sleep(0.05)
        finally:
            process.send_signal(how)
            status = process.wait(60)
    assert status == (130 if how == signal.SIGINT else -how)
    for _ in range(100):
        if not _alive(process.pid):
            return
        time.sleep(0.05)
    pytest.fail("a stage outlived its study")


def _alive(session):
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False
