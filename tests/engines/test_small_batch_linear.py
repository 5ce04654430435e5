"""Few rows multiplied the other way round: the same numbers, in large fp32 layers only."""

import gc
import weakref

import pytest
import torch
from torch import nn

from atom_repro.engines import cpu_kernels
from atom_repro.engines.cpu_kernels import use_small_batch_linear
from atom_repro.quant import int8


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [(1,), (1, 4), (2, 8), (17,), (3, 97)])
def test_the_numbers_are_those_of_the_layer(monkeypatch, rows, bias):
    monkeypatch.setattr(cpu_kernels, "_MIN_WEIGHTS", 1000)
    torch.manual_seed(0)
    layer = nn.Linear(40, 50, bias=bias)
    x = torch.randn(*rows, 40)
    before = layer(x)
    assert use_small_batch_linear(layer) == 1
    after = layer(x)
    assert after.shape == before.shape
    assert after.is_contiguous()
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)


def test_it_is_the_other_product_that_runs(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_MIN_WEIGHTS", 1000)
    layer, called = nn.Linear(40, 50), []
    use_small_batch_linear(layer)
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: called.append(b.shape[1]) or product(a, b))
    for rows in (1, 2, 16, 17):
        layer(torch.randn(rows, 40))
    assert called == [2, 16]


def test_small_and_quantised_layers_stay_as_they_are():
    small = nn.Linear(100, 100)
    large = nn.Sequential(nn.Linear(1024, 1024))
    assert use_small_batch_linear(small) == 0
    int8.build(linear="dynamic", embedding="none").quantise(large)
    assert use_small_batch_linear(large) == 0


def test_a_layer_does_not_hold_itself():
    layer = nn.Linear(1024, 1024)
    assert use_small_batch_linear(layer) == 1
    gone = weakref.ref(layer)
    gc.disable()
    try:
        del layer
        assert gone() is None
    finally:
        gc.enable()
