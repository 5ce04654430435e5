"""Muon: momentum steps made orthogonal, for the matrices of hidden layers; AdamW for the rest.

A network that starts from random weights learns several times as much per step as with AdamW. A
step's matrix is replaced by the nearest one whose singular values are all about 1, so that rare
directions move as far as common ones, and scaled to the size of an AdamW step, so that both share
a learning rate.
Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the scale
is that of Liu et al., "Muon is Scalable for LLM Training" (2025).

`torch.optim.Muon` refuses convolutions and computes in bf16, which processors without bf16
instructions emulate.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_MOMENTUM = 0.95
_ADAMW_RMS = 0.2  # root mean square of AdamW's steps, in learning rates
# Quintic iterations that bring singular values from 0.001 to 1 near to 1. Small ones count: with
# three iterations, which leave them behind, a step teaches much less.
# Source: Amsel et al., "The Polar Express" (2025), table 1.
_POLYNOMIALS = (
    (8.287212018145622, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
_MARGIN = 1.01  # keeps rounding from pushing a singular value past the polynomials' interval


class Muon(torch.optim.AdamW):
    """AdamW, with orthogonal momentum steps for groups that are marked `orthogonal`.

    With several processes each computes the steps of a share of the matrices, and all receive them.

    Args:
        groups: parameter groups with `lr`, `weight_decay` and `orthogonal`; matrices or
            convolution kernels in those that are.
        betas: of AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, betas: tuple[float, float]) -> None:
        super().__init__(list(groups), betas=betas)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        groups = self.param_groups
        self.param_groups = [g for g in groups if not g["orthogonal"]]
        try:
            super().step(closure)
        finally:
            self.param_groups = groups
        moving = [
            (g, p) for g in groups if g["orthogonal"] for p in g["params"] if p.grad is not None
        ]
        steps = _in_shares([self._momentum(p) for _, p in moving])
        for (group, parameter), step in zip(moving, steps, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(step.view_as(parameter), alpha=-group["lr"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        # AdamW's looks for its own counters in every parameter's state.
        torch.optim.Optimizer.__setstate__(self, state)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov momentum of a parameter's gradient, as a matrix (outputs, inputs)."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
        return parameter.grad.lerp(state["momentum"], _MOMENTUM).flatten(1)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, approximately, scaled to AdamW's size.

    Args:
        matrix: (rows, columns), of any scale.
    """
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() * _MARGIN + 1e-7)
    for a, b, c in _POLYNOMIALS:
        gram = x @ x.T
        x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    x = x if matrix.shape[0] <= matrix.shape[1] else x.T
    return x * (_ADAMW_RMS * max(matrix.shape) ** 0.5)


def _in_shares(matrices: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonal` of each of several matrices, which all processes have; each computes some."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [orthogonal(m) for m in matrices]
    rank, count = dist.get_rank(), dist.get_world_size()
    # The largest first, each to the process with the least work so far.
    work, owners = [0] * count, [0] * len(matrices)
    for index in sorted(range(len(matrices)), key=lambda i: -_products(matrices[i])):
        owners[index] = work.index(min(work))
        work[owners[index]] += _products(matrices[index])
    steps = [orthogonal(m) if o == rank else m for m, o in zip(matrices, owners, strict=True)]
    for owner in range(count):
        theirs = [i for i, o in enumerate(owners) if o == owner]
        sizes = [matrices[i].numel() for i in theirs]
        if not theirs:
            continue
        packed = (
            torch.cat([steps[i].flatten() for i in theirs])
            if owner == rank
            else matrices[0].new_empty(sum(sizes))
        )
        dist.broadcast(packed, owner)
        for i, step in zip(theirs, packed.split(sizes), strict=True):
            steps[i] = step.view_as(matrices[i])
    return steps


def _products(matrix: Tensor) -> int:
    """Multiplications of an iteration, up to a factor."""
    small, large = sorted(matrix.shape)
    return small * small * (2 * large + small)


def hidden_matrices(network: nn.Module, vocabulary: int) -> set[int]:
    """Ids of the parameters that Muon's step is for: weights of linear layers and convolutions.

    Left to AdamW are embeddings, what maps to the vocabulary, and depthwise kernels, whose rows
    see a channel each.
    """
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    weights = {
        id(m.weight)
        for m in network.modules()
        if (isinstance(m, nn.Linear) and m.out_features != vocabulary)
        or (isinstance(m, nn.Conv2d | nn.Conv3d) and m.groups == 1)
    }
    return weights - embeddings
