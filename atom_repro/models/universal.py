"""BERT layers with cross-attention, and mPLUG2's universal layers made of them.

Source of the structure: mPLUG-2 (X-PLUG/mPLUG-2): layers 22 and 23 of its text encoder run on
video tokens. In the first, a few learned latents attend to the video; in the second, every video
token attends to these latents. Names inside a layer are BERT's, so that released weights fit; the
caption decoder (`bert_decoder`) uses the same layer.

Shapes: N rows of S positions, B clips of M positions of the cross-attended sequence (N is a
multiple of B, rows of a clip adjacent), D width, H heads, C channels per head, L latents.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.models.attention import attention

# BERT's LayerNorm epsilon.
NORM_EPS = 1e-12

# Keys and values of one attention, each (rows, H, positions, C).
KeysValues = tuple[Tensor, Tensor]


class Projections(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)


class Residual(nn.Module):
    """Post-norm residual: LayerNorm(x + dropout(Linear(branch)))."""

    def __init__(self, inner: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=NORM_EPS)
        self.drop = nn.Dropout(dropout)

    def forward(self, branch: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(x + self.drop(self.dense(branch)))


class Intermediate(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class PostNormAttention(nn.Module):
    """Self- or cross-attention of x to given keys and values, with a post-norm residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.self = Projections(width)
        self.output = Residual(width, width, dropout)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def keys_values(self, x: Tensor) -> KeysValues:
        return self._split(self.self.key(x)), self._split(self.self.value(x))

    def forward(self, x: Tensor, source: KeysValues, *, causal: bool = False) -> Tensor:
        q, (k, v) = self._split(self.self.query(x)), source
        mixed = attention(
            q, k, v, is_causal=causal, dropout_p=self.dropout if self.training else 0.0
        )
        return self.output(mixed.transpose(1, 2).reshape(x.shape), x)


class CrossLayer(nn.Module):
    """Post-norm BERT layer: self-attention, cross-attention, feed-forward."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.attention = PostNormAttention(width, heads, dropout)
        self.crossattention = PostNormAttention(width, heads, dropout)
        self.intermediate = Intermediate(width, mlp_width)
        self.output = Residual(mlp_width, width, dropout)

    def forward(
        self, x_NSD: Tensor, other: Tensor | KeysValues, *, causal: bool = False
    ) -> tuple[Tensor, KeysValues]:
        """The layer's output (N, S, D), and the keys and values of its self-attention.

        Args:
            other: the sequence to cross-attend to, or its keys and values if already computed.
        """
        if isinstance(other, Tensor):
            other = self.crossattention.keys_values(other)
        self_kv = self.attention.keys_values(x_NSD)
        attended = self.attention(x_NSD, self_kv, causal=causal)
        return self.cross_attend(attended, other), self_kv

    def cross_attend(self, x_NSD: Tensor, other: KeysValues) -> Tensor:
        """Cross-attention and feed-forward; all rows of a clip share one copy of `other`."""
        by_clip = x_NSD.reshape(other[0].shape[0], -1, x_NSD.shape[-1])
        x = self.crossattention(by_clip, other).view(x_NSD.shape)
        return self.output(self.intermediate(x), x)


class UniversalLayers(nn.Module):
    """Video tokens (B, M, D) to latents (B, L, D) that attend to them; with `broadcast`, to
    video tokens (B, M, D) that attend to these latents."""

    def __init__(
        self,
        *,
        latents: int,
        width: int,
        heads: int,
        mlp_width: int,
        dropout: float,
        broadcast: bool,
    ) -> None:
        super().__init__()
        self.broadcast = broadcast
        self.latents = nn.Parameter(torch.empty(latents, width))
        nn.init.normal_(self.latents, std=width**-0.5)
        self.pool = CrossLayer(width, heads, mlp_width, dropout)
        if broadcast:
            self.bcast = CrossLayer(width, heads, mlp_width, dropout)
            self.out = nn.LayerNorm(width, eps=NORM_EPS)
            self.drop = nn.Dropout(dropout)
        initialise(self, layers=2)

    def forward(self, video_BMD: Tensor) -> Tensor:
        latents = self.latents.expand(video_BMD.shape[0], -1, -1)
        pooled, _ = self.pool(latents, video_BMD)
        if not self.broadcast:
            return pooled
        update, _ = self.bcast(video_BMD, pooled)
        return self.drop(self.out(video_BMD + update))


def initialise(module: nn.Module, *, layers: int) -> None:
    """Initialise Linear weights with std 1/sqrt(fan-in), which keeps attention from starting out
    uniform at tiny width; projections into a residual sum are scaled down by depth."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            scale = (3 * layers) ** -0.5 if name.endswith("output.dense") else 1.0
            nn.init.normal_(child.weight, std=scale * child.in_features**-0.5)
            nn.init.zeros_(child.bias)
