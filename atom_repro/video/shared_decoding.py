"""Frames of clips that are read in order, each decoded once where windows of one video overlap.

The decoder of a video stays open from one clip to the next where the next would decode again what
this one has passed; frames that several clips need are kept, resized. Pixels are those of
`clip_frames`, as an intact video decodes to the same from any keyframe. A clip that is damaged, or
whose frames have no timestamps, is left to `clip_frames`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from atom_repro.datatypes import Clip
from atom_repro.video.display import Display
from atom_repro.video.file import DecodedFrames, VideoError, open_video, video_stream
from atom_repro.video.frame_times import frame_on_screen, read_frame_times, sample_indices
from atom_repro.video.sampling import clip_frames, resized_upright


@dataclass(frozen=True)
class _Plan:
    """What a clip needs of its video: the key of each sampled frame, in order; the frame that
    decoding would begin at, and the first that it would give.
    """

    path: Path
    keys: list[int]
    seek_key: int | None
    first_key: int


class SharedDecoding:
    """Reads clips as `clip_frames` does, each at most once, in the order of `clips`.

    Args:
        clips: that will be read. One that is not among them is read by `clip_frames`.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips
        self._next = 0
        self._open: _OpenVideo | None = None
        self._plans: dict[int, _Plan | None] = {}

    def __call__(self, clip: Clip, *, frames: int, size: int) -> tuple[npt.NDArray[np.uint8], str]:
        """Centre-sampled frames of a clip's window, and what could not be seen of it: see
        `clip_frames`.

        Raises:
            VideoError: no frame of the window can be decoded.
        """
        at = self._position(clip)
        pixels = None if at is None else self._shared(at, frames, size)
        if pixels is None:
            self._open = None
            return clip_frames(clip, frames=frames, size=size)
        return pixels, ""  # what is damaged is not shared

    def _position(self, clip: Clip) -> int | None:
        for at in range(self._next, len(self._clips)):
            if self._clips[at] is clip:
                self._next = at + 1
                return at
        return None

    def _shared(
        self, at: int, frames: int, size: int
    ) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        """The frames of a clip from the open video; None where it has to be read by itself."""
        path = self._clips[at].path
        if self._open is not None and self._open.path != path:
            self._open = None
        followed = at + 1 < len(self._clips) and self._clips[at + 1].path == path
        if self._open is None and not followed:
            return None
        plan = self._plan(at, frames)
        if plan is None:
            return None
        later = self._overlapping(at, frames)
        try:
            if self._open is None or not self._open.can_give(plan):
                self._open = None
                self._open = _OpenVideo(plan)
            pixels = self._open.read(plan, {key for other in later for key in other.keys}, size)
        except (VideoError, FFmpegError):
            return None
        if pixels is None:
            return None
        following = self._plan(at + 1, frames) if followed else None
        if following is None or not self._open.can_give(following):
            self._open = None
        return pixels

    def _overlapping(self, at: int, frames: int) -> list[_Plan]:
        """The plans of the clips behind this one whose windows begin inside its own."""
        clip, plans = self._clips[at], list[_Plan]()
        for later in range(at + 1, len(self._clips)):
            other = self._clips[later]
            begins_inside = clip.end_s is None or other.start_s < clip.end_s
            if other.path != clip.path or not begins_inside:
                break
            if plan := self._plan(later, frames):
                plans.append(plan)
        return plans

    def _plan(self, at: int, frames: int) -> _Plan | None:
        if at not in self._plans:
            self._plans = {other: plan for other, plan in self._plans.items() if other >= at - 1}
            self._plans[at] = _plan_of(self._clips[at], frames)
        return self._plans[at]


def _plan_of(clip: Clip, frames: int) -> _Plan | None:
    """None where the window has to be read by itself: it is damaged, or its frames have no keys of
    their own."""
    if clip.end_s is not None and clip.end_s <= clip.start_s:
        return None
    try:
        times = read_frame_times(clip.path, clip.start_s, clip.end_s)
        if times.fault or not times.seekable:
            return None
        indices = sample_indices(clip.path, times, frames, clip.start_s, clip.end_s, None)
    except (VideoError, FFmpegError):
        return None
    begin = times.keys[frame_on_screen(times.times_s, clip.start_s)]
    return _Plan(
        clip.path,
        [times.keys[i] for i in indices],
        begin if clip.start_s > 0 else None,
        times.keys[0],
    )


class _OpenVideo:
    """A video that is being decoded, how far it is, and the frames that clips behind need."""

    def __init__(self, plan: _Plan) -> None:
        self.path = plan.path
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}
        self._last: int | None = None
        self._container = open_video(plan.path)
        stream = video_stream(self._container)
        if plan.seek_key is not None:
            self._container.seek(plan.seek_key, stream=stream)
        self._frames, self._display = DecodedFrames(self._container, stream), Display()

    def can_give(self, plan: _Plan) -> bool:
        """Whether the video can go on to a clip, and one opened anew would decode again what this
        one has passed."""
        if self._last is None or plan.first_key > self._last:
            return False
        return all(key > self._last or key in self._kept for key in plan.keys)

    def read(
        self, plan: _Plan, later: set[int], size: int
    ) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        """The frames of a clip, (T, 3, H, W); None where the video is damaged.

        Args:
            later: keys of frames that clips behind need; those that are passed are kept.
        """
        needed = set(plan.keys)
        missing = needed - self._kept.keys()
        while missing:
            frame = next(self._frames, None)
            if frame is None or frame.pts is None:
                return None
            self._last = frame.pts
            wanted = frame.pts in needed or frame.pts in later
            if wanted and frame.pts not in self._kept:
                self._kept[frame.pts] = resized_upright(frame, size, self._display)
                missing.discard(frame.pts)
            if frame.pts > max(needed):
                break
        if missing or self._frames.fault or self._display.fault:
            return None
        pixels = np.stack([self._kept[key] for key in plan.keys])
        self._kept = {key: kept for key, kept in self._kept.items() if key in later}
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
