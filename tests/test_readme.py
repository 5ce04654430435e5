"""The README's commands that build on a study, on one of smoke scale.

Killed at five stages and run again, it is whole, and what it made serves the commands. Those that
build on nothing are in `test_readme_alone`; `make setup`, `make check` and `make test` are what
`.ci/run` calls on a clean checkout.
"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from readme import (
    ALONE,
    COMMANDS,
    NARROWS,
    NEED_DATA,
    NEED_WEIGHTS,
    ROOT,
    RUN_APART,
    RUN_BY_CI,
    WHOLE,
    run,
    shrunk,
)

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records

STAGES = {"finetune": 1, "caption": 2, "retrieval": 2, "tasks": 2, "latency": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a study that was killed at five stages and then finished, and two videos."""
    folder = tmp_path_factory.mktemp("readme")
    for line in (
        "[1/",  # while it makes the data set
        "loss ",  # in the middle of training
        "eval.caption quant=none",
        "eval.retrieval quant=int8",
        "device_bench.latency quant=none",
    ):
        kill_after(folder, line)
    assert "tables in" in finish(folder)
    (folder / "videos").mkdir()
    for video in sorted((folder / "work/data").glob("toy-*/videos/*.mp4"))[:2]:
        shutil.copy(video, folder / "videos")
    return folder


def study(folder):
    return [
        sys.executable, "-m", "eval.reproduce", "scale=smoke", "train.threads=1",
        f"paths.work={folder}/work", f"paths.results={folder}/results",
    ]  # fmt: skip


def finish(folder):
    return run(study(folder))


def records(folder):
    return load_records([folder / "results/records" / this_machine().fingerprint])


def keys(folder):
    return sorted((r.stage, r.data["key"]) for r in records(folder) if r.ok)


def kill_after(folder, line):
    """Start the study, SIGKILL it once `line` stands in its output, and wait for its stages."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            study(folder), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 900
            while line not in (folder / "log").read_text():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, f"no {line!r} in 900 s"
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)  # the study only: its stage must not outlive it
            process.wait()
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


@pytest.mark.slow
def test_a_killed_study_is_whole_and_does_nothing_twice(folder):
    made = records(folder)
    stages = [r.stage for r in made]
    assert {s: stages.count(s) for s in STAGES} == STAGES
    assert all(r.ok for r in made)
    before = keys(folder)

    # A smoke record fills no table.
    table = folder / "results/local" / this_machine().fingerprint / "tables/table01.md"
    assert "No record of ours yet" in table.read_text()

    # Deleted results come back, and nothing else is measured again: of each stage that is run
    # more than once, one run at least is left.
    deleted = [
        r
        for r in made
        if (r.stage, r.values.get("precision")) in (("caption", "fp32"), ("retrieval", "int8"))
    ]
    assert len(deleted) == 2
    for record in deleted:
        for path in record.folder.iterdir():
            path.unlink()
        record.folder.rmdir()
    out = run(shrunk(WHOLE, folder))
    assert keys(folder) == before
    assert out.count("unchanged") == sum(STAGES.values()) - len(deleted)
    kept = {r.folder for r in made} - {r.folder for r in deleted}
    assert kept < {r.folder for r in records(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        c
        for c in COMMANDS
        if not c.startswith(RUN_BY_CI + NEED_DATA + NEED_WEIGHTS + RUN_APART + ALONE)
    ],
)
def test_command(command, folder):
    run(shrunk(command, folder))


@pytest.mark.slow
def test_an_override_narrows_the_study(folder):
    earlier = {r.run_id for r in records(folder)}
    run(shrunk(NARROWS, folder))
    made = [r for r in records(folder) if r.run_id not in earlier]
    assert [r.values["precision"] for r in made if r.stage != "finetune"] == ["int8"] * 5
    (trained,) = [r for r in made if r.stage == "finetune"]
    assert trained.config("train.max_steps") == 5


def test_what_is_run_apart_stands_in_the_readme():
    assert {WHOLE, NARROWS} <= set(COMMANDS)
