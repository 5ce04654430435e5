"""Checks of a training's settings, before any work."""

import math

from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError

# Least values of counts, and of weights and rates.
_LEAST = {
    "batch_size": 1, "accumulate": 1, "captions_per_clip": 1, "candidates_per_segment": 1,
    "checkpoint_every": 1, "threads": 1, "validation_clips": 1, "lora_rank": 1, "text_words": 1,
    "text_captions": 1, "text_every": 0, "text_batch_size": 0, "text_questions": 0,
    "text_easy_steps": 0, "validation_every": 0, "warmup_steps": 0, "word_weight": 0.0,
    "text_weight": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "floor_learning_rate": 0.0,
    "image_steps": 0,
}  # fmt: skip

# A step moves every weight by about the learning rate at most; weights are below 1.
_HIGHEST_RATE = 1.0


def require_sensible(settings: TrainConfig, scale: str) -> None:
    """Check that the settings ask for at least one step, and for nothing that cannot train.

    Raises:
        AtomError: they do not; names the setting.
    """
    if not settings.epochs and settings.max_steps < 1:
        raise AtomError(
            f"train.max_steps={settings.max_steps} and train.epochs is not set: there is nothing "
            f"to train at scale={scale}; set one of them"
        )
    if settings.epochs is not None and settings.epochs < 0:
        raise AtomError(f"train.epochs={settings.epochs}: must be at least 1, or null")
    for key, least in _LEAST.items():
        value = getattr(settings, key)
        if not (math.isfinite(value) and value >= least):
            raise AtomError(f"train.{key}={value}: must be at least {least}")
    for key in ("learning_rate", "visual_learning_rate", "image_learning_rate"):
        value = getattr(settings, key)
        if value is not None and not 0 < value <= _HIGHEST_RATE:
            raise AtomError(f"train.{key}={value}: must be above 0 and at most {_HIGHEST_RATE:g}")
    if settings.optimiser not in ("adamw", "muon"):
        raise AtomError(f"train.optimiser={settings.optimiser!r} is neither 'adamw' nor 'muon'")
    if settings.optimiser == "muon" and settings.shard:
        raise AtomError(
            "train.optimiser=muon needs whole matrices, which train.shard=true splits; set "
            "train.optimiser=adamw, and a train.learning_rate for it (2e-3 at tiny scale)"
        )
    betas = list(settings.betas)
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise AtomError(f"train.betas={betas}: must be two numbers from 0 on and below 1")
    mix = dict(settings.text_mix)
    if not all(math.isfinite(share) and share >= 0 for share in mix.values()) or not any(
        mix.values()
    ):
        raise AtomError(f"train.text_mix={mix}: shares must be at least 0, and not all of them 0")
