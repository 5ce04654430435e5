"""Whether there is room: memory and disk, asked before the work that needs them."""

import shutil
from pathlib import Path

from atom_repro.datatypes import AtomError, OutOfMemory

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that this process can still get: the system's, or its control group's if fewer.

    None where the system does not say.
    """
    found = []
    if MEMINFO.is_file():
        for line in MEMINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    group = _group_memory(CGROUP)
    if group is not None:
        found.append(group)
    return min(found, default=None)


def _group_memory(group: Path) -> int | None:
    """What a control group (version 2) has left; pages of files can be taken back."""
    limit, used, stat = group / "memory.max", group / "memory.current", group / "memory.stat"
    if not (limit.is_file() and used.is_file()):
        return None
    text = limit.read_text(encoding="utf-8").strip()
    if text == "max":
        return None
    taken = int(used.read_text(encoding="utf-8"))
    if stat.is_file():
        for line in stat.read_text(encoding="utf-8").splitlines():
            if line.startswith("inactive_file "):
                taken -= int(line.split()[1])
    return max(0, int(text) - taken)


def require_memory(
    needed: int,
    what: str,
    *,
    there: int | None = None,
    remedy: str = "take a smaller model or quant=int8",
) -> None:
    """
    Args:
        there: bytes that can be had; None for what the system says.

    Raises:
        OutOfMemory: `what` needs more bytes than there are; ends with the `remedy`.
    """
    if there is None:
        there = available_memory()
    if there is not None and needed > there:
        raise OutOfMemory(
            f"{what} needs {needed / 2**20:,.0f} MiB of memory and {there / 2**20:,.0f} MiB are "
            f"available; free some, or {remedy}"
        )


def require_disk(folder: Path, needed: int, what: str) -> None:
    """
    Raises:
        AtomError: `what` needs more bytes than the disk of `folder` has.
    """
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise AtomError(
            f"{what} needs {needed / 2**20:,.0f} MiB of disk at {there} and {free / 2**20:,.0f} "
            "MiB are free; free some, or choose another target"
        )
