"""Modules in worker processes: same results, errors and kills as one-line errors, real overlap."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from atom_repro.datatypes import AtomError
from atom_repro.device.memory import anonymous_bytes
from atom_repro.engines.workers import RemoteModule, Worker, Workers
from atom_repro.models.visual_tokens import VisualTokens

pytestmark = pytest.mark.slow


class Busy:
    """A module whose calls hold the interpreter's lock, and which knows its threads."""

    def __init__(self, fault: str = "") -> None:
        if fault == "load":
            raise AtomError("no such file")
        self.fault = fault
        self.weights = bytearray(64 * 2**20)

    def __call__(self, seconds: float) -> int:
        if self.fault == "call":
            raise MemoryError("no memory left")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return torch.get_num_threads()

    def generate(self, visual, prompt, settings):
        return [visual.tokens.sum().item(), visual.features["deep"].tolist(), prompt, settings]

    def score(self, visual, prompt, continuations):
        return [visual, prompt, list(continuations)]

    def release(self) -> None:
        del self.weights


@pytest.fixture(scope="module")
def workers():
    made = Workers(int)
    made.start(2)
    yield made
    made.stop()


def test_calls_carry_tensors_and_threads(workers):
    module = RemoteModule.load(workers, Busy)
    visual = VisualTokens(torch.ones(1, 2, 3), (1,), {"deep": torch.arange(2)})
    assert module.generate(visual, "a ball", 3) == [6.0, [0, 1], "a ball", 3]
    assert module.score(None, "", ("a", "b")) == [None, "", ["a", "b"]]
    previous = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert module(0.0) == threads
    finally:
        torch.set_num_threads(previous)
    module.release()


def test_a_process_serves_the_next_load_and_its_memory_counts(workers):
    before = anonymous_bytes()
    module = RemoteModule.load(workers, Busy)
    assert anonymous_bytes() - before > 50 * 2**20
    pid = module.worker.pid
    module.release()
    assert anonymous_bytes() - before < 10 * 2**20
    again = RemoteModule.load(workers, Busy)
    assert again.worker.pid == pid
    again.release()


def test_errors_come_back_and_the_process_stays(workers):
    with pytest.raises(AtomError, match="no such file"):
        RemoteModule.load(workers, Busy, "load")
    module = RemoteModule.load(workers, Busy, "call")
    with pytest.raises(MemoryError, match="no memory left"):
        module(0.0)
    module.release()


def test_a_killed_process_is_one_line_and_the_next_load_starts_another(workers):
    module = RemoteModule.load(workers, Busy, "kill")
    with pytest.raises(MemoryError, match="most likely for lack of memory"):
        module(0.0)
    workers.give_back(module.worker)
    RemoteModule.load(workers, Busy).release()


def test_processes_end_with_their_owner():
    worker = Worker(int, torch.set_num_threads, {})
    worker.wait()
    assert Path(f"/proc/{worker.pid}").exists()
    worker.stop()
    assert not worker.alive
