"""The processes that a training starts on this computer: how many, and what becomes of them."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError
from atom_repro.training import workers
from atom_repro.training.workers import threads_of, worker_count

# A module that runs until it is ended, and its arguments.
IDLE = ("http.server", ["0", "--bind", "127.0.0.1"])


@pytest.fixture(autouse=True)
def without_torchrun(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("cores", "rows", "count"),
    [(1, (32, 8, 2), 1), (2, (32, 8, 2), 2), (4, (32, 8, 2), 2), (4, (32, 8, 0), 4),
     (4, (30, 0, 0), 3), (2, (7, 0, 0), 1)],
)  # fmt: skip
def test_workers_share_rows_evenly(cores, rows, count):
    batch, text, questions = rows
    settings = TrainConfig(
        workers=cores, threads=cores, batch_size=batch, text_batch_size=text,
        text_questions=questions,
    )  # fmt: skip
    assert worker_count(settings) == count
    assert threads_of(settings, count) == max(1, cores // count)


def test_what_torchrun_started_starts_none(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert worker_count(TrainConfig(workers=2)) == 1


def test_no_worker_is_no_training():
    with pytest.raises(AtomError, match=r"train\.workers=0 is below 1"):
        worker_count(TrainConfig(workers=0))


def test_a_worker_that_fails_is_named():
    with (
        pytest.raises(AtomError, match=r"rank 1 ended with status 1: .*No module named no_such"),
        workers._workers("no_such_module", [], 2, 1),
    ):
        assert os.environ["WORLD_SIZE"] == "2"
        raise RuntimeError("Connection closed by peer")
    assert "WORLD_SIZE" not in os.environ


def test_a_worker_that_is_killed_says_so():
    before = set(psutil.Process().children())
    with (
        pytest.raises(AtomError, match="rank 1 was killed, most likely for lack of memory"),
        workers._workers(*IDLE, 2, 1),
    ):
        (child,) = set(psutil.Process().children()) - before
        child.kill()
        raise RuntimeError("Connection closed by peer")


def test_an_error_of_our_own_stays_and_ends_the_workers():
    before = set(psutil.Process().children())
    with pytest.raises(RuntimeError, match="ours"), workers._workers(*IDLE, 2, 1):
        (child,) = set(psutil.Process().children()) - before
        raise RuntimeError("ours")
    assert not child.is_running()


def test_workers_end_with_a_command_that_is_killed():
    program = (
        "import time; from atom_repro.training import workers\n"
        f"with workers._workers(*{IDLE}, 3, 1):\n"
        "    print('started', flush=True); time.sleep(100)"
    )
    command = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with command:
        assert command.stdout.readline() == "started\n"
        children = psutil.Process(command.pid).children()
        assert len(children) == 2
        command.kill()
    deadline = time.monotonic() + 20
    while any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
