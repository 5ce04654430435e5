"""Protocols of an inference engine and of the modules that it loads.

An engine reads the folders of `checkpoints` and gives back modules that can be called. It is chosen
by `conf/engine`; a new one is a file here and one there. Runtime and evaluation know these
protocols only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.device.limits import Kernels
from atom_repro.models.generation import Generated, GenerationSettings
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser


class Module(Protocol):
    """A loaded module. Calls are stateless and thread-safe."""

    def release(self) -> None:
        """Free the weights; the module is not called again.

        Raises:
            RuntimeError: something else still references them.
        """
        ...


class Encoder(Module, Protocol):
    """Encode frames (B, T, 3, H, W) uint8 as the visual tokens of B clips."""

    def __call__(self, frames_BTCHW: Tensor) -> VisualTokens: ...


class Batch(Protocol):
    """Clips that are captioned in shared decoding steps, joining and leaving at any time."""

    def add(self, number: int, visual: VisualTokens) -> Mapping[int, Generated]:
        """Let one clip join; its result if it is done with its first token.

        Args:
            number: that names the clip in results.

        Raises:
            AtomError: clips cannot join on this engine.
        """
        ...

    def advance(self, most_steps: int) -> Mapping[int, Generated]:
        """Decode until a clip is done, at most so many steps; the results of those that are."""
        ...


class Decoder(Module, Protocol):
    """Generate text from a prompt, with or without visual tokens, or score given texts."""

    def generate(
        self, visual: VisualTokens | None, prompt: str, settings: GenerationSettings
    ) -> list[Generated]:
        """Generate a continuation for each clip of `visual`, or one of the prompt alone.

        Raises:
            AtomError: no visual tokens, and the model has to see a video.
        """
        ...

    def batch(self, prompt: str, settings: GenerationSettings) -> Batch:
        """An empty batch of clips, of this prompt. A decoder has one at a time."""
        ...

    def score(
        self, visual: VisualTokens | None, prompt: str, continuations: Sequence[str]
    ) -> list[list[tuple[float, ...]]]:
        """Log-probability of each token of each continuation, without end-of-sequence; one list for
        each clip of `visual`, or one for the prompt alone.

        The prompt is read once. Two continuations compare by their sums (yes or no), texts of
        unequal length by their means.

        Raises:
            AtomError: as `generate`, or a continuation is empty.
        """
        ...


class Embedder(Module, Protocol):
    """Embed texts as unit vectors (B, 384) in main memory."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...


class Engine(Protocol):
    """Loads modules from checkpoint folders.

    A load returns when the module can be called and its first call is no slower than the next: an
    engine that defers work does it in the load.
    """

    @property
    def name(self) -> str:
        """The name of the engine in `conf/engine` and in records."""
        ...

    @property
    def any_threads(self) -> bool:
        """Whether a call can use as many threads as torch has; else it uses one or all."""
        ...

    def prepare(
        self, checkpoint: Checkpoint, quantiser: Quantiser, model: VideoLanguageModel, embedder: str
    ) -> None:
        """Make what a load needs beside the modules of the checkpoint, if it is missing.

        Args:
            embedder: as the source of `load_embedder`.

        Raises:
            AtomError: this engine cannot run the model or the recipe, or its package is missing.
            MemoryError: too little memory to make it.
        """
        ...

    def module_bytes(
        self, checkpoint: Checkpoint, quantiser: Quantiser, model: VideoLanguageModel, embedder: str
    ) -> Mapping[str, int]:
        """Bytes of the files that a load of `encoder`, `decoder` and `embedder` reads.

        Raises:
            AtomError: a module is missing.
        """
        ...

    def load_encoder(
        self, folder: Path, model: VideoLanguageModel, quantiser: Quantiser, device: torch.device
    ) -> Encoder:
        """Load the encoder of `model`.

        Raises:
            AtomError: missing files, another kind of module, other hyperparameters or recipe.
        """
        ...

    def load_decoder(
        self, folder: Path, model: VideoLanguageModel, quantiser: Quantiser, device: torch.device
    ) -> Decoder:
        """Load the decoder of `model` and its tokenizer; raises as `load_encoder`."""
        ...

    def load_embedder(self, source: str, device: torch.device) -> Embedder:
        """Load the text embedder: the bundled copy, a hub id or a folder."""
        ...

    def matmul_kernels(self) -> Kernels:
        """Kernels to calibrate a device with: by precision (fp32, bf16, int8), then by name. The
        fastest of a precision is the limit that its matrix products are held against."""
        ...
