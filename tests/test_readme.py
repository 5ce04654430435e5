"""The README's commands that build on a study, on one of smoke scale.

Interrupted at a stage and run again, it is whole, and what it made serves the commands. Those that
build on nothing are in `test_readme_alone`; `.ci/run` runs `make setup`, `make check` and
`make test`, and `test_test_all` the command behind `make test-all`.
"""

import shutil
import signal

import pytest
from readme_commands import (
    ALONE,
    COMMANDS,
    DEMO,
    NARROWS,
    NEED_DATA,
    NEED_WEIGHTS,
    NEEDS_PHONE,
    REPEATS,
    RUN_APART,
    RUN_BY_CI,
    STANDIN,
    WHOLE,
    run,
    shrunk,
)
from smoke_study import STAGES, finish, is_whole, records, stop_at

from atom_repro.device.machine import this_machine

# The first test here waits for a whole study.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a study that was interrupted, then finished, and two videos. (`test_study` kills one at
    five stages, `test_reproduce` a training.)"""
    folder = tmp_path_factory.mktemp("readme")
    stop_at(folder, "eval.retrieval quant=none", signal.SIGINT)
    assert "tables in" in finish(folder)
    (folder / "videos").mkdir()
    for video in sorted((folder / "work/data").glob("toy-*/videos/*.mp4"))[:2]:
        shutil.copy(video, folder / "videos")
    return folder


def keys(folder):
    return sorted((r.stage, r.key) for r in records(folder) if r.ok)


def test_an_interrupted_study_is_whole_and_does_nothing_twice(folder):
    made = records(folder)
    assert is_whole(made)
    before = keys(folder)

    # A smoke record fills no table.
    table = folder / "results/local" / this_machine().fingerprint / "tables/table01.md"
    assert "No record of ours yet" in table.read_text()

    # Deleted results come back, and nothing else is measured again: of each stage that is run
    # more than once, one run at least is left.
    deleted = [
        r
        for r in made
        if (r.stage, r.values.get("precision")) in (("tasks", "fp32"), ("retrieval", "int8"))
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


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.long) if c.endswith(REPEATS) else c
        for c in COMMANDS
        if not c.startswith(RUN_BY_CI + NEED_DATA + NEED_WEIGHTS + RUN_APART + ALONE)
    ],
)
def test_command(command, folder):
    run(shrunk(command, folder))


def test_what_is_run_apart_stands_in_the_readme():
    assert {WHOLE, NARROWS, STANDIN, DEMO, NEEDS_PHONE} <= set(COMMANDS)
