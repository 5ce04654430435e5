"""Locks between processes: one run at a time has a work folder, an index, a training's folder."""

import fcntl
import os
from pathlib import Path
from typing import IO

from atom_repro.datatypes import AtomError


def hold(path: Path, what: object, otherwise: str) -> IO[str]:
    """Lock the file `path`, which is created, until the returned file is closed or this process
    ends, however it ends. The file stays: deleting it would let two processes lock two files of
    one name.

    Args:
        what: the thing that is used by one run at a time.
        otherwise: what to do rather than wait.

    Raises:
        AtomError: another process holds it; names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise AtomError(
            f"another run (process {holder}) uses {what}; wait for it, end it, or {otherwise}"
        ) from None
    except OSError:
        pass  # a file system without locks, as some network drives are
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
