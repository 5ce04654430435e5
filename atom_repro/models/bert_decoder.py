"""The caption decoder of mPLUG2: a BERT that writes left to right and reads the video by
cross-attention.

Written out rather than taken from transformers for the cache: all beams of a clip read one copy
of its cross-attention keys and values, made once when the clip is started. Weights carry the
names of mPLUG-2's `text_decoder`; tests hold it equal to transformers' `BertLMHeadModel`.

Nothing of a clip stays on the module between calls: a caller owns its `VideoCache`, so the steps
of two clips may interleave on one decoder, from several threads.

Shapes: B clips, R texts a clip, K beams, S positions, P prompt positions, M visual tokens,
E width, H heads, C channels a head, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.universal import NORM_EPS, CrossLayer, KeysValues, initialise


@dataclass(frozen=True, kw_only=True)
class BertDecoderConfig:
    """The numbers that make a decoder. Token types are BERT's two, of which it uses the first."""

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
    """Keys and values of one generation: the video's once a clip, the text's once a beam.

    `video[layer]` is a pair (B, H, M, C). `text[layer]` is a pair (B, H, P, C) while the prompt
    is all there is, and (B, K, H, P + room, C), `length` positions of it filled, once `open` was
    called. The prompt is copied to each beam: it is a few words. Owned by the caller.
    """

    def __init__(self, video: list[KeysValues], prompt: list[KeysValues]) -> None:
        self.video, self.text = video, prompt
        self.length = prompt[0][0].shape[2]

    def open(self, beams: int, room: int) -> None:
        """Make room for `room` generated positions of `beams` beams a clip."""

        def widened(x_BHPC: Tensor) -> Tensor:
            B, H, P, C = x_BHPC.shape
            wide = x_BHPC.new_zeros(B, beams, H, P + room, C)
            wide[:, :, :, :P] = x_BHPC[:, None]
            return wide

        self.text = [(widened(k), widened(v)) for k, v in self.text]

    def reorder(self, parent_BK: Tensor) -> None:
        """Let beam k of each clip continue the beam `parent[b, k]`."""
        rows = torch.arange(parent_BK.shape[0], device=parent_BK.device)[:, None]
        for pair in self.text:
            for x in pair:
                x[:, :, :, : self.length] = x[rows, parent_BK, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        """Drop the clips that are done."""
        self.video = [(k[rows], v[rows]) for k, v in self.video]
        self.text = [(k[rows], v[rows]) for k, v in self.text]

    def bytes(self) -> int:
        """Bytes of keys and values that one step reads."""
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

    def forward(self, ids_NS: Tensor, first: int) -> Tensor:
        """Embeddings of ids whose positions begin at `first`."""
        end, room = first + ids_NS.shape[1], self.position_embeddings.num_embeddings
        if end > room:
            raise AtomError(
                f"the text reaches position {end}, beyond model.decoder.max_positions={room}; "
                "lower generation.max_new_tokens or raise it"
            )
        positions = torch.arange(first, end, device=ids_NS.device)
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
    """Ids and visual tokens to hidden states; `cls` turns them to logits."""

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

    def file_state(self) -> dict[str, Tensor]:
        return dict(self.state_dict(keep_vars=True))

    def restore_constants(self) -> None:
        """Nothing: files hold all of a BERT."""

    def forward(self, ids_BRS: Tensor, visual_BME: Tensor) -> Tensor:
        """Hidden states (B, R, S, E) of R texts a clip, which read one copy of its video."""
        B, R, S = ids_BRS.shape
        video = [visual_BME] * self.config.layers
        return self._run(ids_BRS.reshape(B * R, S), video)[0].view(B, R, S, -1)

    def start(self, visual_BME: Tensor | None, ids: Sequence[int]) -> tuple[Tensor, VideoCache]:
        """Read a video and a prompt: logits of the first token (B, V), and the cache.

        Raises:
            AtomError: there is no video; every layer of this decoder reads one.
        """
        if visual_BME is None:
            raise AtomError("the decoder reads a video in every layer, and there is none")
        video = self._video(visual_BME)
        prompt = torch.tensor([list(ids)], device=visual_BME.device)
        hidden, text = self._run(prompt.expand(visual_BME.shape[0], -1), video)
        return self.cls(hidden[:, -1]), VideoCache(video, text)

    def step(self, ids_BK: Tensor, cache: VideoCache) -> Tensor:
        """Append one token to every beam: logits of the one after it (B, K, V)."""
        at, end = cache.length, cache.length + 1
        x = self.bert.embeddings(ids_BK.reshape(-1, 1), at)
        for layer, text, video in zip(self._layers(), cache.text, cache.video, strict=True):
            keys, values = text[0].flatten(0, 1), text[1].flatten(0, 1)  # views: (B*K, H, room, C)
            new_keys, new_values = layer.attention.keys_values(x)
            keys[:, :, at:end], values[:, :, at:end] = new_keys, new_values
            x = layer.attention(x, (keys[:, :, :end], values[:, :, :end]))
            x = layer.read(x, video)
        cache.length = end
        return self.cls(x).view(*ids_BK.shape, -1)

    def _layers(self) -> list[CrossLayer]:
        return [layer for layer in self.bert.encoder.layer if isinstance(layer, CrossLayer)]

    def _video(self, visual_BME: Tensor) -> list[KeysValues]:
        return [layer.crossattention.keys_values(visual_BME) for layer in self._layers()]

    def _run(
        self, ids_NS: Tensor, video: Sequence[Tensor | KeysValues]
    ) -> tuple[Tensor, list[KeysValues]]:
        """Hidden states and the text's keys and values; each layer reads its entry of `video`."""
        x = self.bert.embeddings(ids_NS, 0)
        text = []
        for layer, seen in zip(self._layers(), video, strict=True):
            x, own = layer(x, seen, causal=True)
            text.append(own)
        return x, text
