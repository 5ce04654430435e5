"""Stage processes of a study: start, termination with the study, and the work-folder lock.

A stage is a separate process, forked from one that has imported the libraries already, so that an
unchanged stage ends at once. However a study ends, running the same command again resumes from what
its stages kept.
"""

import ctypes
import multiprocessing
import os
import re
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

from atom_repro.datatypes import AtomError
from atom_repro.records.lock import hold
from atom_repro.study.overrides import StageCommand

_GRACE_S = 15.0  # for a stage to finish uninterruptible work and write its record


def run_stage(stage: StageCommand) -> int:
    """Run a stage in a subprocess with the same stdout and stderr; return its exit status."""
    process = stage_context().Process(target=run_module, args=(stage.module, stage.overrides))
    process.start()
    try:
        process.join()
    except BaseException:
        # Ctrl-C reaches the stage too, which records the interruption; if only this process was
        # signalled, the stage must not outlive it.
        try:
            process.join(_GRACE_S)
        finally:
            process.kill()
            process.join()
        raise
    status = process.exitcode
    assert status is not None
    return status


def run_lanes(lanes: Mapping[str, Mapping[str, StageCommand]], logs: Path) -> list[str]:
    """Run the stages of several lanes, the lanes at once; return the names of those that failed.

    Args:
        lanes: stages by name, by lane.
        logs: folder of what the stages of each lane print.
    """
    logs.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    with ThreadPoolExecutor(len(lanes)) as pool:
        futures = [
            pool.submit(_run_lane, name, stages, logs, ended) for name, stages in lanes.items()
        ]
        try:
            return [failed for future in futures for failed in future.result()]
        except BaseException:
            # As in `run_stage`: Ctrl-C reaches the stages too, and none outlives this process.
            ended.set()
            for process in multiprocessing.active_children():
                process.join(_GRACE_S)
                process.kill()
            raise


def _run_lane(
    lane: str, stages: Mapping[str, StageCommand], logs: Path, ended: threading.Event
) -> list[str]:
    failed = []
    log = logs / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', lane)}.log"
    for number, (name, stage) in enumerate(stages.items(), 1):
        if ended.is_set():
            break
        sys.stdout.write(f"{lane} [{number}/{len(stages)}] {name}\n")
        sys.stdout.flush()
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n$ python -m {stage}\n")
        begin = log.stat().st_size
        process = stage_context().Process(
            target=_run_logged, args=(stage.module, stage.overrides, log)
        )
        process.start()
        process.join()
        if process.exitcode:
            failed.append(f"{lane}: {name}")
            with log.open("rb") as written:
                written.seek(begin)
                lines = written.read().decode("utf-8", "replace").splitlines()
            errors = [line for line in lines if line.startswith("error: ")]
            what = errors[-1] if errors else f"status {process.exitcode}"
            sys.stdout.write(f"{lane}: {name} failed, {what}\n")
            sys.stdout.flush()
    return failed


def _run_logged(module: str, arguments: Sequence[str], log: Path) -> None:
    """`run_module` with its outputs at the end of a file."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    run_module(module, arguments)


def stage_context() -> ForkServerContext | SpawnContext:
    """Multiprocessing context of stages: forkserver with preloaded libraries on Linux without a
    GPU driver (whose state a forked process cannot use), else spawn."""
    if sys.platform == "linux" and not Path("/dev/nvidiactl").exists():
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["atom_repro.study.preload"])
        return server
    return multiprocessing.get_context("spawn")


def run_module(module: str, arguments: Sequence[str]) -> None:
    """Run `python -m module *arguments` in this process, which is killed when its study ends."""
    study = multiprocessing.parent_process()
    if study is not None:
        watch = threading.Thread(target=_kill_at_exit_of, args=(study.sentinel,), daemon=True)
        watch.start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _kill_at_exit_of(sentinel: int) -> None:
    """Kill this process when its study ends, so that it does not run beside the next study."""
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent process ends (Linux)."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def child_subreaper() -> Iterator[None]:
    """Make this process the child subreaper (Linux): orphaned descendants become its children, so
    that their CPU time counts as its own."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1)
    try:
        yield
    finally:
        with suppress(ChildProcessError):  # no children remain
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue


@contextmanager
def work_folder_lock(work: Path) -> Iterator[None]:
    """Lock the work folder for this study, creating it if needed.

    Raises:
        AtomError: another study holds the lock; names its process.
    """
    with hold(work / "study.lock", work, "set paths.work"):
        yield


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with status 1 and a one-line message for an `AtomError`, with 130 after Ctrl-C."""
    try:
        yield
    except AtomError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; run the same command to resume\n")
        sys.exit(130)
