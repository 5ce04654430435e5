"""Processes that keep cores busy, to measure what runs beside them."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from atom_repro.study.processes import die_with_parent


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute without pause until the block, or this process, ends."""
    end_with_us = functools.partial(die_with_parent, os.getpid())
    processes = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=end_with_us)
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
