"""Protocols of a video-language model: an encoder and a decoder that are called separately.

A `conf/model` file builds a `VideoLanguageModel`: the architecture, without weights. Engines
build, load, save and call its modules through the protocols below, independent of the model
family; a new family is one file of this folder and one YAML.

The model is split as in the paper (section 4): the encoder maps frames to visual tokens in the
decoder's width, the decoder maps a prompt, which may contain visual tokens, to text. Neither
keeps state between calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from atom_repro.models.exported import DecoderExport
from atom_repro.models.visual_tokens import VisualTokens


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens of a model family: begin, end, padding, and `others` that its prompt needs."""

    begin: str = "<|begin_of_text|>"
    end: str = "<|end_of_text|>"
    pad: str = "<|finetune_right_pad_id|>"
    others: tuple[str, ...] = ()


class TokenizerProtocol(Protocol):
    """The tokenizer interface that a model needs to build a prompt."""

    begin_id: int
    end_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]: ...
    def special_id(self, token: str) -> int: ...


class EncoderConfig(Protocol):
    """Dimensions of an encoder: T frames of H = W = `image_size`, M tokens of `output_width`.
    `frames_apart` says whether all tokens are of single frames, and depend on that frame alone."""

    @property
    def frames(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def visual_tokens(self) -> int: ...
    @property
    def output_width(self) -> int: ...
    @property
    def frames_apart(self) -> bool: ...

    def to_dict(self) -> dict[str, Any]: ...


class DecoderConfig(Protocol):
    """Dimensions of a decoder."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def max_positions(self) -> int: ...

    def to_dict(self) -> dict[str, Any]: ...


class Network(Protocol):
    """A module with checkpoint files. `tied` maps a parameter to the one whose weight it shares."""

    tied: Mapping[str, str]

    def checkpoint_state_dict(self) -> dict[str, Tensor]:
        """State dict (fp32) in the names and shapes of checkpoint files; tied ones may repeat."""
        ...

    def init_buffers(self) -> None:
        """Create the non-persistent buffers; needed again after building on the meta device."""
        ...


class Cache(Protocol):
    """KV cache of one generation, owned by its caller. B clips, K beams."""

    def open(self, beams: int, max_new_tokens: int) -> None: ...
    def reorder(self, parent_BK: Tensor) -> None: ...
    def keep(self, rows: Tensor) -> None: ...


class EncoderNetwork(Network, Protocol):
    """Frames (B, T, 3, H, W) uint8 to the visual tokens of B clips."""

    def __call__(self, frames_BTCHW: Tensor) -> VisualTokens: ...


class DecodingNetwork(Protocol):
    """A language model that takes visual tokens, in its prompt or by cross-attention, whether its
    layers run in PyTorch or elsewhere."""

    def start(self, visual: VisualTokens | None, ids: Sequence[int]) -> tuple[Tensor, Any]:
        """Prefill with a prompt: logits of the first token (B, V), and the `Cache` for `step`.

        Args:
            visual: of the clips, or None for text alone (B = 1).
            ids: the prompt, with `VISUAL_PLACEHOLDER` at the positions of visual tokens, if any.
        """
        ...

    def step(self, ids_BK: Tensor, cache: Any) -> Tensor:
        """Append one token to every beam: logits of the next one (B, K, V)."""
        ...


class DecoderNetwork(Network, DecodingNetwork, Protocol):
    """A decoder in PyTorch."""


class VideoLanguageModel(Protocol):
    """A model architecture. `prompt` asks for a caption; `writes_text` says whether the decoder
    works without a video, and so can write scripts, summaries and answers. `unscored_ids` is how
    many ids at the beginning of a caption's `training_ids` have no part in `caption_loss`."""

    @property
    def name(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def unscored_ids(self) -> int: ...
    @property
    def writes_text(self) -> bool: ...
    @property
    def specials(self) -> SpecialTokens: ...
    @property
    def encoder(self) -> EncoderConfig: ...
    @property
    def decoder(self) -> DecoderConfig: ...

    @property
    def decoder_export(self) -> DecoderExport | None:
        """How the decoder is exported for engines that run files; None if it cannot be."""
        ...

    @property
    def components(self) -> Mapping[str, Sequence[str]]:
        """Parameter groups for training: a name and `fnmatch` patterns of its parameters, named
        `encoder.<name>` and `decoder.<name>`. The released video foundation model is `visual.clip`
        and `visual.temporal`; every parameter belongs to exactly one group."""
        ...

    def make_encoder(self) -> nn.Module: ...
    def make_decoder(self) -> nn.Module: ...

    def prompt_ids(
        self, tokenizer: TokenizerProtocol, text: str, *, visual: VisualTokens | None
    ) -> list[int]:
        """Token ids of a prompt, with begin token, chat template and `VISUAL_PLACEHOLDER`s."""
        ...

    def training_ids(self, tokenizer: TokenizerProtocol, caption: str) -> list[int]:
        """Target ids of a caption for `caption_loss`, end-of-sequence included."""
        ...

    def clean_text(self, text: str) -> str:
        """Extract the caption or answer from a decoded text, without what the family adds."""
        ...

    def caption_loss(
        self,
        decoder: Any,
        visual: VisualTokens,
        captions_BRL: Tensor,
        tokenizer: TokenizerProtocol,
    ) -> Tensor:
        """Mean cross-entropy of R captions per clip: ids with end-of-sequence, padded."""
        ...
