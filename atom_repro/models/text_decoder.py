"""The language decoder: a Llama 3.2 with a shared visual prefix and a KV cache for beams.

Written out rather than taken from transformers for the prefix cache: all beams of a clip attend
to one copy of the prefix, and only the few generated positions are stored, and reordered, per
beam. Weights carry the names of `LlamaForCausalLM`; tests hold the two equal.

The module keeps no state between calls: a caller owns its `DecoderCache`, so the steps of two
clips may interleave on one decoder, from several threads.

Shapes: B clips, K beams, S positions, P prefix positions, E width, H heads, J key/value heads,
G = H/J, C channels per head, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.visual_tokens import VisualTokens, insert_visual_tokens


@dataclass(frozen=True, kw_only=True)
class TextDecoderConfig:
    """Hyperparameters of the Llama. `rope_factor` 1 means plain rotary embedding; Llama 3.2 uses
    32 with low 1, high 4 and an original context of 8192. `tied` makes the LM head share the
    embedding's weight."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    rope_theta: float
    rope_factor: float = 1.0
    rope_low: float = 1.0
    rope_high: float = 4.0
    rope_original_context: int = 8192
    norm_eps: float = 1e-5
    max_positions: int = 2048
    dropout: float = 0.0
    tied: bool = True

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise AtomError(
                f"model.decoder.heads={self.heads} is not a multiple of "
                f"model.decoder.kv_heads={self.kv_heads}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rope_table(config: TextDecoderConfig, device: torch.device | None = None) -> Tensor:
    """Rotary embedding table: cos and sin of every position, (2, max_positions, C), half-split."""
    positions = torch.arange(config.max_positions, dtype=torch.float64, device=device)
    angles = torch.outer(positions, rope_frequencies(config, device))
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin())).float()


def rope_frequencies(config: TextDecoderConfig, device: torch.device | None = None) -> Tensor:
    """Angle of one position in each rotary pair, (C / 2,) float64.

    Source of the frequency scaling: Llama 3.1 (`rope_type: llama3`).
    """
    half = torch.arange(0, config.head_width, 2, dtype=torch.float64, device=device)
    inv = config.rope_theta ** (-half / config.head_width)
    if config.rope_factor != 1.0:
        wavelength = 2 * torch.pi / inv
        context = config.rope_original_context
        smooth = (context / wavelength - config.rope_low) / (config.rope_high - config.rope_low)
        smooth = smooth.clamp(0, 1)
        inv = (1 - smooth) * inv / config.rope_factor + smooth * inv
    return inv


@lru_cache(maxsize=4)
def _cached_rope_table(config: TextDecoderConfig) -> Tensor:
    return rope_table(config)


def rope_rows(config: TextDecoderConfig, positions: Tensor) -> Tensor:
    """cos and sin of some positions: (2, len(positions), C).

    Raises:
        AtomError: a position beyond `max_positions`.
    """
    require_position(config, int(positions.max()) + 1)
    return _cached_rope_table(config)[:, positions]


def require_position(config: TextDecoderConfig, end: int) -> None:
    """Check that a sequence may reach position `end`.

    Raises:
        AtomError: it may not.
    """
    if end > config.max_positions:
        raise AtomError(
            f"the sequence reaches position {end}, beyond model.decoder.max_positions="
            f"{config.max_positions}; shorten the prompt, or train or convert with a larger "
            "model.decoder.max_positions"
        )


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    rotated_half = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + rotated_half * sin


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention without the fused kernel: at a few hundred positions, the CPU's spends most of a
    training step in its backward pass. Shapes (B, H, S, C) and (B, J, S, C)."""
    B, H, S, C = q.shape
    J = k.shape[1]
    scores = (q * C**-0.5).reshape(B, J, -1, C) @ k.transpose(2, 3)  # (B, J, G*S, S)
    allowed = mask if mask is not None else torch.ones(S, S, dtype=torch.bool).tril().to(q.device)
    scores = scores.view(B, J, H // J, S, S).masked_fill(~allowed, -torch.inf)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
    return (weights.view(B, J, -1, S) @ v).view(B, H, S, C)


class DecoderCache:
    """KV cache of one generation: the prefix once per clip, generated tokens once per beam.

    `prefix[layer]` is a pair (B, J, P, C); `beams[layer]` a pair (B, K, J, max_new_tokens, C) of
    which the first `length` positions are filled. Owned by the caller.
    """

    def __init__(self, prefix: list[tuple[Tensor, Tensor]]) -> None:
        self.prefix = prefix
        self.beams: list[tuple[Tensor, Tensor]] = []
        self.length = 0

    @property
    def position(self) -> int:
        """Position of the next token."""
        return self.prefix[0][0].shape[2] + self.length

    def open(self, beams: int, max_new_tokens: int) -> None:
        """Allocate `max_new_tokens` positions for each of `beams` beams per clip."""
        for keys, _ in self.prefix:
            B, J, _, C = keys.shape
            shape = (B, beams, J, max_new_tokens, C)
            self.beams.append((keys.new_zeros(shape), keys.new_zeros(shape)))

    def reorder(self, parent_BK: Tensor) -> None:
        """Make beam k of clip b a continuation of its beam `parent_BK[b, k]`."""
        rows = torch.arange(parent_BK.shape[0], device=parent_BK.device)[:, None]
        filled = self.length
        for keys, values in self.beams:
            keys[:, :, :, :filled] = keys[rows, parent_BK, :, :filled]
            values[:, :, :, :filled] = values[rows, parent_BK, :, :filled]

    def keep(self, rows: Tensor) -> None:
        """Keep only the clips at batch indices `rows`."""
        self.prefix = [(k[rows], v[rows]) for k, v in self.prefix]
        self.beams = [(k[rows], v[rows]) for k, v in self.beams]

    def bytes(self) -> int:
        """Bytes of keys and values that one decoding step reads."""
        total = sum(k.nbytes + v.nbytes for k, v in self.prefix)
        for keys, values in self.beams:
            allocated = keys.shape[3]
            total += (keys.nbytes + values.nbytes) * self.length // max(allocated, 1)
        return total


class Attention(nn.Module):
    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = (
            config.heads,
            config.kv_heads,
            config.head_width,
        )
        self.q_proj = nn.Linear(config.width, config.heads * config.head_width, bias=False)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_width, bias=False)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_width, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_width, config.width, bias=False)

    def forward(
        self, x_BSE: Tensor, rope: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attention over a whole sequence; also returns its keys and values (B, J, S, C).

        `mask` is a boolean (S, S) mask, True where a position may look; None means causal.
        """
        B, S, _ = x_BSE.shape
        q = self.q_proj(x_BSE).view(B, S, self.heads, -1).transpose(1, 2)
        k = self.k_proj(x_BSE).view(B, S, self.kv_heads, -1).transpose(1, 2)
        v = self.v_proj(x_BSE).view(B, S, self.kv_heads, -1).transpose(1, 2)
        q, k = apply_rope(q, *rope).to(v.dtype), apply_rope(k, *rope).to(v.dtype)
        if self.training:
            mixed = _attend(q, k, v, mask)
        else:
            mixed = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=self.heads != self.kv_heads,
            )
        return self.o_proj(mixed.transpose(1, 2).reshape(B, S, -1)), (k, v)

    def step(self, x_BKE: Tensor, rope: Tensor, cache: DecoderCache, layer: int) -> Tensor:
        """Attention of one new position per beam; all beams of a clip share its prefix."""
        B, K, _ = x_BKE.shape
        J, C = self.kv_heads, self.head_width
        q = apply_rope(self.q_proj(x_BKE).view(B, K, self.heads, C), *rope).to(x_BKE.dtype)
        keys, values = cache.beams[layer]
        position, end = cache.length, cache.length + 1
        keys[:, :, :, position] = apply_rope(self.k_proj(x_BKE).view(B, K, J, C), *rope)
        values[:, :, :, position] = self.v_proj(x_BKE).view(B, K, J, C)

        q = q.view(B, K, J, -1, C) * C**-0.5  # (B, K, J, G, C)
        prefix_k, prefix_v = cache.prefix[layer]
        q_by_head = q.transpose(1, 2).reshape(B, J, -1, C)  # (B, J, K*G, C)
        to_prefix = (q_by_head @ prefix_k.transpose(2, 3)).view(B, J, K, -1, prefix_k.shape[2])
        to_beam = q @ keys[:, :, :, :end].transpose(3, 4)  # (B, K, J, G, length+1)
        scores = torch.cat((to_prefix.transpose(1, 2), to_beam), dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x_BKE.dtype)
        from_prefix, from_beam = weights.split((prefix_k.shape[2], end), dim=-1)
        mixed = from_beam @ values[:, :, :, :end]
        shared = from_prefix.transpose(1, 2).reshape(B, J, -1, prefix_k.shape[2]) @ prefix_v
        mixed = mixed + shared.view(B, J, K, -1, C).transpose(1, 2)
        return self.o_proj(mixed.reshape(B, K, -1))


class MLP(nn.Module):
    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, rope: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, kv = self.self_attn(self.input_layernorm(x), rope, mask)
        x = x + self.drop(mixed)
        return x + self.drop(self.mlp(self.post_attention_layernorm(x))), kv

    def step(self, x: Tensor, rope: Tensor, cache: DecoderCache, layer: int) -> Tensor:
        x = x + self.self_attn.step(self.input_layernorm(x), rope, cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaStack(nn.Module):
    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)


class TextDecoder(nn.Module):
    """Causal language model over input embeddings, of which visual tokens can be a part."""

    rope: Tensor

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaStack(config)
        self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.tied = {"lm_head.weight": "model.embed_tokens.weight"} if config.tied else {}
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._initialise()
        self.init_buffers()

    def _initialise(self) -> None:
        # 1/sqrt(width) is Llama's 0.02 at its width. At tiny width it keeps attention from starting
        # out uniform, and embeddings from being lost beside what layers add to them.
        nn.init.normal_(self.model.embed_tokens.weight, std=self.config.width**-0.5)
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear):
                into_residual = name.endswith(("o_proj", "down_proj"))
                scale = (2 * self.config.layers) ** -0.5 if into_residual else 1.0
                nn.init.normal_(module.weight, std=scale * module.in_features**-0.5)

    def checkpoint_state_dict(self) -> dict[str, Tensor]:
        return dict(self.state_dict(keep_vars=True))

    def init_buffers(self) -> None:
        """Compute the non-persistent buffers; needed again after building on the meta device."""
        self.register_buffer("rope", rope_table(self.config), persistent=False)

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens(ids)

    def forward(
        self, embeds_BSE: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Final hidden states (B, S, E) of a whole sequence; `lm_head` maps them to logits.

        Args:
            mask: boolean (S, S), True where attention is allowed; None means causal.
            positions: (S,) positions for the rotary embedding; None means 0 to S-1.
        """
        return self._run(embeds_BSE, mask, positions)[0]

    def embed_prompt(self, visual: VisualTokens | None, ids: Sequence[int]) -> Tensor:
        """Embeddings of a prompt (B, P, E), placeholders replaced by the visual tokens."""
        valid_ids = torch.tensor([max(token, 0) for token in ids], device=self.rope.device)
        return insert_visual_tokens(self.embed(valid_ids), ids, visual)

    def start(self, visual: VisualTokens | None, ids: Sequence[int]) -> tuple[Tensor, DecoderCache]:
        """Prefill with a prompt: logits of the first token (B, V), and the cache."""
        return self.prefill(self.embed_prompt(visual, ids))

    def prefill(self, embeds_BPE: Tensor) -> tuple[Tensor, DecoderCache]:
        """Prefill with embeddings: logits of the next token (B, V), and the cache."""
        hidden, kv = self._run(embeds_BPE)
        return self.lm_head(hidden[:, -1]), DecoderCache(kv)

    def step(self, ids_BK: Tensor, cache: DecoderCache) -> Tensor:
        """Append one token to every beam: logits of the next one (B, K, V)."""
        x = self.embed(ids_BK)
        rope = self._rope(cache.position, cache.position + 1)
        for i, layer in enumerate(self.model.layers):
            assert isinstance(layer, DecoderLayer)
            x = layer.step(x, rope, cache, i)
        cache.length += 1
        return self.lm_head(self.model.norm(x))

    def _run(
        self, x: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        rope = self._rope(0, x.shape[1]) if positions is None else self.rope[:, positions]
        cache = []
        for layer in self.model.layers:
            x, kv = layer(x, rope, mask)
            cache.append(kv)
        return self.model.norm(x), cache

    def _rope(self, start: int, end: int) -> Tensor:
        require_position(self.config, end)
        return self.rope[:, start:end]
