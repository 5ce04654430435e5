"""How fast a device can be: the rates that a measured time is held against.

Measured in the run that reports them, with the threads that it uses, because neither a shared
machine nor a warm one keeps what its data sheet says. The best of several kernels and sizes counts,
so a rate is what this software reaches on the device, not what the device could do.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from atom_repro.device.compute import ComputeDevice
from atom_repro.records.record import out_of_memory

_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_HOST_BYTES, _ACCELERATOR_BYTES = 2**28, 2**31  # far beyond their caches


def limits(device: ComputeDevice, budget_s: float) -> dict[str, float]:
    """Rates by name: `read_bytes_per_s`, and `<precision>_operations_per_s` of matrix products in
    fp32, bf16 and int8, where a multiplication and its addition are two operations. A precision
    that the device has no kernel for is left out.

    Args:
        budget_s: time for each kernel and size, of which there are some forty; a size that takes
            longer once is the last of its kernel.
    """
    found = {"read_bytes_per_s": _best(_reads(device), device, budget_s)}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)):
        try:
            found[f"{name}_operations_per_s"] = _best(_products(device, dtype), device, budget_s)
        except RuntimeError as error:  # torch has no other word for "no such kernel here"
            if out_of_memory(error):
                raise
    return found


def _best(
    trials: Iterator[tuple[float, Callable[[], Any]]], device: ComputeDevice, budget_s: float
) -> float:
    """The highest rate of several trials, each some work and what does it."""
    best = 0.0
    for work, call in trials:
        fastest, spent = float("inf"), 0.0
        call()  # what a first call prepares
        device.wait()
        for _ in range(20):
            began = time.perf_counter()
            call()
            device.wait()
            took = time.perf_counter() - began
            fastest, spent = min(fastest, took), spent + took
            if spent > budget_s:
                break
        best = max(best, work / fastest)
        if fastest > budget_s:  # a larger product would take eight times as long
            break
    return best


def _reads(device: ComputeDevice) -> Iterator[tuple[float, Callable[[], Any]]]:
    size = _HOST_BYTES if device.torch.type == "cpu" else _ACCELERATOR_BYTES
    held = torch.ones(size // 4, device=device.torch)
    rows = held.view(-1, 4096)
    vector = torch.ones(4096, device=device.torch)
    yield size, held.sum
    yield size, lambda: rows @ vector


def _products(
    device: ComputeDevice, dtype: torch.dtype
) -> Iterator[tuple[float, Callable[[], Any]]]:
    for n in _SIZES:
        ones = torch.ones(n, n, dtype=dtype, device=device.torch)
        multiply: Callable[..., Any] = torch._int_mm if dtype == torch.int8 else torch.mm
        for other in (ones, ones.t()):
            yield 2.0 * n**3, partial(multiply, ones, other)
