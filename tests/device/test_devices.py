"""Devices: the host's processor, and a GPU that is not there."""

import time

import pytest
import torch

from atom_repro import config
from atom_repro.config.composition import compose
from atom_repro.datatypes import AtomError
from atom_repro.device import limits as rates
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine

KERNELS = dict(EagerEngine().matmul_kernels())


def test_the_host_computes_in_place():
    device = config.build(compose("latency", []).device)
    assert (device.name, device.torch) == ("cpu", torch.device("cpu"))
    with device.stream():
        made = torch.ones(2, device=device.torch)
        device.synchronize()
    device.reset_peak_memory()
    assert device.peak_bytes() is None  # the process is sampled instead
    assert made.tolist() == [1, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_by_name():
    with pytest.raises(
        AtomError, match=r"device.index=0: PyTorch .* sees 0 GPUs here; .*device=cpu"
    ):
        config.build(compose("latency", ["device=cuda"]).device)


def test_limits_are_the_best_of_several_trials(monkeypatch):
    monkeypatch.setattr(rates, "_SIZES", (32, 64))
    monkeypatch.setattr(rates, "_HOST_BYTES", 2**20)
    found = rates.measure_rates(Cpu(), 0.01, KERNELS).values
    assert found.keys() >= {"read_bytes_per_s", "fp32_operations_per_s"}
    # Any machine reads more than a kB and less than a PB in a second.
    assert all(1e3 < rate < 1e15 for rate in found.values())


def test_a_precision_without_a_kernel_is_left_out(monkeypatch):
    def none(*_):
        raise RuntimeError("not implemented for Char")

    monkeypatch.setattr(rates, "_SIZES", (32,))
    monkeypatch.setattr(rates, "_HOST_BYTES", 2**20)
    monkeypatch.setitem(KERNELS, "int8", {"torch._int_mm": none})
    assert "int8_operations_per_s" not in rates.measure_rates(Cpu(), 0.01, KERNELS).values

    def full(*_):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setitem(KERNELS, "int8", {"torch._int_mm": full})
    with pytest.raises(RuntimeError, match="out of memory"):
        rates.measure_rates(Cpu(), 0.01, KERNELS)


def test_the_limit_of_a_precision_is_that_of_its_fastest_kernel(monkeypatch):
    def slow(a, b):
        time.sleep(0.02)
        return a @ b

    monkeypatch.setattr(rates, "_SIZES", (32,))
    monkeypatch.setattr(rates, "_HOST_BYTES", 2**20)
    kernels = {"fp32": {"slow": slow, "torch.mm": torch.mm}}
    measured = rates.measure_rates(Cpu(), 0.01, kernels)
    assert measured.kernels == {"fp32": "torch.mm"}
    alone = rates.measure_rates(Cpu(), 0.01, {"fp32": {"slow": slow}})
    assert measured.values["fp32_operations_per_s"] > 2 * alone.values["fp32_operations_per_s"]
