"""Batches of single frames with the captions of their clips, for the steps before captioning.

A clip's frames are alike; as many frames of as many clips say more about what things look like.
"""

from typing import Any

import numpy as np
import torch

from atom_repro.config.schemas import TrainConfig
from atom_repro.models.video_encoder import VideoEncoder
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.training.batches import CaptionBatches


def image_steps(settings: TrainConfig, model: VideoLanguageModel) -> int:
    """Steps of single frames that a training begins with: `train.image_steps`, none where weights
    are given to start from, or the encoder is no `VideoEncoder` with a convolutional stem, which is
    what they train."""
    has_stem = getattr(model.encoder, "stem", "") == "conv"
    if settings.start or not settings.image_steps or not has_stem:
        return 0
    with torch.device("meta"):
        return settings.image_steps if isinstance(model.make_encoder(), VideoEncoder) else 0


class ImageBatches:
    """Batches by step number: a random frame of each of `size` random clips, and all captions of
    the clip. Clips, frames and augmentation are those of `captions`.

    Args:
        size: frames of a batch, over all processes.
    """

    def __init__(self, captions: CaptionBatches, *, size: int) -> None:
        self._captions, self.size = captions, size
        self._most = max(map(len, captions.captions))
        self._longest = max(len(ids) for of_clip in captions.captions for ids in of_clip)

    def __call__(self, step: int, rows: slice) -> dict[str, Any]:
        """Frames (F, 3, S, S) uint8 and the ids of captions (F, R, L), padded, of some rows."""
        captions, bank = self._captions, self._captions.bank
        rng = np.random.default_rng((captions.seed, 4, step))
        clips = rng.integers(0, len(captions.captions), self.size)
        picks = rng.integers(0, bank.pixels.shape[1], self.size)
        pixels = bank.pixels[clips[rows], picks[rows]]
        drawn = [captions.augmentation.draw(rng, pixels.shape[1]) for _ in clips]
        for row, parameters in enumerate(drawn[rows]):
            pixels[row] = captions.augmentation.apply(pixels[row, None], parameters)[0]
        ids = np.full((len(pixels), self._most, self._longest), captions.pad_id, np.int64)
        for row, clip in enumerate(clips[rows]):
            for number, caption in enumerate(captions.captions[clip]):
                ids[row, number, : len(caption)] = caption
        return {"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), "image_captions": ids}
