"""The steps of captioning a batch of clips: read frames, encode, generate (paper A.1, step 2).

`Runtime.caption` runs them as stages of a session; training calls them on the modules that it
trains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atom_repro.datatypes import AtomError, Clip, Failure, Prediction
from atom_repro.models.generation import Generated
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import EncoderConfig
from atom_repro.records.record import out_of_memory
from atom_repro.video.sampling import clip_frames

CaptionOutcome = Prediction | Failure


class ReadFrames(Protocol):
    """Reads the frames of a clip: see `clip_frames`."""

    def __call__(
        self, clip: Clip, *, frames: int, size: int
    ) -> tuple[npt.NDArray[np.uint8], str]: ...


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """A batch of clips on its way through captioning.

    Attributes:
        clips: all of them, in order.
        failures: of the clips that cannot be read, by their id.
        faults: what could not be seen of clips that are read in part, by their id.
        frames: (B, T, 3, H, W) uint8 of the others; None where there is none, or once encoded.
        visual: visual tokens of the others, once encoded.
    """

    clips: tuple[Clip, ...]
    failures: Mapping[str, Failure]
    faults: Mapping[str, str]
    frames: Tensor | None = None
    visual: VisualTokens | None = None

    @property
    def item(self) -> str:
        """The name of the batch on a timeline."""
        return batch_name(self.clips)

    @property
    def readable(self) -> list[Clip]:
        """The clips of `frames` and `visual`, in order."""
        return [clip for clip in self.clips if clip.video_id not in self.failures]

    def outcomes(self, generated: Sequence[Generated]) -> list[CaptionOutcome]:
        """One outcome for each clip, in order.

        Args:
            generated: captions of the readable clips.
        """
        outcomes: dict[str, CaptionOutcome] = dict(self.failures)
        for clip, one in zip(self.readable, generated, strict=True):
            outcomes[clip.video_id] = Prediction(
                clip.video_id,
                one.text,
                one.token_ids,
                one.log_prob,
                self.faults.get(clip.video_id, ""),
            )
        return [outcomes[clip.video_id] for clip in self.clips]


def batch_name(clips: Sequence[Clip]) -> str:
    """Name of a batch on a timeline: its clip's id, or the first and how many more."""
    first, more = clips[0].video_id, len(clips) - 1
    return f"{first} +{more}" if more else first


def read_clips(
    clips: Sequence[Clip], encoder: EncoderConfig, read_frames: ReadFrames = clip_frames
) -> ClipBatch:
    """Read the frames that an encoder takes. A clip that is known to be missing or corrupt, or
    cannot be read, is a failure; the others go on.

    Raises:
        MemoryError: too little memory for the frames.
    """
    frames, failures, faults = [], {}, {}
    for clip in clips:
        if clip.status not in ("ok", "partial"):
            failures[clip.video_id] = _failure(clip, clip.detail or f"{clip.path}: {clip.status}")
            continue
        try:
            pixels, fault = read_frames(clip, frames=encoder.frames, size=encoder.image_size)
        except Exception as error:
            # A damaged file can break a demuxer in any way. Errors of the encoder or the decoder
            # are not caused by a clip, and end the stage.
            if out_of_memory(error):
                raise MemoryError(f"no memory left to read {clip.path}; free some") from error
            message = str(error) if isinstance(error, AtomError) else f"{clip.path}: {error!r}"
            failures[clip.video_id] = _failure(clip, message)
            continue
        frames.append(pixels)
        if fault:
            faults[clip.video_id] = fault
    stacked = torch.from_numpy(np.stack(frames)) if frames else None
    return ClipBatch(tuple(clips), failures, faults, stacked)


def _failure(clip: Clip, message: str) -> Failure:
    return Failure(clip.video_id, "decode_video", " ".join(message.split()))
