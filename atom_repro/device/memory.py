"""How much memory this process holds, as Linux's /proc says."""

import ctypes
import threading
from pathlib import Path

from atom_repro.datatypes import AtomError

STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int:
    """Anonymous memory, resident or swapped out: what the process allocated itself. Weights that
    are mapped from files are not in it.

    Raises:
        AtomError: a system without /proc/self/status.
    """
    if not STATUS.is_file():
        raise AtomError(f"{STATUS} is not there; memory is measured on Linux only")
    fields = dict(
        line.split(":", 1)
        for line in STATUS.read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))


def return_freed() -> None:
    """Give the system what glibc keeps of freed blocks, so that what is taken next is seen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class PeakSampler:
    """The most anonymous memory that a thread of its own saw, from making it to `stop`.

    Args:
        every_s: time between two looks; what lives shorter than that may be missed.
    """

    def __init__(self, every_s: float = 0.002) -> None:
        self.peak_bytes = anonymous_bytes()
        self._every_s, self._over = every_s, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes())

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self.peak_bytes
