"""What a device that computes is to the rest of the package.

A device may work on after a call has returned, and in several lanes at once. So whoever measures
works inside a `lane` and asks it to `wait` before the clock is read; on a CPU both do nothing.
"""

from contextlib import AbstractContextManager
from typing import Protocol

import torch


class ComputeDevice(Protocol):
    """One device of this process. `name` is what records call it."""

    @property
    def name(self) -> str: ...

    @property
    def torch(self) -> torch.device:
        """Where modules and tensors lie."""
        ...

    def lane(self) -> AbstractContextManager[None]:
        """What this thread asks of the device in here may overlap with other threads' work."""
        ...

    def wait(self) -> None:
        """Return when the device has done what this thread asked of it in its lane."""
        ...

    def give_back(self) -> None:
        """Return memory that is kept for reuse, so that reading a module anew is real."""
        ...

    def start_peak(self) -> None:
        """Forget the peak of memory so far."""
        ...

    def peak_bytes(self) -> int | None:
        """The most memory that tensors of this process held; None where the device does not
        count, as on a CPU, where `memory` samples the process instead."""
        ...
