"""Measured peak rates of a device: memory bandwidth and matrix-product throughput.

Measured in the run that reports them, with its number of threads, because a shared or warm machine
does not reach its data sheet. A rate is the best of several kernels and sizes: what this software
reaches on the device, not what the device could do.
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


def measure_rates(device: ComputeDevice, budget_s: float) -> dict[str, float]:
    """Measured rates by name: `read_bytes_per_s`, and `<precision>_operations_per_s` of matrix
    products in fp32, bf16 and int8, where a multiply-add counts as two operations. A precision
    that the device has no kernel for is left out.

    Args:
        budget_s: time for each kernel and size, about forty in all; a size whose fastest call
            takes longer is the last of its kernel.
    """
    rates = {"read_bytes_per_s": _best_rate(_read_trials(device), device, budget_s)}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)):
        try:
            rates[f"{name}_operations_per_s"] = _best_rate(
                _matmul_trials(device, dtype), device, budget_s
            )
        except RuntimeError as error:  # torch reports a missing kernel as RuntimeError
            if out_of_memory(error):
                raise
    return rates


def _best_rate(
    trials: Iterator[tuple[float, Callable[[], Any]]], device: ComputeDevice, budget_s: float
) -> float:
    """The highest rate of several trials, each its work (bytes or operations) and a call."""
    best = 0.0
    for work, call in trials:
        fastest, spent = float("inf"), 0.0
        call()  # warm-up
        device.synchronize()
        for _ in range(20):
            start = time.perf_counter()
            call()
            device.synchronize()
            elapsed = time.perf_counter() - start
            fastest, spent = min(fastest, elapsed), spent + elapsed
            if spent > budget_s:
                break
        best = max(best, work / fastest)
        if fastest > budget_s:  # a larger product would take eight times as long
            break
    return best


def _read_trials(device: ComputeDevice) -> Iterator[tuple[float, Callable[[], Any]]]:
    size = _HOST_BYTES if device.torch.type == "cpu" else _ACCELERATOR_BYTES
    buffer = torch.ones(size // 4, device=device.torch)
    rows = buffer.view(-1, 4096)
    vector = torch.ones(4096, device=device.torch)
    yield size, buffer.sum
    yield size, lambda: rows @ vector


def _matmul_trials(
    device: ComputeDevice, dtype: torch.dtype
) -> Iterator[tuple[float, Callable[[], Any]]]:
    for n in _SIZES:
        ones = torch.ones(n, n, dtype=dtype, device=device.torch)
        multiply: Callable[..., Any] = torch._int_mm if dtype == torch.int8 else torch.mm
        for other in (ones, ones.t()):
            yield 2.0 * n**3, partial(multiply, ones, other)
