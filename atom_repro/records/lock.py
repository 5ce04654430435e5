"""Locks between processes: one run at a time has a work folder, an index, a training's folder."""

import fcntl
import os
from pathlib import Path
from typing import IO

from atom_repro.datatypes import AtomError


class Lock:
    """A locked file, until it is closed or this process ends, however it ends."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self._path, self._file = path, file

    def close(self) -> None:
        """Release the lock and delete its file."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hold(path: Path, what: object, otherwise: str = "", *, wait: bool = False) -> Lock:
    """Lock the file `path`, which is created.

    Args:
        what: the thing that is used by one run at a time.
        otherwise: what to do rather than wait.
        wait: until it is free, for work that takes minutes and is done once.

    Raises:
        AtomError: another process holds it; names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(path, what, otherwise, wait)
    # A file that its last holder has deleted since it was opened locks nothing.
    while not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
        file.close()
        file = _locked(path, what, otherwise, wait)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return Lock(path, file)


def _locked(path: Path, what: object, otherwise: str, wait: bool) -> IO[str]:
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise AtomError(
            f"another run (process {holder}) uses {what}; wait for it, end it, or {otherwise}"
        ) from None
    except OSError:
        pass  # a file system without locks, as some network drives are
    return file
