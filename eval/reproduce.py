"""The whole study: fine-tune, evaluate, time the pipeline, write the tables (make reproduce).

Checks all overrides first, gives each stage those that it knows, and runs the stages as commands
of their own. What is unchanged since an earlier run is reused; a run that was killed goes on
where it stopped.

    python -m eval.reproduce
    python -m eval.reproduce quant=int8 train.max_steps=200
    python -m eval.reproduce scale=smoke paths.work=.atom/smoke paths.results=.atom/smoke/results
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atom_repro import config
from atom_repro.datatypes import AtomError
from atom_repro.routing import plan


def main() -> None:
    if "--help" in sys.argv[1:]:
        print(__doc__)
        return
    try:
        stages = plan("reproduce", sys.argv[1:])
        mine = [a for a in sys.argv[1:] if a.startswith("paths.")]
        work = Path(config.compose("reproduce", mine).paths.work)
        began = time.perf_counter()
        with _only_run_in(work):
            for number, stage in enumerate(stages, 1):
                passed = time.perf_counter() - began
                line = " ".join((stage.module, *stage.overrides))
                print(f"[{number}/{len(stages)}] {passed:5.0f} s  {line}", flush=True)
                command = [sys.executable, "-m", stage.module, *stage.overrides]
                code = subprocess.run(command, preexec_fn=_die_with_parent).returncode
                if code:
                    raise AtomError(
                        f"{line} ended with status {code}; what was finished is kept, the same "
                        "command goes on from there"
                    )
        print(f"done in {time.perf_counter() - began:.0f} s")
    except AtomError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from here\n")
        sys.exit(130)


def _die_with_parent() -> None:
    # A stage whose study was killed must not go on beside the one that replaces it (Linux only).
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


@contextmanager
def _only_run_in(work: Path) -> Iterator[None]:
    work.mkdir(parents=True, exist_ok=True)
    with (work / "reproduce.lock").open("a+") as lock:
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


if __name__ == "__main__":
    if "MAKELEVEL" in os.environ:
        _die_with_parent()  # a killed make takes its study along
    main()
