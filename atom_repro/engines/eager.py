"""The eager PyTorch engine: loads module folders as networks and calls them as they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import DECODER, ENCODER, TRAINED, read_module
from atom_repro.device.limits import Kernels
from atom_repro.engines.cpu_kernels import (
    int8_product,
    use_fp32_int8_linear,
    use_small_batch_linear,
)
from atom_repro.engines.modules import DecoderModule, EmbedderModule, EncoderModule
from atom_repro.models.text_embedder import load_text_embedder, weight_file_bytes
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import DecoderNetwork, EncoderNetwork, VideoLanguageModel
from atom_repro.quant.recipe import Quantiser

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class EagerEngine:
    """Engine that calls the networks as they are."""

    name: str = "eager"
    any_threads: bool = True

    def prepare(
        self, checkpoint: Checkpoint, quantiser: Quantiser, model: VideoLanguageModel, embedder: str
    ) -> None:
        """Do nothing: the files of the checkpoint are what a load reads."""

    def module_bytes(
        self, checkpoint: Checkpoint, quantiser: Quantiser, model: VideoLanguageModel, embedder: str
    ) -> dict[str, int]:
        return {**checkpoint.bytes(quantiser), "embedder": weight_file_bytes(embedder)}

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
