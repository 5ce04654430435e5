"""mPLUG2's caption decoder for engines that run exported files: prefill and step as pure functions.

Keys and values of the video are computed once, in the prefill, and are inputs of each step that all
beams of a clip share, as is the prompt's self-attention cache. Weights are those of `BertDecoder`;
tests hold the two equal.

Shapes: as in `exported`; S prompt positions, M visual tokens, H heads (each with keys of its own).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.bert_decoder import BertDecoder, BertDecoderConfig
from atom_repro.models.exported import (
    FORMS,
    MAX_BEAMS,
    MAX_CLIPS,
    MAX_NEW_TOKENS,
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
from atom_repro.models.universal import CrossLayer, PostNormAttention
from atom_repro.models.visual_tokens import VisualTokens

WORDS = "bert.embeddings.word_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
_MAX_VISUAL_TOKENS = 2048


class _Part(nn.Module):
    """The layers and the head of a decoder, and its embeddings without their tables."""

    def __init__(self, decoder: BertDecoder) -> None:
        super().__init__()
        self.heads = decoder.config.heads
        embeddings = decoder.bert.embeddings
        types = embeddings.token_type_embeddings
        self.first_type = nn.Parameter(types(torch.tensor(0)).detach(), requires_grad=False)
        self.norm = embeddings.LayerNorm
        self.layer, self.cls = decoder.bert.encoder.layer, decoder.cls

    def embedded(self, x: Tensor) -> Tensor:
        """The layers' input of word and position embeddings that are already added."""
        return self.norm(x + self.first_type)

    def layers(self) -> list[CrossLayer]:
        return [layer for layer in self.layer if isinstance(layer, CrossLayer)]


def _finish(layer: CrossLayer, mixed: Tensor, x: Tensor) -> Tensor:
    """The rest of a layer once its cross-attention is mixed."""
    x = layer.crossattention.output(mixed, x)
    return layer.output(layer.intermediate(x), x)


class Prefill(_Part):
    """A video (M, E) and a prompt (S, E) to logits of the next token (1, V), and for each layer the
    prompt's keys (H, C, S) and values (H, S, C), and the video's (H, C, M) and (H, M, C)."""

    def forward(self, video: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        H = self.heads
        S, E = x.shape
        M, C = video.shape[0], E // H

        def keys_values(attention: PostNormAttention, source: Tensor, length: int) -> list[Tensor]:
            keys = attention.self.key(source).view(length, H, C).permute(1, 2, 0)
            return [keys, attention.self.value(source).view(length, H, C).transpose(0, 1)]

        def attend(
            attention: PostNormAttention, x: Tensor, kv: list[Tensor], mask: Tensor
        ) -> Tensor:
            q = attention.self.query(x).view(S, H, C).transpose(0, 1) * C**-0.5
            weights = (torch.bmm(q, kv[0]) + mask).softmax(dim=-1)
            return torch.bmm(weights, kv[1]).transpose(0, 1).reshape(S, E)

        x = self.embedded(x)
        everywhere = torch.zeros(1, 1, 1)
        cache: list[Tensor] = []
        for layer in self.layers():
            own = keys_values(layer.attention, x, S)
            x = layer.attention.output(attend(layer.attention, x, own, mask), x)
            seen = keys_values(layer.crossattention, video, M)
            x = _finish(layer, attend(layer.crossattention, x, seen, everywhere), x)
            cache += [*own, *seen]
        return self.cls(x[-1:]), *cache


class Step(_Part):
    """New tokens (B, K, E) to logits (B, K, V), and their keys and values (B, K, H, C)."""

    def forward(
        self, x: Tensor, prefix_mask: Tensor, beam_mask: Tensor, *cache: Tensor
    ) -> tuple[Tensor, ...]:
        H = self.heads
        B, K, E = x.shape
        C = E // H
        x = self.embedded(x)
        new: list[Tensor] = []
        for i, layer in enumerate(self.layers()):
            own, prompt, video = (
                layer.attention,
                cache[6 * i : 6 * i + 2],
                cache[6 * i + 2 : 6 * i + 4],
            )
            q = own.self.query(x).view(B, K, H, C) * C**-0.5
            k, v = own.self.key(x).view(B, K, H, C), own.self.value(x).view(B, K, H, C)
            past = (*prompt, *cache[6 * i + 4 : 6 * i + 6])
            x = own.output(attend_over_prefix(q, (k, v), (prefix_mask, beam_mask), past), x)
            M = video[0].shape[3]
            q = layer.crossattention.self.query(x).view(B, K, H, C).transpose(1, 2) * C**-0.5
            scores = torch.bmm(q.reshape(B * H, K, C), video[0].view(B * H, C, M))
            mixed = torch.bmm(scores.softmax(dim=-1), video[1].view(B * H, M, C))
            mixed = mixed.view(B, H, K, C).transpose(1, 2).reshape(B, K, E)
            x = _finish(layer, mixed, x)
            new += [k, v]
        return self.cls(x), *new


def methods(decoder: BertDecoder, forms: Forms = FORMS) -> list[Method]:
    """`prefill` and `step` of a decoder.

    Raises:
        AtomError: another class, which may do more than this export knows; or not hoisted.
    """
    if not forms.hoisted:
        raise AtomError(
            "engine.hoisted=false needs a decoder with rotary embedding, such as model=mplug2plus"
        )
    if type(decoder) is not BertDecoder:
        raise AtomError(f"{type(decoder).__name__} has no export of its own; choose engine=eager")
    config = decoder.config
    H, E, C = config.heads, config.width, config.width // config.heads
    positions = config.max_positions
    S, M, B, K, P, G = (
        5,
        7,
        2,
        3,
        4,
        6,
    )  # of the examples: no two alike, so none is taken for another
    prefill = Method(
        "prefill",
        Prefill(decoder),
        (torch.randn(M, E), torch.randn(S, E), causal_scores(S, 1)),
        ({0: _MAX_VISUAL_TOKENS}, {0: positions}, {1: positions, 2: positions}),
    )
    cache, cache_dynamic = [], []
    clips, beams = {0: MAX_CLIPS}, {0: MAX_CLIPS, 1: MAX_BEAMS * H}
    for _ in range(config.layers):
        cache += [torch.randn(B, H, C, P), torch.randn(B, H, P, C)]
        cache += [torch.randn(B, H, C, M), torch.randn(B, H, M, C)]
        cache += [torch.randn(B, K * H, C, G), torch.randn(B, K * H, G, C)]
        cache_dynamic += [{**clips, 3: positions}, {**clips, 2: positions}]
        cache_dynamic += [{**clips, 3: _MAX_VISUAL_TOKENS}, {**clips, 2: _MAX_VISUAL_TOKENS}]
        cache_dynamic += [{**beams, 3: MAX_NEW_TOKENS}, {**beams, 2: MAX_NEW_TOKENS}]
    step = Method(
        "step",
        Step(decoder),
        (torch.randn(B, K, E), torch.zeros(B, 1, 1, P), torch.zeros(B, 1, 1, G), *cache),
        (
            {0: MAX_CLIPS, 1: MAX_BEAMS},
            {0: MAX_CLIPS, 3: positions},
            {0: MAX_CLIPS, 3: MAX_NEW_TOKENS},
            *cache_dynamic,
        ),
    )
    return [prefill, step]


class ExportedBertDecoder(ExportedDecoder):
    """`BertDecoder` with its layers outside PyTorch."""

    def __init__(
        self,
        config: BertDecoderConfig,
        tables: Mapping[str, Table],
        methods: Mapping[str, MethodCall],
        forms: Forms = FORMS,
    ) -> None:
        super().__init__(methods, shared_per_layer=4)
        self.config = config
        self._words, self._positions = tables[WORDS], tables[POSITIONS]

    def prefill_inputs(
        self, visual: VisualTokens | None, ids: Sequence[int]
    ) -> list[tuple[Tensor, ...]]:
        if visual is None:
            raise AtomError("the decoder attends to a video in every layer; pass visual tokens")
        S = len(ids)
        x = self._embed(torch.tensor(list(ids)), torch.arange(S))
        return [(video, x, causal_scores(S, 1)) for video in visual.tokens]

    def token_inputs(self, ids_BK: Tensor, cache: ExportedCache) -> tuple[Tensor, ...]:
        positions = (cache.prefix + cache.length)[:, None]
        return (self._embed(ids_BK, positions),)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        end, limit = int(positions.max()) + 1, self.config.max_positions
        if end > limit:
            raise AtomError(
                f"the text reaches position {end}, beyond model.decoder.max_positions={limit}; "
                "lower generation.max_new_tokens, or train or convert with a larger "
                "model.decoder.max_positions"
            )
        return self._words(ids) + self._positions(positions)


BERT_DECODER_EXPORT = DecoderExport(methods, (WORDS, POSITIONS), ExportedBertDecoder)
