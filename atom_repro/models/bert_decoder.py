"""The caption decoder of mPLUG2: a causal BERT with cross-attention to the visual tokens.

Written out rather than taken from transformers for the cache: all beams of a clip read one copy
of its cross-attention keys and values, computed once per clip. Weights carry the names of
mPLUG-2's `text_decoder`; tests hold it equal to transformers' `BertLMHeadModel`.

The module keeps no state between calls: a caller owns its `VideoCache`, so the steps of two clips
may interleave on one decoder, from several threads.

Shapes: B clips, R texts per clip, K beams, S positions, P prompt positions, M visual tokens,
E width, H heads, C channels per head, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.universal import NORM_EPS, CrossLayer, KeysValues, initialise
from atom_repro.models.visual_tokens import VisualTokens


@dataclass(frozen=True, kw_only=True)
class BertDecoderConfig:
    """Hyperparameters of the decoder. Of BERT's two token types only the first is used."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    max_positions: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise AtomError(
                f"model.decoder.width={self.width} is not a multiple of "
                f"model.decoder.heads={self.heads}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class VideoCache:
    """KV cache of one generation: the video's once per clip, the text's once per beam.

    `video[layer]` is a pair (B, H, M, C). `text[layer]` is a pair (B, H, P, C) before `open`, and
    (B, K, H, P + max_new_tokens, C) after it, of which `length` positions are filled. The prompt
    is copied to each beam: it is a few words. Owned by the caller.
    """

    def __init__(self, video: list[KeysValues], prompt: list[KeysValues]) -> None:
        self.video, self.text = video, prompt
        self.length = prompt[0][0].shape[2]

    def open(self, beams: int, max_new_tokens: int) -> None:
        """Allocate `max_new_tokens` positions for each of `beams` beams per clip."""

        def for_beams(x_BHPC: Tensor) -> Tensor:
            B, H, P, C = x_BHPC.shape
            buffer = x_BHPC.new_zeros(B, beams, H, P + max_new_tokens, C)
            buffer[:, :, :, :P] = x_BHPC[:, None]
            return buffer

        self.text = [(for_beams(k), for_beams(v)) for k, v in self.text]

    def reorder(self, parent_BK: Tensor) -> None:
        """Make beam k of clip b a continuation of its beam `parent_BK[b, k]`."""
        rows = torch.arange(parent_BK.shape[0], device=parent_BK.device)[:, None]
        for pair in self.text:
            for x in pair:
                x[:, :, :, : self.length] = x[rows, parent_BK, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        """Keep only the clips at batch indices `rows`."""
        self.video = [(k[rows], v[rows]) for k, v in self.video]
        self.text = [(k[rows], v[rows]) for k, v in self.text]

    def bytes(self) -> int:
        """Bytes of keys and values that one decoding step reads."""
        filled = self.length / self.text[0][0].shape[-2]
        video = sum(k.nbytes + v.nbytes for k, v in self.video)
        return video + round(filled * sum(k.nbytes + v.nbytes for k, v in self.text))


class Embeddings(nn.Module):
    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.width)
        self.position_embeddings = nn.Embedding(config.max_positions, config.width)
        self.token_type_embeddings = nn.Embedding(2, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, ids_NS: Tensor, start: int) -> Tensor:
        """Embeddings of ids whose positions begin at `start`."""
        end, limit = start + ids_NS.shape[1], self.position_embeddings.num_embeddings
        if end > limit:
            raise AtomError(
                f"the text reaches position {end}, beyond model.decoder.max_positions={limit}; "
                "lower generation.max_new_tokens, or train or convert with a larger "
                "model.decoder.max_positions"
            )
        positions = torch.arange(start, end, device=ids_NS.device)
        x = self.word_embeddings(ids_NS) + self.position_embeddings(positions)
        x = x + self.token_type_embeddings(torch.zeros_like(positions))
        return self.drop(self.LayerNorm(x))


class LayerStack(nn.Module):
    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            CrossLayer(config.width, config.heads, config.mlp_width, config.dropout)
            for _ in range(config.layers)
        )


class Bert(nn.Module):
    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = LayerStack(config)


class Transform(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(x)))


class Predictions(nn.Module):
    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        self.transform = Transform(config.width)
        self.decoder = nn.Linear(config.width, config.vocabulary)
        self.bias = self.decoder.bias  # released files hold it under both names

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x))


class Head(nn.Module):
    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        self.predictions = Predictions(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.predictions(x)


class BertDecoder(nn.Module):
    """Causal BERT: token ids and visual tokens to hidden states; `cls` maps them to logits."""

    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.cls = Head(config)
        self.tied = {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
        initialise(self, layers=config.layers)
        for embedding in self.bert.embeddings.children():
            if isinstance(embedding, nn.Embedding):
                nn.init.normal_(embedding.weight, std=0.02)
        self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight

    def checkpoint_state_dict(self) -> dict[str, Tensor]:
        return dict(self.state_dict(keep_vars=True))

    def init_buffers(self) -> None:
        """Do nothing: a BERT has no buffers that checkpoints leave out."""

    def forward(self, ids_BRS: Tensor, visual: VisualTokens) -> Tensor:
        """Hidden states (B, R, S, E) of R texts per clip, which attend to one copy of its video."""
        B, R, S = ids_BRS.shape
        video = [visual.tokens] * self.config.layers
        return self._run(ids_BRS.reshape(B * R, S), video)[0].view(B, R, S, -1)

    def start(self, visual: VisualTokens | None, ids: Sequence[int]) -> tuple[Tensor, VideoCache]:
        """Prefill with a video and a prompt: logits of the first token (B, V), and the cache.

        Raises:
            AtomError: no video; every layer of this decoder cross-attends to one.
        """
        if visual is None:
            raise AtomError("the decoder attends to a video in every layer; pass visual tokens")
        video = self._video_keys_values(visual.tokens)
        prompt = torch.tensor([list(ids)], device=visual.tokens.device)
        hidden, text = self._run(prompt.expand(visual.clips, -1), video)
        return self.cls(hidden[:, -1]), VideoCache(video, text)

    def step(self, ids_BK: Tensor, cache: VideoCache) -> Tensor:
        """Append one token to every beam: logits of the next one (B, K, V)."""
        position, end = cache.length, cache.length + 1
        x = self.bert.embeddings(ids_BK.reshape(-1, 1), position)
        for layer, text, video in zip(self._layers(), cache.text, cache.video, strict=True):
            keys, values = text[0].flatten(0, 1), text[1].flatten(0, 1)  # views: (B*K, H, ..., C)
            new_keys, new_values = layer.attention.keys_values(x)
            keys[:, :, position:end], values[:, :, position:end] = new_keys, new_values
            x = layer.attention(x, (keys[:, :, :end], values[:, :, :end]))
            x = layer.cross_attend(x, video)
        cache.length = end
        return self.cls(x).view(*ids_BK.shape, -1)

    def _layers(self) -> list[CrossLayer]:
        return [layer for layer in self.bert.encoder.layer if isinstance(layer, CrossLayer)]

    def _video_keys_values(self, visual_BME: Tensor) -> list[KeysValues]:
        return [layer.crossattention.keys_values(visual_BME) for layer in self._layers()]

    def _run(
        self, ids_NS: Tensor, video: Sequence[Tensor | KeysValues]
    ) -> tuple[Tensor, list[KeysValues]]:
        """Hidden states and the text's keys and values; layer i attends to `video[i]`."""
        x = self.bert.embeddings(ids_NS, 0)
        text = []
        for layer, layer_video in zip(self._layers(), video, strict=True):
            x, text_keys_values = layer(x, layer_video, causal=True)
            text.append(text_keys_values)
        return x, text
