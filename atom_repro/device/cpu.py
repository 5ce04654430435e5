"""The CPU as a compute device."""

from contextlib import AbstractContextManager, nullcontext

import torch


class Cpu:
    """CPU device: calls are synchronous, so streams and waiting do nothing."""

    name = "cpu"
    torch = torch.device("cpu")

    def stream(self) -> AbstractContextManager[None]:
        return nullcontext()

    def synchronize(self) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def reset_peak_memory(self) -> None:
        pass

    def peak_bytes(self) -> int | None:
        return None


def build() -> Cpu:
    """Build the device of `conf/device/cpu.yaml`."""
    return Cpu()
