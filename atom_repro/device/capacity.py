"""Checks of available memory and free disk space before the work that needs them."""

import shutil
from pathlib import Path

from atom_repro.datatypes import AtomError, OutOfMemory

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes of memory available to this process: the minimum of the system's and its cgroup's.

    None where the system does not report it.
    """
    candidates = []
    if MEMINFO.is_file():
        for line in MEMINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                candidates.append(int(line.split()[1]) * 1024)
    in_cgroup = _cgroup_memory(CGROUP)
    if in_cgroup is not None:
        candidates.append(in_cgroup)
    return min(candidates, default=None)


def _cgroup_memory(cgroup: Path) -> int | None:
    """Available bytes of a cgroup (v2), with reclaimable page cache; None without a limit."""
    limit, used, stat = cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat"
    if not (limit.is_file() and used.is_file()):
        return None
    text = limit.read_text(encoding="utf-8").strip()
    if text == "max":
        return None
    in_use = int(used.read_text(encoding="utf-8"))
    if stat.is_file():
        for line in stat.read_text(encoding="utf-8").splitlines():
            if line.startswith("inactive_file "):
                in_use -= int(line.split()[1])
    return max(0, int(text) - in_use)


def require_memory(
    needed: int,
    what: str,
    *,
    available: int | None = None,
    remedy: str = "take a smaller model or quant=int8",
) -> None:
    """Check that `needed` bytes of memory are available for `what`.

    Args:
        available: available bytes; None for `available_memory`.

    Raises:
        OutOfMemory: fewer are available; the message ends with the `remedy`.
    """
    if available is None:
        available = available_memory()
    if available is not None and needed > available:
        raise OutOfMemory(
            f"{what} needs {needed / 2**20:,.0f} MiB of memory and {available / 2**20:,.0f} MiB "
            f"are available; free some, or {remedy}"
        )


def require_disk(
    folder: Path, needed: int, what: str, *, remedy: str = "set paths.work to another disk"
) -> None:
    """Check that `needed` bytes are free for `what` on the disk of `folder`.

    Raises:
        AtomError: fewer are free; the message ends with the `remedy`.
    """
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise AtomError(
            f"{what} needs {needed / 2**20:,.0f} MiB of disk at {existing} and {free / 2**20:,.0f} "
            f"MiB are free; free some, or {remedy}"
        )
