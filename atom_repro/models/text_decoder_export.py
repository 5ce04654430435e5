"""The Llama decoder for engines that run exported files: its prefill and step as pure functions.

Grouped attention is written without expanding keys and values to all query heads, and the rotary
rows of a call's positions are inputs: neither expansion nor tables are work of each step.
Weights are those of `TextDecoder`; tests hold the two equal.

Shapes: as in `exported`; S prompt positions, H = J * R heads.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.exported import (
    FORMS,
    MAX_BEAMS,
    MAX_CLIPS,
    MAX_NEW_TOKENS,
    MAX_PREFIX,
    NEVER,
    DecoderExport,
    ExportedCache,
    ExportedDecoder,
    Forms,
    Method,
    MethodCall,
    Table,
    attend_over_prefix,
    causal_scores,
)
from atom_repro.models.text_decoder import (
    DecoderLayer,
    RMSNorm,
    TextDecoder,
    TextDecoderConfig,
    apply_rope,
    require_position,
    rope_frequencies,
    rope_rows,
)
from atom_repro.models.visual_tokens import VisualTokens, insert_visual_tokens

EMBEDDING = "model.embed_tokens.weight"


class _Part(nn.Module):
    """The layers, the final norm and the head of a decoder, without its embedding."""

    mean_row: Tensor
    eps: Tensor
    turn: Tensor

    def __init__(self, decoder: TextDecoder, forms: Forms = FORMS) -> None:
        super().__init__()
        self.config, self.forms = decoder.config, forms
        self.layers, self.norm = decoder.model.layers, decoder.model.norm
        self.lm_head = decoder.lm_head

        # The mean of squares as a product with a row of 1/E, and epsilon as its bias: a mean would
        # stay outside the backend, and part each layer in two.
        E = self.config.width
        self.register_buffer("mean_row", torch.full((1, E), 1 / E))
        self.register_buffer("eps", torch.full((1,), self.config.norm_eps))
        # The other half of a rotary pair, with its sign, as a product too: a slice stays outside.
        C = self.config.head_width
        one = torch.eye(C // 2)
        zero = torch.zeros_like(one)
        turn = torch.cat((torch.cat((zero, -one), dim=1), torch.cat((one, zero), dim=1)))
        self.register_buffer("turn", turn)

    def normed(self, norm: RMSNorm, x: Tensor) -> Tensor:
        """`RMSNorm` of x (..., E)."""
        if not self.forms.fused:
            normed: Tensor = norm(x)
            return normed
        return x * F.linear(x * x, self.mean_row, self.eps).rsqrt() * norm.weight

    def rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`apply_rope` of x (..., C)."""
        if not self.forms.fused:
            return apply_rope(x, cos, sin)
        return x * cos + F.linear(x, self.turn) * sin

    def decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]


class _RotaryRows(nn.Module):
    """Rotary rows of positions, which each call of a graph computes."""

    frequencies: Tensor

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.register_buffer("frequencies", rope_frequencies(config).float())

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of positions (..., 1): (..., C)."""
        angles = positions * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


class Prefill(_Part):
    """A prompt (S, E) to logits of the next token (1, V), and keys (J, C, S) and values (J, S, C)
    of each layer."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        J, C, H = self.config.kv_heads, self.config.head_width, self.config.heads
        S, R = x.shape[0], H // J
        cache: list[Tensor] = []
        for layer in self.decoder_layers():
            attention, h = layer.self_attn, self.normed(layer.input_layernorm, x)
            q = self.rotated(attention.q_proj(h).view(S, H, C), cos, sin) * C**-0.5
            k = self.rotated(attention.k_proj(h).view(S, J, C), cos, sin).permute(1, 2, 0)
            v = attention.v_proj(h).view(S, J, C).transpose(0, 1)
            # (J, R * S, C): the R query heads of a key head, one after the other.
            grouped = q.view(S, J, R, C).permute(1, 2, 0, 3).reshape(J, R * S, C)
            weights = (torch.bmm(grouped, k) + mask).softmax(dim=-1)
            mixed = torch.bmm(weights, v).view(J, R, S, C).permute(2, 0, 1, 3)
            x = x + attention.o_proj(mixed.reshape(S, H * C))
            x = x + layer.mlp(self.normed(layer.post_attention_layernorm, x))
            cache += [k, v]
        return self.lm_head(self.normed(self.norm, x[-1:])), *cache


class Step(_Part):
    """New tokens (B, K, E) to logits (B, K, V), and their keys and values (B, K, J, C)."""

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        prefix_mask: Tensor,
        beam_mask: Tensor,
        *cache: Tensor,
    ) -> tuple[Tensor, ...]:
        J, C, H = self.config.kv_heads, self.config.head_width, self.config.heads
        B, K, _ = x.shape
        new: list[Tensor] = []
        for i, layer in enumerate(self.decoder_layers()):
            attention, h = layer.self_attn, self.normed(layer.input_layernorm, x)
            q = self.rotated(attention.q_proj(h).view(B, K, H, C), cos, sin) * C**-0.5
            k = self.rotated(attention.k_proj(h).view(B, K, J, C), cos, sin)
            v = attention.v_proj(h).view(B, K, J, C)
            masks = prefix_mask, beam_mask
            mixed = attend_over_prefix(q, (k, v), masks, cache[4 * i : 4 * i + 4])
            x = x + attention.o_proj(mixed)
            x = x + layer.mlp(self.normed(layer.post_attention_layernorm, x))
            new += [k, v]
        return self.lm_head(self.normed(self.norm, x)), *new


class WholePrefill(Prefill):
    """`Prefill` of a prompt (S, E) and its positions (S,)."""

    def __init__(self, decoder: TextDecoder, forms: Forms) -> None:
        super().__init__(decoder, forms)
        self.rotary = _RotaryRows(decoder.config)

    def forward(self, x: Tensor, positions: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        cos, sin = self.rotary(positions[:, None, None])
        unseen = (positions[None, :] > positions[:, None]).float() * NEVER
        mask = unseen.repeat(self.config.heads // self.config.kv_heads, 1)[None]
        return super().forward(x, cos, sin, mask)


class WholeStep(Step):
    """`Step` of new tokens (B, K, E) and the positions (B,) of their clips."""

    def __init__(self, decoder: TextDecoder, forms: Forms) -> None:
        super().__init__(decoder, forms)
        self.rotary = _RotaryRows(decoder.config)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        positions: Tensor,
        prefix_mask: Tensor,
        beam_mask: Tensor,
        *cache: Tensor,
    ) -> tuple[Tensor, ...]:
        cos, sin = self.rotary(positions[:, None, None, None])
        return super().forward(x, cos, sin, prefix_mask, beam_mask, *cache)


def prefill_inputs(config: TextDecoderConfig, positions: int) -> tuple[Tensor, ...]:
    """Random arguments of `Prefill` for a prompt of so many positions."""
    cos, sin = rope_rows(config, torch.arange(positions))[:, :, None]
    mask = causal_scores(positions, config.heads // config.kv_heads)
    return torch.randn(positions, config.width), cos, sin, mask


def step_inputs(
    config: TextDecoderConfig, *, clips: int, beams: int, prefix: int, allocated: int
) -> tuple[Tensor, ...]:
    """Random arguments of `Step` behind a prefix of so many positions."""
    J, C = config.kv_heads, config.head_width
    cos, sin = rope_rows(config, torch.full((clips,), prefix))[:, :, None, None]
    cache: list[Tensor] = []
    for _ in range(config.layers):
        cache += [torch.randn(clips, J, C, prefix), torch.randn(clips, J, prefix, C)]
        of_beams = (clips, beams * J)
        cache += [torch.randn(*of_beams, C, allocated), torch.randn(*of_beams, allocated, C)]
    x, masks = torch.randn(clips, beams, config.width), (prefix, allocated)
    return x, cos, sin, *(torch.zeros(clips, 1, 1, size) for size in masks), *cache


def methods(decoder: TextDecoder, forms: Forms = FORMS) -> list[Method]:
    """`prefill` and `step` of a decoder.

    Raises:
        AtomError: another class, which may do more than this export knows.
    """
    if type(decoder) is not TextDecoder:
        raise AtomError(f"{type(decoder).__name__} has no export of its own; choose engine=eager")
    config = decoder.config
    J, repeats = config.kv_heads, config.heads // config.kv_heads
    positions = min(MAX_PREFIX, config.max_positions)
    prompt = {0: positions}
    prefill = Method(
        "prefill",
        Prefill(decoder, forms),
        prefill_inputs(config, 5),
        (prompt, prompt, prompt, {1: repeats * positions, 2: positions}),
    )
    clips, beams = {0: MAX_CLIPS}, {0: MAX_CLIPS, 1: MAX_BEAMS * J}
    cache = [
        {**clips, 3: positions},
        {**clips, 2: positions},
        {**beams, 3: MAX_NEW_TOKENS},
        {**beams, 2: MAX_NEW_TOKENS},
    ]
    step = Method(
        "step",
        Step(decoder, forms),
        # No two sizes alike, so that none is taken for another.
        step_inputs(config, clips=2, beams=3, prefix=4, allocated=6),
        (
            {0: MAX_CLIPS, 1: MAX_BEAMS},
            clips,
            clips,
            {**clips, 3: positions},
            {**clips, 3: MAX_NEW_TOKENS},
            *(cache * config.layers),
        ),
    )
    if forms.hoisted:
        return [prefill, step]
    x, _, _, *others = step.example
    return [
        Method(
            "prefill",
            WholePrefill(decoder, forms),
            (prefill.example[0], torch.arange(5.0)),
            (prompt, prompt),
        ),
        Method(
            "step",
            WholeStep(decoder, forms),
            (x, torch.full((2,), 4.0), *others),
            (*step.dynamic[:1], clips, *step.dynamic[3:]),
        ),
    ]


class ExportedTextDecoder(ExportedDecoder):
    """`TextDecoder` with its layers outside PyTorch."""

    def __init__(
        self,
        config: TextDecoderConfig,
        tables: Mapping[str, Table],
        methods: Mapping[str, MethodCall],
        forms: Forms = FORMS,
    ) -> None:
        super().__init__(methods, shared_per_layer=2)
        self.config, self._embed, self._forms = config, tables[EMBEDDING], forms

    def prefill_inputs(
        self, visual: VisualTokens | None, ids: Sequence[int]
    ) -> list[tuple[Tensor, ...]]:
        S = len(ids)
        embedded = self._embed(torch.tensor([max(token, 0) for token in ids]))
        prompts = insert_visual_tokens(embedded, ids, visual)
        if not self._forms.hoisted:
            require_position(self.config, S)
            return [(prompt, torch.arange(float(S))) for prompt in prompts]
        cos, sin = rope_rows(self.config, torch.arange(S))[:, :, None]
        mask = causal_scores(S, self.config.heads // self.config.kv_heads)
        return [(prompt, cos, sin, mask) for prompt in prompts]

    def token_inputs(self, ids_BK: Tensor, cache: ExportedCache) -> tuple[Tensor, ...]:
        positions = cache.prefix + cache.length
        if not self._forms.hoisted:
            require_position(self.config, int(positions.max()) + 1)
            return self._embed(ids_BK), positions.float()
        cos, sin = rope_rows(self.config, positions)[:, :, None, None]
        return self._embed(ids_BK), cos, sin


TEXT_DECODER_EXPORT = DecoderExport(methods, (EMBEDDING,), ExportedTextDecoder)
