"""int8 products in fp32: TorchAO's numbers, to the last digit."""

import pytest
import torch
from torch import nn

from atom_repro.engines import cpu_kernels
from atom_repro.engines.cpu_kernels import int8_product, use_fp32_int8_linear
from atom_repro.quant import int8


@pytest.mark.parametrize("shape", [(1, 8, 5), (4, 1024, 513), (17, 1025, 70), (3, 4096, 1030)])
def test_products_are_exact_at_the_ends_of_the_range(shape):
    M, K, N = shape
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-128, 128, (M, K), dtype=torch.int8, generator=generator)
    b = torch.randint(-128, 128, (N, K), dtype=torch.int8, generator=generator)
    a[0], b[0] = -128, -128  # the largest sum there is
    assert torch.equal(int8_product(a, b).long(), a.long() @ b.long().t())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "width"), [((1,), 64), ((2, 4), 96), ((40,), 1500)])
def test_a_layer_says_what_torchao_says(monkeypatch, rows, width, bias):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(width, 72, bias=bias))
    int8.build(linear="dynamic", embedding="none").quantise(network)
    x = 3 * torch.randn(*rows, width)
    x[..., 0] = 50.0  # an outlier, which sets the scale
    with torch.inference_mode():
        before = network(x)
        assert use_fp32_int8_linear(network) == 1
        after = network(x)
    assert after.shape == before.shape
    assert torch.equal(after, before)


def test_what_is_not_dynamic_int8_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    weight_only = nn.Sequential(nn.Linear(64, 64))
    int8.build(linear="weight_only", embedding="none").quantise(weight_only)
    assert use_fp32_int8_linear(weight_only) == 0
    assert use_fp32_int8_linear(nn.Sequential(nn.Linear(64, 64))) == 0


def test_a_processor_with_int8_instructions_uses_them(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    network = nn.Sequential(nn.Linear(64, 64))
    int8.build(linear="dynamic", embedding="none").quantise(network)
    assert cpu_kernels.use_fp32_int8_linear(network) == 0
