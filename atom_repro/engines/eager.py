"""The eager PyTorch engine: loads module folders as networks and runs them.

This is the only engine of the package today; an exported one would read the same folders.
"""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from atom_repro.checkpoints.module_files import DECODER, ENCODER, TRAINED, read_module
from atom_repro.datatypes import AtomError
from atom_repro.device.limits import Kernels
from atom_repro.engines.cpu_kernels import (
    int8_product,
    use_fp32_int8_linear,
    use_small_batch_linear,
)
from atom_repro.models.generation import (
    Generated,
    GenerationSettings,
    generate,
    score_continuations,
)
from atom_repro.models.text_embedder import TextEmbedder, load_text_embedder
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import DecoderNetwork, EncoderNetwork, VideoLanguageModel
from atom_repro.quant.recipe import Quantiser

_CPU = torch.device("cpu")


class _Releasable:
    """A module whose weights are those of `network`."""

    network: Any

    def release(self) -> None:
        network_ref = weakref.ref(self.network)
        del self.network
        if network_ref() is not None:
            gc.collect()  # a cycle inside the network; the next load must find the memory free
        if network_ref() is not None:
            raise RuntimeError("the network is still referenced after its release")


@dataclass
class EncoderModule(_Releasable):
    """Encode frames (B, T, 3, H, W) uint8 to visual tokens. Stateless, thread-safe."""

    network: EncoderNetwork
    weights: str
    device: torch.device = _CPU

    @torch.inference_mode()
    def __call__(self, frames_BTCHW: Tensor) -> VisualTokens:
        return self.network(frames_BTCHW.to(self.device))


@dataclass
class DecoderModule(_Releasable):
    """Generate text from a prompt, with or without visual tokens. Stateless, thread-safe."""

    network: DecoderNetwork
    model: VideoLanguageModel
    tokenizer: Tokenizer
    weights: str

    @torch.inference_mode()
    def generate(
        self, visual: VisualTokens | None, prompt: str, settings: GenerationSettings
    ) -> list[Generated]:
        start = self._prefill(visual, prompt)
        end_id = self.tokenizer.end_id
        return [
            replace(one, text=self.model.clean_text(self.tokenizer.decode(one.token_ids)))
            for one in generate(self.network, start, end_id=end_id, settings=settings)
        ]

    @torch.inference_mode()
    def score(
        self, visual: VisualTokens | None, prompt: str, continuations: Sequence[str]
    ) -> list[list[tuple[float, ...]]]:
        ids = [self.tokenizer.encode(text) for text in continuations]
        if not ids or not all(ids):
            raise AtomError("a continuation to score is empty, or there is none; leave it out")
        return score_continuations(self.network, self._prefill(visual, prompt), ids)

    def _prefill(self, visual: VisualTokens | None, prompt: str) -> tuple[Tensor, Any]:
        if visual is None and not self.model.writes_text:
            raise AtomError(
                f"the decoder of model={self.model.name} cannot write without a video; choose a "
                "model whose decoder serves text tasks, such as mplug2plus"
            )
        ids = self.model.prompt_ids(self.tokenizer, prompt, visual=visual)
        return self.network.start(visual, ids)


@dataclass
class EmbedderModule(_Releasable):
    """Embed texts as unit vectors (B, 384) in main memory. Stateless, thread-safe."""

    network: TextEmbedder

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.network(texts).cpu()


@dataclass(frozen=True)
class EagerEngine:
    """Engine that calls the networks as they are."""

    name: str = "eager"

    def load_encoder(
        self,
        folder: Path,
        model: VideoLanguageModel,
        quantiser: Quantiser = TRAINED,
        device: torch.device = _CPU,
    ) -> EncoderModule:
        """Load the encoder of `model` onto a device.

        Raises:
            AtomError: missing files, another kind of module, or other hyperparameters.
        """
        loaded, config = read_module(folder, model, ENCODER, quantiser)
        network = cast(EncoderNetwork, _prepare(loaded, device))
        return EncoderModule(network, config["weights"], device)

    def load_decoder(
        self,
        folder: Path,
        model: VideoLanguageModel,
        quantiser: Quantiser = TRAINED,
        device: torch.device = _CPU,
    ) -> DecoderModule:
        """Load the decoder of `model` and its tokenizer onto a device.

        Raises:
            AtomError: missing files, another kind of module, or other hyperparameters.
        """
        loaded, config = read_module(folder, model, DECODER, quantiser)
        tokenizer = Tokenizer.load(folder, model.specials)
        network = cast(DecoderNetwork, _prepare(loaded, device))
        return DecoderModule(network, model, tokenizer, config["weights"])

    def load_embedder(self, source: str, device: torch.device = _CPU) -> EmbedderModule:
        """Load the text embedder: the embedded copy, a hub id or a folder."""
        return EmbedderModule(load_text_embedder(source, device=str(device)))

    def matmul_kernels(self) -> Kernels:
        return {
            "fp32": {"torch.mm": torch.mm},
            "bf16": {"torch.mm": torch.mm},
            "int8": {"torch._int_mm": torch._int_mm, "fp32 products of int8": _int8_as_fp32},
        }


def build() -> EagerEngine:
    """Build the engine of `conf/engine/eager.yaml`."""
    return EagerEngine()


def _int8_as_fp32(a: Tensor, b: Tensor) -> Tensor:
    return int8_product(a, b.t())


def _prepare(network: nn.Module, device: torch.device) -> nn.Module:
    if device.type == "cpu":
        use_small_batch_linear(network)
        use_fp32_int8_linear(network)
    return network.eval().to(device)
