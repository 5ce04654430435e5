"""One clip as a video encoder takes it."""

from typing import Any

import numpy as np

from atom_repro.datatypes import Clip
from atom_repro.video.sampling import read_frames


def clip_frames(clip: Clip, *, frames: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Segment centres of a clip's window: (T, 3, H, W) uint8.

    Raises:
        VideoError: not one frame of the window can be decoded.
    """
    read = read_frames(
        clip.path,
        frames=frames,
        size=size,
        sampling="centre",
        start_s=clip.start_s,
        end_s=clip.end_s,
    )
    return np.ascontiguousarray(read.pixels.transpose(0, 3, 1, 2))
