"""Disk space that a training takes."""

from typing import Any

import torch

from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError
from atom_repro.models.vlm import VideoLanguageModel


def training_bytes(
    model: VideoLanguageModel, dataset: Any, settings: TrainConfig, generated_clips: int
) -> dict[str, int]:
    """About how many bytes a training of all parameters writes, by what they are.

    Args:
        generated_clips: number of training clips of a data set that is not there yet.
    """
    with torch.device("meta"):
        networks: Any = (model.make_encoder(), model.make_decoder())
    parameters = sum(p.numel() for network in networks for p in network.parameters())
    try:
        clips = len(dataset.clips("train"))
    except AtomError:
        clips = generated_clips
    frames = model.encoder.frames * settings.candidates_per_segment
    return {
        "fp32 modules": 4 * parameters,
        "training state": 12 * parameters,  # the weights and two moments
        "decoded frames": clips * frames * 3 * model.encoder.image_size**2,
    }
