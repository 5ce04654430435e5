"""What commands that run other commands share: one study in a folder, and stages that end with it.

A stage is a process of its own. Whatever ends a study, a second run of the same command goes on
from what its stages kept.
"""

import ctypes
import fcntl
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atom_repro.datatypes import AtomError
from atom_repro.routing import Stage


def run(stage: Stage) -> int:
    """Run a stage with this process's output as its own: its exit status."""
    command = [sys.executable, "-m", stage.module, *stage.overrides]
    dying = functools.partial(die_with, os.getpid())
    return subprocess.run(command, preexec_fn=dying, check=False).returncode


def die_with(parent: int) -> None:
    """A stage whose study was killed must not go on beside the one that replaces it (Linux)."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before this could be asked for
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def only_run_in(work: Path) -> Iterator[None]:
    """Hold the work folder, which is made, for this study alone.

    Raises:
        AtomError: another study holds it; names its process.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / "study.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise AtomError(
                f"another run (process {lock.read().strip()}) works in {work}; wait for it, end "
                "it, or set paths.work"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with status 1 and one line for an `AtomError`, with 130 after Ctrl-C."""
    try:
        yield
    except AtomError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from here\n")
        sys.exit(130)
