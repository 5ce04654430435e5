"""Matrix products that PyTorch's own CPU kernels are slow at, with the same results.

Few rows in fp32: a decoder's step multiplies as many rows as there are beams with every weight of
the decoder, and should take as long as reading those weights once. The BLAS behind `x @ W.T`
repacks W for that product, which costs more than reading it; `W @ x.T`, the same numbers, takes it
as it lies.

int8 on a processor without int8 instructions: products of two int8 numbers are integers, and fp32
adds a thousand of them without rounding. So what TorchAO's int8 linear computes with emulated
integers can be had from the fp32 product, to the last digit and several times as fast: the same
activations' int8, the same sums, the same scales in the same order. Weights stay int8 in memory,
and become fp32 a block at a time.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW_ROWS = 16
_LEAST_WEIGHTS = 2**20  # smaller ones lie in the cache, where the usual product is as fast
_EXACT = 1024  # 1024 * 128 * 128 = 2 ** 24: as far as fp32 counts one by one
_BLOCK = 512  # rows of weights that are fp32 at a time; with 1024 columns they stay in the cache


def speed_up_few_rows(network: nn.Module) -> int:
    """Let the large linear layers of a loaded network multiply few rows the other way round; how
    many there are. Quantised ones and those of other types stay as they are."""
    found = 0
    for module in network.modules():
        if type(module) is nn.Linear and type(module.weight) is nn.Parameter:
            weight = module.weight
            if weight.dtype == torch.float32 and weight.numel() >= _LEAST_WEIGHTS:
                # Of the weights and not of the module, which would then hold itself.
                module.forward = partial(_few_rows_linear, weight, module.bias)  # type: ignore[method-assign]
                found += 1
    return found


def _few_rows_linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if not 1 < rows <= _FEW_ROWS or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    made = torch.mm(weight, x.reshape(rows, -1).t()).t().contiguous()
    if bias is not None:
        made += bias
    return made.view(*x.shape[:-1], -1)


def speed_up_int8(network: nn.Module) -> int:
    """Let the dynamic int8 layers of a loaded network multiply in fp32 where the processor has no
    int8 instructions; how many they are."""
    if torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported():
        return 0
    found = 0
    for module in network.modules():
        if type(module) is nn.Linear and _is_dynamic(module.weight):
            # Of the weights and not of the module, which would then hold itself.
            module.forward = partial(_int8_linear, module.weight, module.bias)  # type: ignore[method-assign]
            found += 1
    return found


def _is_dynamic(weight: Any) -> bool:
    """Whether activations are quantised at run time, around zero, and nothing else is done."""
    kwargs: Any = getattr(weight, "act_quant_kwargs", None)
    plain = (weight.act_quant_scale, weight.act_pre_scale) == (None, None) if kwargs else False
    return plain and kwargs.mapping_type.name == "SYMMETRIC"


def _int8_linear(weight: Any, bias: Tensor | None, x: Tensor) -> Tensor:
    how = weight.act_quant_kwargs
    quantised = type(weight).from_hp(
        x, how.granularity, mapping_type=how.mapping_type, reduce_range=how.reduce_range
    )
    rows = quantised.qdata.reshape(-1, x.shape[-1])
    y = product(rows, weight.qdata) * quantised.scale.reshape(-1, 1)
    y = (y.to(x.dtype) * weight.scale.flatten()).reshape(*x.shape[:-1], -1)
    if bias is not None:
        y += bias
    return y.to(x.dtype)


def product(a_MK: Tensor, b_NK: Tensor) -> Tensor:
    """`a @ b.T` of int8 matrices, as integers: (M, N) int32, or fp32 where that is exact."""
    M, K = a_MK.shape
    parts = [slice(k, k + _EXACT) for k in range(0, K, _EXACT)]
    left = [a_MK[:, part].float() for part in parts]
    sums = torch.empty(M, len(b_NK), dtype=torch.float32 if len(parts) == 1 else torch.int32)
    for n in range(0, len(b_NK), _BLOCK):
        block, into = b_NK[n : n + _BLOCK], sums[:, n : n + _BLOCK]
        for number, part in enumerate(parts):
            some = _fp32(left[number], block[:, part].float())
            if number == 0:
                into.copy_(some)
            else:
                into += some.to(torch.int32)
    return sums


def _fp32(a_MK: Tensor, b_NK: Tensor) -> Tensor:
    if 1 < len(a_MK) <= _FEW_ROWS:
        return torch.mm(b_NK, a_MK.t()).t()
    return torch.mm(a_MK, b_NK.t())
