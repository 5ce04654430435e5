"""An NVIDIA GPU as a compute device, with a CUDA stream per thread name.

Streams are kept by thread name: the encoder's thread is a new one in every job, and memory that
was freed in a stream is reused in that stream only.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch

from atom_repro.datatypes import AtomError


def gpu_name(device: torch.device) -> str:
    """Name of a GPU in records, with its model: two models in one host are two devices."""
    return f"cuda: {torch.cuda.get_device_name(device)}"


class Cuda:
    """One CUDA device.

    Args:
        index: the CUDA device index.

    Raises:
        AtomError: no such GPU.
    """

    def __init__(self, index: int) -> None:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not 0 <= index < count:
            remedy = (
                f"choose device.index below {count}"
                if count
                else ("install a CUDA build and its driver, or take device=cpu")
            )
            raise AtomError(
                f"device=cuda device.index={index}: PyTorch {torch.__version__} sees {count} GPUs "
                f"here; {remedy}"
            )
        self.torch = torch.device("cuda", index)
        self._streams: dict[str, torch.cuda.Stream] = {}

    @cached_property
    def name(self) -> str:
        return gpu_name(self.torch)

    @contextmanager
    def stream(self) -> Iterator[None]:
        thread = threading.current_thread().name
        if thread not in self._streams:
            self._streams[thread] = torch.cuda.Stream(self.torch)
        with torch.cuda.stream(self._streams[thread]):
            yield

    def synchronize(self) -> None:
        torch.cuda.current_stream(self.torch).synchronize()

    def empty_cache(self) -> None:
        gc.collect()  # tensors in reference cycles are not free yet
        torch.cuda.empty_cache()

    def reset_peak_memory(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.torch)

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.torch)


def build(*, index: int) -> Cuda:
    """Build the device of `conf/device/cuda.yaml`."""
    return Cuda(index)
