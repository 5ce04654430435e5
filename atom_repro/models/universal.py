"""BERT layers that also read another sequence, and the universal layers made of them.

Source of the structure: mPLUG-2 (X-PLUG/mPLUG-2): layers 22 and 23 of its text encoder run on
video tokens. The first gathers the video into a few learned latents, the second lets every video
token read these. Names inside a layer are BERT's, so that released weights fit; the layer is
also that of the caption decoder (`bert_decoder`).

Shapes: N rows of S positions, B clips of M positions of the other sequence (N is a multiple of
B, rows of a clip side by side), D width, H heads, C channels a head, L latents.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# BERT's, everywhere in these layers.
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
    """LayerNorm(x + dropout(Linear(branch))): the norm comes after the sum."""

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
    """Attention of x to given keys and values, its own or another sequence's."""

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
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=causal, dropout_p=self.dropout if self.training else 0.0
        )
        return self.output(mixed.transpose(1, 2).reshape(x.shape), x)


class CrossLayer(nn.Module):
    """Self-attention, attention to another sequence, feed-forward; the norm after each."""

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
            other: the sequence to read, or its keys and values if they are known.
        """
        if isinstance(other, Tensor):
            other = self.crossattention.keys_values(other)
        own = self.attention.keys_values(x_NSD)
        return self.read(self.attention(x_NSD, own, causal=causal), other), own

    def read(self, x_NSD: Tensor, other: KeysValues) -> Tensor:
        """What follows self-attention. All rows of a clip read one copy of its keys and values."""
        by_clip = x_NSD.reshape(other[0].shape[0], -1, x_NSD.shape[-1])
        x = self.crossattention(by_clip, other).view(x_NSD.shape)
        return self.output(self.intermediate(x), x)


class UniversalLayers(nn.Module):
    """Video tokens (B, M, D) to the latents that gathered them (B, L, D), and, where `broadcast`
    is set, on to as many video tokens as came in, which have read the latents (B, M, D)."""

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
        gathered, _ = self.pool(latents, video_BMD)
        if not self.broadcast:
            return gathered
        read, _ = self.bcast(video_BMD, gathered)
        return self.drop(self.out(video_BMD + read))


def initialise(module: nn.Module, *, layers: int) -> None:
    """Weights of 1/sqrt(fan-in), which keeps attention from starting out uniform at tiny width;
    what goes into a residual sum starts smaller the more `layers` add to it."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            scale = (3 * layers) ** -0.5 if name.endswith("output.dense") else 1.0
            nn.init.normal_(child.weight, std=scale * child.in_features**-0.5)
            nn.init.zeros_(child.bias)
