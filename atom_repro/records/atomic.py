"""Writing so that a reader meets the old content or the new, never half of either."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atom_repro.datatypes import AtomError


@contextmanager
def atomically(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a file or a folder at; it takes the target's name at the end.

    Raises:
        AtomError: the disk is full. What `target` held before is kept, as it is after any other
            error and after Ctrl-C.
    """
    building = target.with_name(f".{target.name}.building-{os.getpid()}")
    _remove(building)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield building
        if target.is_dir():  # a folder cannot be renamed over one that holds files
            old = target.with_name(f".{target.name}.old-{os.getpid()}")
            target.rename(old)
            building.rename(target)
            _remove(old)
        else:
            building.replace(target)
    except BaseException as error:  # Ctrl-C too leaves nothing behind
        _remove(building)
        if disk_full(error):
            raise AtomError(
                f"no space left on the disk of {target}; free some and run the same command "
                "again: finished work is kept, and it goes on from there"
            ) from error
        raise


def disk_full(error: BaseException) -> bool:
    """Whether the system said that the disk is full; safetensors passes it on as text only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error) or "os error 28" in str(error)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
