"""The optimiser and schedule of fine-tuning: AdamW, linear warm-up, cosine to zero."""

import math
from collections.abc import Iterable

import torch
from torch import nn


def adamw(module: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, and not norms, biases or the class token."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in module.parameters():
        (decayed if parameter.dim() > 1 else kept).append(parameter)
    groups: Iterable[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def warmup_cosine(
    optimiser: torch.optim.Optimizer, *, warmup_steps: int, max_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The factor rises to 1 over `warmup_steps` and falls to 0 at `max_steps`."""
    warmup = max(1, min(warmup_steps, max_steps // 2))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, max_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
