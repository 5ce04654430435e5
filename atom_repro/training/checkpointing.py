"""Gradient checkpointing of the blocks of a network: they are recomputed in the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(network: nn.Module) -> list[nn.Module]:
    """The members of every `nn.ModuleList`, outer ones first: the layers of each family."""
    return [b for m in network.modules() if isinstance(m, nn.ModuleList) for b in m]


def checkpoint_blocks(network: nn.Module) -> int:
    """Apply gradient checkpointing to each block of `network` in place; return their number.

    Names do not change, and without gradients a block runs as it did.
    """
    all_blocks = blocks(network)
    for block in all_blocks:
        block.forward = _recomputed(block.forward)
    return len(all_blocks)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
