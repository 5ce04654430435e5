"""Memory of this process and of the workers that hold its modules, from Linux's /proc: anonymous
and file-backed bytes, and a peak sampler."""

import ctypes
import threading
from dataclasses import dataclass
from pathlib import Path

from atom_repro.datatypes import AtomError

STATUS = Path("/proc/self/status")


_workers: set[int] = set()


def count_process(pid: int) -> None:
    """Count a process that holds a module for this one."""
    _workers.add(pid)


def forget_process(pid: int) -> None:
    """Stop counting a process."""
    _workers.discard(pid)


@dataclass(frozen=True)
class MemoryUse:
    """Bytes in memory.

    Attributes:
        anonymous: allocations, resident or swapped.
        file: resident pages of mapped files (libraries, weights), which the system can drop.
            Pages that processes share are counted in each.
    """

    anonymous: int
    file: int

    def largest(self, other: "MemoryUse") -> "MemoryUse":
        """The larger of each."""
        return MemoryUse(max(self.anonymous, other.anonymous), max(self.file, other.file))


def is_measurable() -> bool:
    """Whether this system tells the memory of a process: Linux does."""
    return STATUS.is_file()


def memory_use() -> MemoryUse:
    """Memory of this process and its workers.

    Raises:
        AtomError: no /proc/self/status (not Linux).
    """
    if not is_measurable():
        raise AtomError(f"{STATUS} does not exist; memory is measured on Linux only")
    each = [_memory_use(STATUS)]
    for pid in list(_workers):
        try:
            each.append(_memory_use(Path(f"/proc/{pid}/status")))
        except (
            FileNotFoundError,
            ProcessLookupError,
            KeyError,
        ):  # it has ended: no fields, or none
            forget_process(pid)
    return MemoryUse(sum(use.anonymous for use in each), sum(use.file for use in each))


def anonymous_bytes() -> int:
    """Anonymous memory in bytes; see `MemoryUse`. Raises as `memory_use`."""
    return memory_use().anonymous


def _memory_use(status: Path) -> MemoryUse:
    fields = dict(
        line.split(":", 1)
        for line in status.read_text(encoding="utf-8").splitlines()
        if ":" in line
    )

    def size(*names: str) -> int:
        return sum(int(fields[name].split()[0]) * 1024 for name in names)

    return MemoryUse(size("RssAnon", "VmSwap"), size("RssFile"))


def trim_heap() -> None:
    """Return freed heap memory to the system (glibc `malloc_trim`), so that a new peak shows."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class PeakSampler:
    """Peak memory, sampled by a background thread from construction to `stop`. Anonymous and
    file-backed memory have a peak each, which may be at different times.

    Args:
        every_s: sampling interval; shorter peaks may be missed.
    """

    def __init__(self, every_s: float = 0.002) -> None:
        self.peak = memory_use()
        self._every_s, self._stopped = every_s, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stopped.wait(self._every_s):
            self.peak = self.peak.largest(memory_use())

    def stop(self) -> MemoryUse:
        self._stopped.set()
        self._thread.join()
        return self.peak
