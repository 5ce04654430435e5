"""Memory of this process and of the workers that hold its modules: anonymous bytes from Linux's
/proc, and a peak sampler."""

import ctypes
import threading
from pathlib import Path

from atom_repro.datatypes import AtomError

STATUS = Path("/proc/self/status")


_workers: set[int] = set()


def count_process(pid: int) -> None:
    """Count a process that works for this one in `anonymous_bytes`."""
    _workers.add(pid)


def forget_process(pid: int) -> None:
    """Stop counting a process."""
    _workers.discard(pid)


def anonymous_bytes() -> int:
    """Anonymous memory in bytes, resident or swapped: allocations of this process and its workers,
    without memory-mapped weight files.

    Raises:
        AtomError: no /proc/self/status (not Linux).
    """
    if not STATUS.is_file():
        raise AtomError(f"{STATUS} does not exist; memory is measured on Linux only")
    total = _anonymous(STATUS)
    for pid in list(_workers):
        try:
            total += _anonymous(Path(f"/proc/{pid}/status"))
        except (
            FileNotFoundError,
            ProcessLookupError,
            KeyError,
        ):  # it has ended: no fields, or none
            forget_process(pid)
    return total


def _anonymous(status: Path) -> int:
    fields = dict(
        line.split(":", 1)
        for line in status.read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))


def trim_heap() -> None:
    """Return freed heap memory to the system (glibc `malloc_trim`), so that a new peak shows."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class PeakSampler:
    """Peak anonymous memory, sampled by a background thread from construction to `stop`.

    Args:
        every_s: sampling interval; shorter peaks may be missed.
    """

    def __init__(self, every_s: float = 0.002) -> None:
        self.peak_bytes = anonymous_bytes()
        self._every_s, self._stopped = every_s, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stopped.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes())

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self.peak_bytes
