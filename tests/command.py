"""Run a command of ours in a process of its own, as `python -m` does, without its imports.

It is forked from a server that has imported the libraries, as stages of a study are. A test that
kills a command, or counts its processes, starts a real one.
"""

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

from atom_repro.study.processes import run_module, stage_context

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 900


def forked(function, *arguments):
    """What a function gives in a process of its own, which has the libraries imported."""
    with ProcessPoolExecutor(1, mp_context=stage_context()) as pool:
        return pool.submit(function, *arguments).result(LIMIT_S)


@dataclass(frozen=True)
class Done:
    """As `subprocess.CompletedProcess`, with text."""

    returncode: int
    stdout: str
    stderr: str


def stop_server():
    """End the server that commands are forked from; their processor time is this process's then."""
    forkserver._forkserver._stop()


def command(module, *arguments, env=()):
    """What `python -m module *arguments` prints, and its exit status.

    Args:
        env: variables beside those of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = stage_context().Process(
            target=_inside, args=(module, arguments, out, err, dict(os.environ) | dict(env))
        )
        process.start()
        try:
            process.join(LIMIT_S)
            assert process.exitcode is not None, (
                f"{module} took over {LIMIT_S} s: {err.read_text()}"
            )
        finally:
            process.kill()
            process.join()
        return Done(process.exitcode, out.read_text(), err.read_text())


def _inside(module, arguments, out, err, env):
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream.fileno())
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    run_module(module, arguments)
