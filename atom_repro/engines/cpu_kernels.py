"""Matrix products of few rows at the speed of memory: a decoder's step, on a CPU.

A step multiplies as many rows as there are beams with every weight of the decoder, and should take
as long as reading those weights once. The BLAS behind `x @ W.T` repacks W for that product, which
costs more than reading it; `W @ x.T`, the same numbers, takes it as it lies.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOST_ROWS = 16
_LEAST_WEIGHTS = 2**20  # smaller ones lie in the cache, where the usual product is as fast


def speed_up_few_rows(network: nn.Module) -> int:
    """Let the large linear layers of a loaded network multiply few rows the other way round; how
    many there are. Quantised ones and those of other types stay as they are."""
    found = 0
    for module in network.modules():
        if type(module) is nn.Linear and type(module.weight) is nn.Parameter:
            weight = module.weight
            if weight.dtype == torch.float32 and weight.numel() >= _LEAST_WEIGHTS:
                # Of the weights and not of the module, which would then hold itself.
                module.forward = partial(_linear, weight, module.bias)  # type: ignore[method-assign]
                found += 1
    return found


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if not 1 < rows <= _MOST_ROWS or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    made = torch.mm(weight, x.reshape(rows, -1).t()).t().contiguous()
    if bias is not None:
        made += bias
    return made.view(*x.shape[:-1], -1)
