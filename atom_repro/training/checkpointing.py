"""Blocks that are computed again in the backward pass, so that a step keeps their inputs only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of every list of blocks, outer ones first: what families stack layers in."""
    return [b for m in network.modules() if isinstance(m, nn.ModuleList) for b in m]


def checkpoint_blocks(network: nn.Module) -> int:
    """Checkpoint each block in `network`, in place; their number.

    Names do not change, and without gradients a block runs as it did.
    """
    found = blocks(network)
    for block in found:
        block.forward = _recomputed(block.forward)
    return len(found)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
