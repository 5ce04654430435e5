"""Both schedules, two stages and three: results in order, bounded, over when something breaks."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from atom_repro.runtime import schedule as schedules
from atom_repro.runtime.schedule import SCHEDULES

NAMES = ("encoder", "router", "decoder")


def run(schedule, items, *stages, queue_size):
    """Run two stages, encoder and decoder, or three, with a router between them."""
    names = NAMES if len(stages) == 3 else ("encoder", "decoder")
    return schedules.run(
        schedule, items, dict(zip(names, stages, strict=True)), queue_size=queue_size
    )


def same(value):
    return value


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("queue_size", [1, 3])
def test_results_come_in_order(schedule, queue_size):
    results = run(schedule, range(20), lambda i: i * i, lambda m: -m, queue_size=queue_size)
    assert list(results) == [-i * i for i in range(20)]
    results = run(
        schedule, range(20), lambda i: i * i, lambda m: -m, lambda m: (m,), queue_size=queue_size
    )
    assert list(results) == [(-i * i,) for i in range(20)]


def test_every_stage_but_the_last_has_a_thread_of_its_name():
    def lane(seen):
        return (*seen, threading.current_thread().name)

    main = ("MainThread",) * 2
    for schedule, names in (("parallel", ("encoder", "router")), ("sequential", main)):
        results = list(run(schedule, [()] * 3, lane, lane, lane, queue_size=1))
        assert results == [(*names, "MainThread")] * 3


def test_one_stage_needs_no_thread():
    lanes = schedules.run(
        "parallel", range(2), {"decoder": lambda i: threading.current_thread().name}, queue_size=1
    )
    assert list(lanes) == ["MainThread"] * 2


def test_parallel_overlaps_and_sequential_does_not():
    def overlaps(schedule, stages):
        inside, most = [0], [0]
        lock = threading.Lock()

        def work(*_):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            with lock:
                inside[0] -= 1

        list(run(schedule, range(12), *[work] * stages, queue_size=2))
        return most[0]

    for stages in (2, 3):
        assert overlaps("sequential", stages) == 1
        assert overlaps("parallel", stages) == stages


def test_the_queue_bounds_what_waits():
    made, used = [], []

    def last(_):
        time.sleep(0.01)
        # in the queue, in the producer's hand, and the one here
        assert len(made) - len(used) <= 2 + 1 + 1
        used.append(1)

    list(run("parallel", range(15), made.append, last, queue_size=2))
    assert len(used) == 15


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("where", NAMES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_errors_reach_the_caller_after_the_results_before_them(schedule, where, error):
    def stage(name):
        def work(i, *_):
            if name == where and i == 3:
                raise error("clip 3")
            return i

        return work

    done = []
    with pytest.raises(error, match="clip 3"):
        for result in run(schedule, range(10), *map(stage, NAMES), queue_size=1):
            done.append(result)
    assert done == [0, 1, 2]
    assert threads() == []


def test_an_abandoned_iteration_ends_its_thread():
    results = run("parallel", range(1000), same, same, same, queue_size=1)
    assert next(results) == 0
    results.close()
    assert threads() == []


def test_an_abandoned_iteration_makes_no_more_than_what_fits():
    made = []
    results = run("parallel", range(500), lambda i: made.append(i) or i, same, queue_size=1)
    assert next(results) == 0
    results.close()
    # The one that was used, one in the queue, one in the producer's hand, one that it had begun.
    assert len(made) <= 4


def threads():
    return [t.name for t in threading.enumerate() if t.name in NAMES]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("lane", NAMES)
def test_ctrl_c_in_the_middle_of_a_lane_ends_all(schedule, lane):
    def stage(name):
        def work(i, *_):
            if name == lane and i == 3:
                signal.raise_signal(signal.SIGINT)  # delivered to the main thread, as Ctrl-C is
                time.sleep(0.05)
            return i

        return work

    done = []
    with pytest.raises(KeyboardInterrupt):
        for result in run(schedule, range(1000), *map(stage, NAMES), queue_size=2):
            done.append(result)
    assert done == list(range(len(done)))
    assert len(done) <= 3
    assert threads() == []


def test_ctrl_c_while_the_first_stage_blocks_for_good(monkeypatch):
    monkeypatch.setattr("atom_repro.runtime.schedule._GRACE_S", 0.1)
    blocked, release = threading.Event(), threading.Event()

    def first(i):
        if i == 2:
            blocked.set()
            release.wait()
        return i

    def interrupt():
        blocked.wait()
        time.sleep(0.05)  # until the consumer waits too
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    done = []
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for result in run("parallel", range(5), first, same, same, queue_size=2):
            done.append(result)
    assert done == [0, 1]
    assert time.monotonic() - began < 2
    release.set()
    for thread in threading.enumerate():
        if thread.name == "encoder":
            thread.join(2)
    assert threads() == []


def test_ctrl_c_kills_a_process_whose_first_stage_blocks_for_good():
    code = (
        "import threading, time\n"
        "from atom_repro.runtime import schedule\n"
        "schedule._GRACE_S = 0.1\n"
        "def first(i):\n"
        "    print('blocks', flush=True)\n"
        "    threading.Event().wait()\n"
        "stages = {'encoder': first, 'decoder': first}\n"
        "list(schedule.run('parallel', range(3), stages, queue_size=1))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "blocks\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in said
    assert process.returncode != 0


@pytest.mark.slow
def test_these_tests_end_where_ctrl_c_is_ignored():
    """As under nohup: a test that sends itself Ctrl-C must not wait for good."""
    test = f"{__file__}::test_ctrl_c_while_the_first_stage_blocks_for_good"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_list_that_breaks_is_an_error_too():
    class Items(list):
        def __iter__(self):
            for i in list.__iter__(self):
                if i == 2 and threading.current_thread().name == "encoder":
                    raise OSError("listing broke")
                yield i

    done = []
    with pytest.raises(OSError, match="listing broke"):
        for result in run("parallel", Items(range(4)), same, same, same, queue_size=1):
            done.append(result)
    assert done == [0, 1]


def test_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule 'eager'"):
        run("eager", [], same, same, queue_size=1)
