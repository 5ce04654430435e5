"""What commands that run other commands share: one study in a folder, and stages that end with it.

A stage is a process of its own, forked from one that has imported the libraries already, so that a
stage that is unchanged answers at once. Whatever ends a study, a second run of the same command
goes on from what its stages kept.
"""

import ctypes
import fcntl
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

from atom_repro.datatypes import AtomError
from atom_repro.study.overrides import Stage

_GRACE_S = 15.0  # to end what cannot be cut short, and to write a record


def run(stage: Stage) -> int:
    """Run a stage with this process's output as its own: its exit status."""
    process = stage_context().Process(target=run_module, args=(stage.module, stage.overrides))
    process.start()
    try:
        process.join()
    except BaseException:
        # Ctrl-C reaches the stage too, which records that it was interrupted; where this process
        # alone was told, the stage must not go on without it.
        try:
            process.join(_GRACE_S)
        finally:
            process.kill()
            process.join()
        raise
    status = process.exitcode
    assert status is not None
    return status


def stage_context() -> ForkServerContext | SpawnContext:
    """How the process of a stage begins: forked from a server that has imported the libraries
    where forking is sound, which is on Linux without a GPU's driver, whose state a forked process
    cannot use; anew anywhere else."""
    if sys.platform == "linux" and not Path("/dev/nvidiactl").exists():
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["atom_repro.study.preload"])
        return server
    return multiprocessing.get_context("spawn")


def run_module(module: str, arguments: Sequence[str]) -> None:
    """What `python -m module *arguments` does, in a process that a study started and whose death
    ends it."""
    study = multiprocessing.parent_process()
    if study is not None:
        watch = threading.Thread(target=_end_with, args=(study.sentinel,), daemon=True)
        watch.start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with(sentinel: int) -> None:
    """A stage whose study was killed must not go on beside the one that replaces it."""
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def die_with(parent: int) -> None:
    """Ask to be killed when the process that started this one ends (Linux)."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before this could be asked for
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def adopted_orphans() -> Iterator[None]:
    """Be the parent of every descendant whose own parent ends before it (Linux), so that its
    processor time counts as this process's."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1)
    try:
        yield
    finally:
        with suppress(ChildProcessError):  # there is none left
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue


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
