"""LoRA of a module's linear layers: W x + (alpha / rank) B A x with W frozen.

Implemented here because names must stay: an adapted layer is still a Linear with its `weight`, so
checkpoints, quantisers and engines see the original module once the adaptation is merged.
Source: LoRA (arXiv 2106.09685).
"""

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Prefix of the names of LoRA parameters.

Module = TypeVar("Module", bound=nn.Module)


class AdaptedLinear(nn.Linear):
    """A Linear with a trainable low-rank correction, which is zero at the start."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.normal_(self.lora_down, std=base.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.linear(F.linear(x, self.lora_down), self.lora_up) * self.scale

    def merged(self) -> nn.Linear:
        """The equivalent plain Linear, with the correction added to its weight."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        delta = self.scale * (self.lora_up @ self.lora_down)
        linear.weight = nn.Parameter((self.weight + delta).detach())
        linear.bias = self.bias
        return linear


def adapt(module: nn.Module, names: Iterable[str], *, rank: int, alpha: float) -> int:
    """Replace the Linear layers at `names` by adapted ones in place; return their number.

    A subclass of Linear is left alone: nn.MultiheadAttention reads its projection's weight and
    never calls it.
    """
    adapted = 0
    for name in names:
        linear = module.get_submodule(name)
        if type(linear) is nn.Linear:
            module.set_submodule(name, AdaptedLinear(linear, rank=rank, alpha=alpha))
            adapted += 1
    return adapted


def merged(module: Module) -> Module:
    """Merge LoRA corrections into the weights of a copy; a module without any is returned."""
    names = [n for n, m in module.named_modules() if isinstance(m, AdaptedLinear)]
    if not names:
        return module
    copied = copy.deepcopy(module)
    for name in names:
        adapted = copied.get_submodule(name)
        assert isinstance(adapted, AdaptedLinear)
        copied.set_submodule(name, adapted.merged())
    return copied
