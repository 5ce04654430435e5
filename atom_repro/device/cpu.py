"""The host's processor."""

from contextlib import AbstractContextManager, nullcontext

import torch


class Cpu:
    """Calls return when their work is done, and threads are lanes already."""

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
    """The device of `conf/device/cpu.yaml`."""
    return Cpu()
