"""Faster CPU forward functions for linear layers: small fp32 batches, and dynamic int8.

Small fp32 batches: a decoder's step multiplies as many rows as there are beams with every weight of
the decoder, and should take as long as reading those weights once. The BLAS behind `x @ W.T`
repacks W for that product, which costs more than reading it; `W @ x.T`, the same numbers, reads it
in its own layout.

int8 on a processor without int8 instructions: products of two int8 numbers are integers, and fp32
adds a thousand of them without rounding. So the fp32 product gives what TorchAO's int8 linear
computes with emulated integers, bit for bit and several times as fast: the same int8 activations,
the same sums, the same scales in the same order. Weights stay int8 in memory, and are converted to
fp32 a block at a time.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MAX_ROWS = 16
_MIN_WEIGHTS = 2**20  # smaller ones stay in the cache, where the usual product is as fast
_EXACT_COLUMNS = 1024  # 1024 * 128 * 128 = 2 ** 24: fp32 represents all integers up to it
_BLOCK_ROWS = 512  # rows of weights converted at a time; with 1024 columns they stay in the cache


def use_small_batch_linear(network: nn.Module) -> int:
    """Compute large fp32 linear layers as `W @ x.T` where x has few rows; return their number.
    Quantised layers and those of other types stay as they are."""
    replaced = 0
    for module in network.modules():
        if type(module) is nn.Linear and type(module.weight) is nn.Parameter:
            weight = module.weight
            if weight.dtype == torch.float32 and weight.numel() >= _MIN_WEIGHTS:
                # Bind the weight, not the module: that would be a reference cycle.
                module.forward = partial(_small_batch_linear, weight, module.bias)  # type: ignore[method-assign]
                replaced += 1
    return replaced


def _small_batch_linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if not 1 < rows <= _MAX_ROWS or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    y = torch.mm(weight, x.reshape(rows, -1).t()).t().contiguous()
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], -1)


def use_fp32_int8_linear(network: nn.Module) -> int:
    """Compute dynamic int8 linear layers in fp32 on a processor without int8 instructions; return
    their number."""
    if torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported():
        return 0
    replaced = 0
    for module in network.modules():
        if type(module) is nn.Linear and _is_dynamic_int8(module.weight):
            # Bind the weight, not the module: that would be a reference cycle.
            module.forward = partial(_int8_linear, module.weight, module.bias)  # type: ignore[method-assign]
            replaced += 1
    return replaced


def _is_dynamic_int8(weight: Any) -> bool:
    """Whether activations are quantised dynamically and symmetrically, without other scaling."""
    kwargs: Any = getattr(weight, "act_quant_kwargs", None)
    unscaled = (weight.act_quant_scale, weight.act_pre_scale) == (None, None) if kwargs else False
    return unscaled and kwargs.mapping_type.name == "SYMMETRIC"


def _int8_linear(weight: Any, bias: Tensor | None, x: Tensor) -> Tensor:
    config = weight.act_quant_kwargs
    quantised = type(weight).from_hp(
        x,
        config.granularity,
        mapping_type=config.mapping_type,
        reduce_range=config.reduce_range,
    )
    rows = quantised.qdata.reshape(-1, x.shape[-1])
    y = int8_product(rows, weight.qdata) * quantised.scale.reshape(-1, 1)
    y = (y.to(x.dtype) * weight.scale.flatten()).reshape(*x.shape[:-1], -1)
    if bias is not None:
        y += bias
    return y.to(x.dtype)


def int8_product(a_MK: Tensor, b_NK: Tensor) -> Tensor:
    """Exact `a @ b.T` of int8 matrices: (M, N) int32, or fp32 where that is exact."""
    M, K = a_MK.shape
    parts = [slice(k, k + _EXACT_COLUMNS) for k in range(0, K, _EXACT_COLUMNS)]
    a_parts = [a_MK[:, part].float() for part in parts]
    sums = torch.empty(M, len(b_NK), dtype=torch.float32 if len(parts) == 1 else torch.int32)
    for n in range(0, len(b_NK), _BLOCK_ROWS):
        block, out = b_NK[n : n + _BLOCK_ROWS], sums[:, n : n + _BLOCK_ROWS]
        for number, part in enumerate(parts):
            partial_sum = _fp32_product(a_parts[number], block[:, part].float())
            if number == 0:
                out.copy_(partial_sum)
            else:
                out += partial_sum.to(torch.int32)
    return sums


def _fp32_product(a_MK: Tensor, b_NK: Tensor) -> Tensor:
    if 1 < len(a_MK) <= _MAX_ROWS:
        return torch.mm(b_NK, a_MK.t()).t()
    return torch.mm(a_MK, b_NK.t())
