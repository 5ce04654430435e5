"""The network and the optimiser of a training, as its settings ask for them."""

from typing import Any

from atom_repro.config.schemas import TrainConfig
from atom_repro.engines.checkpoints import Checkpoint
from atom_repro.engines.conversion import start_from
from atom_repro.engines.training_data import TrainingData
from atom_repro.models.captioning_model import CaptioningModel
from atom_repro.models.checkpointing import checkpoint_blocks
from atom_repro.models.components import choose_trained, is_visual
from atom_repro.models.optimisation import adamw, parameter_groups
from atom_repro.models.vlm import VideoLanguageModel


def training_network(
    model: VideoLanguageModel,
    data: TrainingData,
    settings: TrainConfig,
    start: Checkpoint | None = None,
) -> CaptioningModel:
    """Encoder and decoder with the loss, frozen, adapted and recomputed as asked.

    Args:
        start: weights to begin from, None for random ones.
    """
    network = CaptioningModel(
        model,
        data.tokenizer,
        word_weight=settings.word_weight,
        text_weight=settings.text_weight,
        rarity=data.rarity,
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
