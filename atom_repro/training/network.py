"""Network and optimiser of a training, built from its settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.config.schemas import TrainConfig
from atom_repro.engines.engine import Decoder, Encoder
from atom_repro.engines.modules import DecoderModule, EncoderModule
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import (
    DecoderNetwork,
    EncoderNetwork,
    TokenizerProtocol,
    VideoLanguageModel,
)
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.checkpointing import checkpoint_blocks
from atom_repro.training.components import choose_trained, is_visual
from atom_repro.training.image_batches import image_steps
from atom_repro.training.muon import hidden_matrices
from atom_repro.training.optimisation import optimiser, parameter_groups


class TokenStatistics(Protocol):
    """Tokenizer and token rarities of the training texts, for the losses."""

    @property
    def tokenizer(self) -> TokenizerProtocol: ...
    @property
    def rarity(self) -> Sequence[float]: ...


def training_network(
    model: VideoLanguageModel,
    statistics: TokenStatistics,
    settings: TrainConfig,
    start: Checkpoint | None = None,
) -> CaptioningModel:
    """Encoder and decoder with the loss; frozen, LoRA and recomputed parts as the settings say.

    Args:
        start: checkpoint with the initial weights, None for random ones.
    """
    network = CaptioningModel(
        model,
        statistics.tokenizer,
        word_weight=settings.word_weight,
        text_weight=settings.text_weight,
        rarity=statistics.rarity,
        reads_images=image_steps(settings, model) > 0,
    )
    if start:
        load_initial_weights(start, network)
    choose_trained(
        network, model, settings.components, rank=settings.lora_rank, alpha=settings.lora_alpha
    )
    if settings.gradient_checkpointing:
        checkpoint_blocks(network)
    return network


def training_optimiser(network: CaptioningModel, settings: TrainConfig) -> Any:
    """Optimiser of the trainable parameters, grouped by the settings' decay rule and rates."""
    orthogonal = set[int]()
    if settings.optimiser == "muon":
        orthogonal = hidden_matrices(network, network.model.decoder.vocabulary)
    groups = parameter_groups(
        dict(network.named_parameters()),
        weight_decay=settings.weight_decay,
        decay_rule=settings.decay_rule,
        learning_rate=settings.learning_rate,
        visual_learning_rate=settings.visual_learning_rate,
        is_visual=is_visual(network.model),
        orthogonal=orthogonal,
    )
    return optimiser(groups, betas=settings.betas)


def load_initial_weights(checkpoint: Checkpoint, network: CaptioningModel) -> str:
    """Load a checkpoint's encoder and decoder into `network` in place; return the weights' label.

    The network is built with the checkpoint's tokenizer: `starting_tokenizer`. Tensors are copied
    one at a time into the existing parameters, so an optimiser made before stays valid.

    Raises:
        AtomError: the fp32 checkpoint is missing, broken, or of another model.
    """
    modules: tuple[tuple[Path, str, Any], ...] = (
        (checkpoint.encoder(), module_files.ENCODER, network.encoder),
        (checkpoint.decoder(), module_files.DECODER, network.decoder),
    )
    label = ""
    for folder, kind, module in modules:
        label = module_files.read_config(folder, kind, network.model)["weights"]
        module_files.fill_in_place(module, folder)
    return label


def inference_modules(network: CaptioningModel, tokenizer: Tokenizer) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of a network as modules that generate, with its weights as they are."""
    model, device = network.model, next(network.parameters()).device
    encoder, decoder = cast(EncoderNetwork, network.encoder), cast(DecoderNetwork, network.decoder)
    return (
        EncoderModule(encoder, "training", device=device),
        DecoderModule(decoder, model, tokenizer, "training"),
    )
