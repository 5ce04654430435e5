"""Scaled dot-product attention, in the form that each way of running a module is fast in."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, dropout_p: float = 0.0
) -> Tensor:
    """Attention of queries (N, H, S, C) to keys and values (N, H, L, C): (N, H, S, C).

    PyTorch's fused kernel; for an export, three-dimensional products and a softmax, which mobile
    backends run as they are, where the fused kernel's decomposition would stay outside them.
    """
    if not torch.compiler.is_exporting() or is_causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p)
    N, H, S, C = q.shape
    scores = torch.bmm((q * C**-0.5).reshape(N * H, S, C), k.reshape(N * H, -1, C).transpose(1, 2))
    return torch.bmm(scores.softmax(dim=-1), v.reshape(N * H, -1, C)).view(N, H, S, C)
