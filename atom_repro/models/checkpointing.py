"""Blocks that are computed again in the backward pass, so that a step keeps their inputs only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(network: nn.Module) -> int:
    """Checkpoint each block of every list of blocks in `network`, in place; their number.

    Lists of blocks are what families stack their layers in. Names do not change, and without
    gradients a block runs as it did.
    """
    blocks = [b for m in network.modules() if isinstance(m, nn.ModuleList) for b in m]
    for block in blocks:
        block.forward = _recomputed(block.forward)
    return len(blocks)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
