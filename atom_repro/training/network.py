"""The network and the optimiser of a training, as its settings ask for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.config.schemas import TrainConfig
from atom_repro.models.vlm import Tokens, VideoLanguageModel
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.checkpointing import checkpoint_blocks
from atom_repro.training.components import choose_trained, is_visual
from atom_repro.training.optimisation import adamw, parameter_groups


class Words(Protocol):
    """What a loss needs to know of the texts: their tokenizer, and each token's rarity."""

    @property
    def tokenizer(self) -> Tokens: ...
    @property
    def rarity(self) -> Sequence[float]: ...


def training_network(
    model: VideoLanguageModel,
    words: Words,
    settings: TrainConfig,
    start: Checkpoint | None = None,
) -> CaptioningModel:
    """Encoder and decoder with the loss, frozen, adapted and recomputed as asked.

    Args:
        start: weights to begin from, None for random ones.
    """
    network = CaptioningModel(
        model,
        words.tokenizer,
        word_weight=settings.word_weight,
        text_weight=settings.text_weight,
        rarity=words.rarity,
    )
    if start:
        start_from(start, network)
    choose_trained(
        network, model, settings.components, rank=settings.lora_rank, alpha=settings.lora_alpha
    )
    if settings.gradient_checkpointing:
        checkpoint_blocks(network)
    return network


def training_optimiser(network: CaptioningModel, settings: TrainConfig) -> Any:
    """AdamW over what is trained, in the groups of the settings' rule."""
    groups = parameter_groups(
        dict(network.named_parameters()),
        weight_decay=settings.weight_decay,
        decay_rule=settings.decay_rule,
        learning_rate=settings.learning_rate,
        visual_learning_rate=settings.visual_learning_rate,
        is_visual=is_visual(network.model),
    )
    return adamw(groups, betas=settings.betas)


def start_from(checkpoint: Checkpoint, network: CaptioningModel) -> str:
    """Fill the encoder and the decoder of a network that will be trained; the weights' label.

    The network needs the tokenizer before it is made: `starting_tokenizer`. Tensors are copied
    one at a time into the parameters that are there, so an optimiser made before stays valid.

    Raises:
        AtomError: no fp32 checkpoint there, of another model, or broken.
    """
    sides: tuple[tuple[Path, str, Any], ...] = (
        (checkpoint.encoder("fp32"), "video_encoder", network.encoder),
        (checkpoint.decoder("fp32"), "text_decoder", network.decoder),
    )
    label = ""
    for folder, kind, module in sides:
        label = module_files.read_config(folder, kind, network.model)["weights"]
        module_files.fill_in_place(module, folder)
    return label
