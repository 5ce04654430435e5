"""Uniformly sampled frames of a video, facts about it, windows, and scanning a split.

The one reader behind every data set. It is PyAV and numpy only (no torch) and holds no more
than the frames that were asked for, already resized. It knows nothing of captions or of any
data set's layout.

    frames = read_frames(Path("clip.mp4"), frames=6, size=224, sampling="centre")
    frames.pixels.shape  # (6, 224, 224, 3), uint8, RGB
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from atom_repro.datatypes import AtomError, Clip, ClipStatus
from atom_repro.video.file import (
    RESIZE,
    VideoError,
    open_video,
    pictures,
    quarter_turns,
    said,
    seconds,
)
from atom_repro.video.frame_times import Timeline, only, pick, read_timeline, shown_at

Sampling = Literal["centre", "jitter"]
OnBad = Literal["fail", "count", "drop"]

# A window that would add less new footage than this is a rounding of the duration, not video.
_MIN_NEW_S = 0.1


@dataclass(frozen=True)
class Frames:
    """Sampled frames of one window.

    `pixels` is (T, H, W, 3) uint8 RGB; `times_s` is (T,) float64, the presentation time of
    each frame in seconds since the video's first frame. `status` is "partial" where the file
    broke before its end, in which case `detail` says how and the frames come from what was
    decoded.
    """

    pixels: npt.NDArray[np.uint8]
    times_s: npt.NDArray[np.float64]
    status: Literal["ok", "partial"]
    detail: str


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds; `width` and `height` are as shown, that is, after rotation."""

    duration_s: float
    fps: float
    width: int
    height: int
    rotation: int
    frames: int
    codec: str
    container: str
    has_audio: bool


def read_frames(
    path: Path,
    *,
    frames: int,
    size: int,
    sampling: Sampling,
    start_s: float = 0.0,
    end_s: float | None = None,
    rng: np.random.Generator | None = None,
) -> Frames:
    """Samples `frames` frames of a window, one from each of as many equal stretches of time.

    "centre" takes the frame on screen at the middle of each stretch (evaluation); "jitter"
    takes any frame of the stretch with equal chance (training; unlike the mPLUG-2 release,
    whose draw never reaches a stretch's last frame). Stretches are cut by presentation time,
    so a variable frame rate is sampled evenly in time. A window with fewer frames than asked
    for repeats frames.

    Args:
        path: the video file, in any container and codec that FFmpeg reads.
        frames: T, how many frames to return.
        size: side in pixels; frames are resized to a square, the aspect ratio is not kept.
        sampling: "centre" or "jitter".
        start_s: start of the window in seconds since the first frame.
        end_s: end of the window; None, or a time past the end, means up to the end.
        rng: source of chance, needed by "jitter" alone.

    Raises:
        VideoError: not one frame of the window can be decoded.
    """
    if frames < 1 or size < 1:
        raise ValueError(f"frames and size must be at least 1, got {frames} and {size}")
    if sampling == "jitter" and rng is None:
        raise ValueError("sampling='jitter' needs rng")
    if end_s is not None and end_s <= start_s:
        raise VideoError(path, f"the window {start_s:g}-{end_s:g} s is empty")
    timeline = read_timeline(path, start_s, end_s)
    draw = rng if sampling == "jitter" else None
    picks = pick(path, timeline, frames, start_s, end_s, draw)
    wanted = {timeline.keys[i] for i in picks}
    seen, pixels, fault = _decode(path, timeline, wanted, size, start_s)
    if start_s > 0 and len(pixels) < len(wanted):
        # The container's index led elsewhere (transport streams have none): read it all.
        seen, pixels, fault = _decode(path, timeline, wanted, size, 0.0)
    fault = fault or timeline.fault
    if len(pixels) < len(wanted):
        # The file promised frames that do not decode. Sample again among those that do.
        timeline = only(timeline, seen)
        if not timeline.keys:
            raise VideoError(path, f"no frame can be decoded ({fault or 'the stream is empty'})")
        picks = pick(path, timeline, frames, start_s, end_s, draw)
        _, pixels, _ = _decode(path, timeline, {timeline.keys[i] for i in picks}, size, 0.0)
    return Frames(
        pixels=np.stack([pixels[timeline.keys[i]] for i in picks]),
        times_s=timeline.times_s[picks],
        status="partial" if fault else "ok",
        detail=fault,
    )


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


def probe(path: Path) -> VideoInfo:
    """Reads a file's facts; what the header lacks is measured from the packets.

    Raises:
        VideoError: the file is not a video, or its first frame cannot be decoded.
    """
    with open_video(path) as container:
        stream = container.streams.video[0]
        codec, name = stream.codec_context.name, container.format.name
        has_audio = bool(container.streams.audio)
        declared_s = seconds(stream.duration, stream.time_base)
        if declared_s is None and container.duration is not None:
            declared_s = container.duration / av.time_base
        rate, count = stream.average_rate, stream.frames
        try:
            first = next(pictures(container, stream), None)
        except FFmpegError as error:
            raise VideoError(path, f"no frame can be decoded ({said(error)})") from None
        if first is None:
            raise VideoError(path, "no frame can be decoded")
        rotation = int(first.rotation)
        width, height = first.width, first.height
    if quarter_turns(rotation) % 2:
        width, height = height, width
    if declared_s is None or not count or not rate:
        timeline = read_timeline(path, 0.0, None)
        count = count or len(timeline.keys)
        declared_s = timeline.end_s if declared_s is None else declared_s
    fps = float(rate) if rate else count / max(declared_s, 1e-9)
    return VideoInfo(declared_s, fps, width, height, rotation, count, codec, name, has_audio)


def segment(
    duration_s: float, window_s: float = 10.0, stride_s: float = 5.0
) -> list[tuple[float, float]]:
    """Cuts a video into overlapping windows: `window_s` long, one every `stride_s` (paper A.1).

    A shorter window closes the list only where it shows footage that no other does. A video
    shorter than the window is one window.
    """
    if duration_s <= 0 or window_s <= 0 or stride_s <= 0:
        raise ValueError(f"all must be above 0: {duration_s=}, {window_s=}, {stride_s=}")
    windows = [(0.0, min(window_s, duration_s))]
    while duration_s - windows[-1][1] > _MIN_NEW_S:
        start_s = len(windows) * stride_s
        if start_s >= duration_s:
            break
        windows.append((start_s, min(start_s + window_s, duration_s)))
    return windows


@dataclass(frozen=True)
class ScanReport:
    """The clips of a split with `status` and `detail` filled in, and what became of bad ones.

    `counts` has one entry for each of ok, partial, missing and corrupt. `label` is empty
    unless clips were dropped; it belongs next to every figure made from the rest.
    """

    clips: tuple[Clip, ...]
    counts: Mapping[ClipStatus, int]
    label: str


def scan(clips: Sequence[Clip], on_bad: OnBad, *, frames: int = 6) -> ScanReport:
    """Reads every clip once, so that a broken video is met before the work and not in it.

    `on_bad` says what a missing or corrupt clip means: "fail" raises; "count" keeps it, with
    its status, so that it can be scored as a miss; "drop" removes it and labels what is left.
    A partial clip has frames and always stays.

    Raises:
        AtomError: with "fail", naming the first bad clip and how many more there are; or an
            unknown policy.
    """
    if on_bad not in get_args(OnBad):
        raise AtomError(f"on_bad={on_bad}: choose fail, count or drop")
    scanned = [_checked(clip, frames) for clip in clips]
    bad = [clip for clip in scanned if clip.status in ("missing", "corrupt")]
    if bad and on_bad == "fail":
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise AtomError(
            f"{bad[0].video_id} ({bad[0].status}: {bad[0].detail}){more} of {len(scanned)} clips "
            "cannot be read; fetch them again, or set on_bad=count or on_bad=drop"
        )
    tally = Counter(clip.status for clip in scanned)
    statuses: tuple[ClipStatus, ...] = ("ok", "partial", "missing", "corrupt")
    counts = {status: tally[status] for status in statuses}
    if on_bad == "drop" and bad:
        kept = tuple(clip for clip in scanned if clip.status in ("ok", "partial"))
        return ScanReport(kept, counts, f"reduced gallery {len(kept)}/{len(scanned)}")
    return ScanReport(tuple(scanned), counts, "")


def _checked(clip: Clip, frames: int) -> Clip:
    try:
        got = read_frames(
            clip.path,
            frames=frames,
            size=16,
            sampling="centre",
            start_s=clip.start_s,
            end_s=clip.end_s,
        )
    except VideoError as error:
        return replace(clip, status=error.status, detail=error.reason)
    return replace(clip, status=got.status, detail=got.detail)


def _decode(
    path: Path, timeline: Timeline, wanted: set[int], size: int, start_s: float
) -> tuple[list[int], dict[int, npt.NDArray[np.uint8]], str]:
    """Decodes until all wanted frames are there.

    Returns the keys met, the wanted frames (size, size, 3), and what went wrong.
    """
    seen: list[int] = []
    pixels: dict[int, npt.NDArray[np.uint8]] = {}
    fault = ""
    with open_video(path) as container:
        stream = container.streams.video[0]
        try:
            if start_s > 0 and not timeline.ordinal:
                # The frame on screen when the window opens; at or before a keyframe of its own.
                container.seek(timeline.keys[shown_at(timeline.times_s, start_s)], stream=stream)
            for ordinal, picture in enumerate(pictures(container, stream)):
                key = ordinal if timeline.ordinal else picture.pts
                seen.append(key)
                if key in wanted and key not in pixels:
                    pixels[key] = _resized(picture, size)
                    if len(pixels) == len(wanted):
                        break
        except FFmpegError as error:
            fault = f"decoding breaks after {len(seen)} frames ({said(error)})"
    return seen, pixels, fault


def _resized(picture: Any, size: int) -> npt.NDArray[np.uint8]:
    small = picture.reformat(
        width=size, height=size, format="rgb24", interpolation=RESIZE, threads=1
    )
    # PyAV reports the display rotation and leaves applying it to the caller.
    upright: npt.NDArray[np.uint8] = np.rot90(small.to_ndarray(), quarter_turns(picture.rotation))
    return upright
