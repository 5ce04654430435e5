"""Atomic replacement of files and folders: readers see the old content or the new."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atom_repro.datatypes import AtomError


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` to write a file or folder; rename it on success.

    Raises:
        AtomError: the disk is full. The old content of `target` is kept, as after any other
            error and after Ctrl-C.
    """
    temporary = target.with_name(f".{target.name}.building-{os.getpid()}")
    _remove(temporary)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if target.is_dir():  # a folder cannot be renamed over one that holds files
            old = target.with_name(f".{target.name}.old-{os.getpid()}")
            target.rename(old)
            temporary.rename(target)
            _remove(old)
        else:
            temporary.replace(target)
    except BaseException as error:  # Ctrl-C too leaves nothing behind
        _remove(temporary)
        if disk_full(error):
            raise AtomError(
                f"no space left on the disk of {target}; free some and run the same command "
                "again: finished work is kept, and it goes on from there"
            ) from error
        raise


def disk_full(error: BaseException) -> bool:
    """Whether the error means a full disk; safetensors reports it in its message only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error) or "os error 28" in str(error)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
