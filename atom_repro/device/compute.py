"""Protocol of a compute device: streams, synchronisation, cached memory, peak memory.

A device may run asynchronously, in several streams at once. A measurement therefore runs
inside a `stream` and calls `synchronize` before it reads the clock; on a CPU both do nothing.
"""

from contextlib import AbstractContextManager
from typing import Protocol

import torch


class ComputeDevice(Protocol):
    """One device of this process. `name` identifies it in records."""

    @property
    def name(self) -> str: ...

    @property
    def torch(self) -> torch.device:
        """The torch device of modules and tensors."""
        ...

    def stream(self) -> AbstractContextManager[None]:
        """Context of this thread's stream: its work may overlap with that of other threads."""
        ...

    def synchronize(self) -> None:
        """Synchronise: block until the work of this thread's stream is done."""
        ...

    def empty_cache(self) -> None:
        """Release cached memory, so that loading a module again allocates anew."""
        ...

    def reset_peak_memory(self) -> None:
        """Reset the peak memory statistics."""
        ...

    def peak_bytes(self) -> int | None:
        """Peak bytes allocated by tensors of this process; None where the device does not count
        them, as on a CPU, where `memory` samples the process instead."""
        ...
