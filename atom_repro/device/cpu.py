"""The CPU as a compute device."""

from contextlib import AbstractContextManager, nullcontext

import torch


class Cpu:
    """CPU device: calls are synchronous, so lanes and waiting do nothing."""

    name = "cpu"
    torch = torch.device("cpu")

    def lane(self) -> AbstractContextManager[None]:
        return nullcontext()

    def wait(self) -> None:
        pass

    def give_back(self) -> None:
        pass

    def start_peak(self) -> None:
        pass

    def peak_bytes(self) -> int | None:
        return None


def build() -> Cpu:
    """Build the device of `conf/device/cpu.yaml`."""
    return Cpu()
