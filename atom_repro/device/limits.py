"""Measured peak rates of a device: memory bandwidth and matrix-product throughput.

Measured in the run that reports them, with its number of threads, because a shared or warm machine
does not reach its data sheet. A rate is the best of several kernels and sizes: what this software
reaches on the device, not what the device could do.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from atom_repro.device.compute import ComputeDevice
from atom_repro.records.record import out_of_memory

_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_HOST_BYTES, _ACCELERATOR_BYTES = 2**28, 2**31  # far beyond their caches
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}

# Products of two square matrices, by precision and name.
Kernels = Mapping[str, Mapping[str, Callable[[Tensor, Tensor], Any]]]


@dataclass(frozen=True)
class Rates:
    """Measured rates of a device.

    Attributes:
        values: `read_bytes_per_s`, and `<precision>_operations_per_s` of matrix products, where a
            multiply-add counts as two operations.
        kernels: the name of the fastest kernel of each precision.
    """

    values: dict[str, float]
    kernels: dict[str, str]


def measure_rates(device: ComputeDevice, budget_s: float, kernels: Kernels) -> Rates:
    """Measure the rates of a device: memory bandwidth, and matrix products of each precision by the
    fastest of its kernels. A precision without a kernel for the device is left out.

    Args:
        budget_s: time for each kernel and size, about forty in all; a size whose fastest call
            takes longer is the last of its kernel.
        kernels: of an engine, by precision and name; see `Engine.matmul_kernels`.
    """
    values = {"read_bytes_per_s": _best_rate(_read_trials(device), device, budget_s)}
    fastest: dict[str, str] = {}
    for precision, by_name in kernels.items():
        rates: dict[str, float] = {}
        for name, kernel in by_name.items():
            try:
                trials = _matmul_trials(device, _DTYPES[precision], kernel)
                rates[name] = _best_rate(trials, device, budget_s)
            except RuntimeError as error:  # torch reports a missing kernel as RuntimeError
                if out_of_memory(error):
                    raise
        if rates:
            fastest[precision] = max(rates, key=lambda name: rates[name])
            values[f"{precision}_operations_per_s"] = rates[fastest[precision]]
    return Rates(values, fastest)


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


def read_memory(device: ComputeDevice) -> tuple[int, Callable[[], Any]]:
    """Bytes far beyond the device's caches, written before, and a call that reads them once: the
    product of a matrix and a vector, which is what a decoding step reads its weights for."""
    size = _HOST_BYTES if device.torch.type == "cpu" else _ACCELERATOR_BYTES
    rows = torch.ones(size // 4, device=device.torch).view(-1, 4096)
    vector = torch.ones(4096, device=device.torch)
    return size, lambda: rows @ vector


def _read_trials(device: ComputeDevice) -> Iterator[tuple[float, Callable[[], Any]]]:
    size, product = read_memory(device)
    yield size, product
    buffer = torch.ones(size // 4, device=device.torch)
    yield size, buffer.sum


def _matmul_trials(
    device: ComputeDevice, dtype: torch.dtype, kernel: Callable[[Tensor, Tensor], Any]
) -> Iterator[tuple[float, Callable[[], Any]]]:
    for n in _SIZES:
        ones = torch.ones(n, n, dtype=dtype, device=device.torch)
        for other in (ones, ones.t()):
            yield 2.0 * n**3, partial(kernel, ones, other)
