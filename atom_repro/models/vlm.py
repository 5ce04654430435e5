"""What a video-language model is to the rest of the package: two modules that are called apart.

A `conf/model` file builds a `VideoLanguageModel`: the architecture, without weights or memory.
Engines make, fill, save and call its modules through the protocols below and know no family; a
new family is one file of this folder and one YAML.

The cut is where the paper makes it (section 4): the encoder turns frames to visual tokens in the
decoder's width, the decoder turns a prompt, in which visual tokens may stand, to text. Neither
keeps anything of a clip between calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from atom_repro.datatypes import AtomError

# Stands in a prompt's ids where the next visual token goes.
VISUAL = -1


@dataclass(frozen=True)
class Specials:
    """The tokens that a family begins with, ends with and pads with, and others of its prompt."""

    begin: str = "<|begin_of_text|>"
    end: str = "<|end_of_text|>"
    pad: str = "<|finetune_right_pad_id|>"
    others: tuple[str, ...] = ()


class Tokens(Protocol):
    """What a model needs of a tokenizer to lay out a prompt."""

    begin_id: int
    end_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]: ...
    def special_id(self, token: str) -> int: ...


class EncoderNumbers(Protocol):
    """Sizes of an encoder: T frames of H = W = `image_size`, M visual tokens of `output_width`."""

    @property
    def frames(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def visual_tokens(self) -> int: ...
    @property
    def output_width(self) -> int: ...

    def to_dict(self) -> dict[str, Any]: ...


class DecoderNumbers(Protocol):
    """Sizes of a decoder."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def max_positions(self) -> int: ...

    def to_dict(self) -> dict[str, Any]: ...


class Network(Protocol):
    """A module that files can hold. `tied` maps a parameter's name to that of the one it is."""

    tied: Mapping[str, str]

    def file_state(self) -> dict[str, Tensor]:
        """The fp32 weights under the names and shapes of files; a tied one may stand twice."""
        ...

    def restore_constants(self) -> None:
        """Make what no file holds; needed again after a module was built without memory."""
        ...


class Cache(Protocol):
    """The state of one generation, owned by its caller. B clips, K beams."""

    def open(self, beams: int, room: int) -> None: ...
    def reorder(self, parent_BK: Tensor) -> None: ...
    def keep(self, rows: Tensor) -> None: ...


class EncoderNetwork(Network, Protocol):
    """Frames (B, T, 3, H, W) uint8 to visual tokens (B, M, E)."""

    def __call__(self, frames_BTCHW: Tensor) -> Tensor: ...


class DecoderNetwork(Network, Protocol):
    """A language model that reads visual tokens, whichever way it does."""

    def start(self, visual_BME: Tensor | None, ids: Sequence[int]) -> tuple[Tensor, Any]:
        """Read a prompt: logits of the first token (B, V), and the `Cache` to go on with.

        Args:
            visual_BME: the clips' visual tokens, or None for text alone (B = 1).
            ids: the prompt, with `VISUAL` where visual tokens stand if they stand in it.
        """
        ...

    def step(self, ids_BK: Tensor, cache: Any) -> Tensor:
        """Append one token to every beam: logits of the one after it (B, K, V)."""
        ...


class VideoLanguageModel(Protocol):
    """An architecture. `prompt` asks for a caption; `writes_text` says whether the decoder can
    work without a video, and so serve scripts, summaries and answers."""

    @property
    def name(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def writes_text(self) -> bool: ...
    @property
    def specials(self) -> Specials: ...
    @property
    def encoder(self) -> EncoderNumbers: ...
    @property
    def decoder(self) -> DecoderNumbers: ...

    @property
    def components(self) -> Mapping[str, Sequence[str]]:
        """Patterns (`fnmatch`) of the parameters of each part that training treats as one, named
        `encoder.<name>` and `decoder.<name>`. What a video foundation model was released with is
        `visual.clip` and `visual.temporal`; together the parts are all parameters, each once."""
        ...

    def make_encoder(self) -> nn.Module: ...
    def make_decoder(self) -> nn.Module: ...

    def prompt_ids(self, tokenizer: Tokens, text: str, *, visual: bool) -> list[int]:
        """The ids of a request, with its begin token, chat template and `VISUAL` places."""
        ...

    def training_ids(self, tokenizer: Tokens, caption: str) -> list[int]:
        """What `caption_loss` takes for a caption: its ids, end-of-sequence included."""
        ...

    def said(self, text: str) -> str:
        """The caption or answer in a decoded text; undoes a family's quirks."""
        ...

    def caption_loss(
        self, decoder: Any, visual_BME: Tensor, captions_BRL: Tensor, tokenizer: Tokens
    ) -> Tensor:
        """Mean cross-entropy of R captions a clip, ids with end-of-sequence, padded."""
        ...


def lay_out(embedded_PE: Tensor, ids: Sequence[int], visual_BME: Tensor | None) -> Tensor:
    """A prompt's embeddings (B, P, E) with the visual tokens in their places.

    Args:
        embedded_PE: an embedding for each id; what stands at `VISUAL` is overwritten.

    Raises:
        AtomError: as many places as visual tokens are needed.
    """
    places = torch.tensor([i for i, token in enumerate(ids) if token == VISUAL], dtype=torch.long)
    if visual_BME is None:
        if len(places):
            raise AtomError("the prompt has places for visual tokens, and there is no video")
        return embedded_PE[None]
    if len(places) != visual_BME.shape[1]:
        raise AtomError(
            f"the prompt has {len(places)} places for {visual_BME.shape[1]} visual tokens; the "
            "encoder and the model's prompt do not belong together"
        )
    laid = embedded_PE.expand(visual_BME.shape[0], -1, -1)
    return laid.index_copy(1, places.to(laid.device), visual_BME.to(laid.dtype))
