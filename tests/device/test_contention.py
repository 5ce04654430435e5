"""Busy processes take their cores, and end with what started them."""

import subprocess
import sys
import time

import psutil
import pytest

from atom_repro.device.contention import busy_processes


def spinning(parent):
    return [p for p in psutil.Process(parent).children() if "while True: pass" in p.cmdline()]


def test_they_compute_while_the_block_runs_and_no_longer():
    with busy_processes(2):
        children = spinning(None)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and any(p.cpu_times().user < 0.1 for p in children):
            time.sleep(0.05)
        assert len(children) == 2
        assert all(p.cpu_times().user >= 0.1 for p in children)
    assert not any(p.is_running() for p in children)
    with pytest.raises(RuntimeError), busy_processes(1):
        (child,) = spinning(None)
        raise RuntimeError
    assert not child.is_running()


def test_they_end_with_a_process_that_is_killed():
    code = (
        "import time\nfrom atom_repro.device.contention import busy_processes\n"
        "with busy_processes(1):\n    print(1, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (child,) = spinning(process.pid)
        process.kill()
        process.wait()
    assert not psutil.wait_procs([child], timeout=10)[1]
