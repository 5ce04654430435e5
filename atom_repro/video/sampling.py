"""Uniform frame sampling from video files, video metadata, sliding windows, and checking a split.

Every data set reads its video through this module. It needs PyAV and numpy but not torch, and
holds in memory no more than the requested frames, already resized.

    frames = read_frames(Path("clip.mp4"), frames=6, size=224, sampling="centre")
    frames.pixels.shape  # (6, 224, 224, 3), uint8, RGB
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from tqdm import tqdm

from atom_repro.datatypes import AtomError, Clip, ClipStatus
from atom_repro.video.display import Display, source_matrix
from atom_repro.video.file import (
    EMPTY_STREAM,
    RESIZE,
    DecodedFrames,
    Orientation,
    VideoError,
    error_text,
    open_video,
    video_stream,
)
from atom_repro.video.frame_times import (
    Clock,
    FrameTimes,
    frame_on_screen,
    read_frame_times,
    restrict_to_keys,
    sample_indices,
)

Sampling = Literal["centre", "jitter"]
OnBad = Literal["fail", "count", "drop"]

# Version of the pixels that a file gives. Raise it with whatever changes them: frames and captions
# that are kept are then made anew.
DECODING = 2

# Containers whose header states the length (MP4's table of frames is checked as such).
_STATES_LENGTH = {"matroska", "avi", "flv", "asf"}

# A file that ends this much before its header's length was cut short.
_CUT_SHORT_S = 1.0

# A last window with less new footage than this would come from rounding of the duration.
_MIN_NEW_S = 0.1

_SHOWN_FAULTS = 3


@dataclass(frozen=True)
class Frames:
    """Sampled frames of one window.

    `pixels` is (T, H, W, 3) uint8 RGB; `times_s` is (T,) float64, the presentation time of
    each frame in seconds since the video's first frame. `status` is "partial" where decoding
    failed before the end of the file; `detail` then says how, and the frames come from the part
    that was decoded.
    """

    pixels: npt.NDArray[np.uint8]
    times_s: npt.NDArray[np.float64]
    status: Literal["ok", "partial"]
    detail: str


@dataclass(frozen=True)
class VideoInfo:
    """Metadata of a video file; `width` and `height` are those after display rotation. `fault` says
    why the file ends early, and is empty where it does not."""

    duration_s: float
    fps: float
    width: int
    height: int
    rotation: int
    frames: int
    codec: str
    container: str
    has_audio: bool
    fault: str


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
    """Samples `frames` frames of a window, one from each of as many segments of equal duration.

    "centre" takes the frame on screen at the middle of each segment (evaluation); "jitter" a
    uniformly random frame of the segment (training; unlike the mPLUG-2 release, whose random
    index never reaches a segment's last frame). Segments are bounded by presentation time, so a
    variable frame rate is sampled evenly in time. A window with fewer frames repeats frames.

    Args:
        path: the video file, in any container and codec that FFmpeg reads.
        frames: T, how many frames to return.
        size: side in pixels; frames are resized to a square, the aspect ratio is not kept.
        sampling: "centre" or "jitter".
        start_s: start of the window in seconds since the first frame.
        end_s: end of the window; None, or a time past the end, means up to the end.
        rng: random generator, required by "jitter".

    Raises:
        VideoError: no frame of the window can be decoded.
    """
    if frames < 1 or size < 1:
        raise ValueError(f"frames and size must be at least 1, got {frames} and {size}")
    if sampling == "jitter" and rng is None:
        raise ValueError("sampling='jitter' needs rng")
    if end_s is not None and end_s <= start_s:
        raise VideoError(path, f"the window {start_s:g}-{end_s:g} s is empty")
    frame_times = read_frame_times(path, start_s, end_s)
    jitter_rng = rng if sampling == "jitter" else None
    indices = sample_indices(path, frame_times, frames, start_s, end_s, jitter_rng)
    needed = {frame_times.keys[i] for i in indices}
    from_s = start_s
    decoded_keys, pixels, fault = _decode(path, frame_times, needed, size, from_s, end_s)
    first_key = frame_times.keys[frame_on_screen(frame_times.times_s, start_s)]
    if len(pixels) < len(needed) and start_s > 0 and min(decoded_keys, default=None) != first_key:
        # The seek went past the window (transport streams have no index): decode from the start.
        from_s = 0.0
        decoded_keys, pixels, fault = _decode(path, frame_times, needed, size, from_s, end_s)
    fault = "; ".join(text for text in (fault, frame_times.fault) if text)
    if len(pixels) < len(needed):
        # Some of the sampled frames do not decode. Sample again among those that do.
        fault = fault or "some of its frames cannot be decoded"
        frame_times = restrict_to_keys(frame_times, decoded_keys)
        if not frame_times.keys:
            raise VideoError(path, f"no frame can be decoded ({fault})")
        indices = sample_indices(path, frame_times, frames, start_s, end_s, jitter_rng)
        needed = {frame_times.keys[i] for i in indices}
        _, pixels, _ = _decode(path, frame_times, needed, size, from_s, end_s)
    return Frames(
        pixels=np.stack([pixels[frame_times.keys[i]] for i in indices]),
        times_s=frame_times.times_s[indices],
        status="partial" if fault else "ok",
        detail=fault,
    )


def clip_frames(clip: Clip, *, frames: int, size: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Centre-sampled frames of a clip's window, resized: (T, 3, H, W) uint8 RGB; and what of the
    window could not be seen, empty where all could.

    Raises:
        VideoError: no frame of the window can be decoded.
    """
    read = read_frames(
        clip.path,
        frames=frames,
        size=size,
        sampling="centre",
        start_s=clip.start_s,
        end_s=clip.end_s,
    )
    return np.ascontiguousarray(read.pixels.transpose(0, 3, 1, 2)), read.detail


def probe(path: Path) -> VideoInfo:
    """Reads a video file's metadata. Length and number of frames are those of its packets: what a
    header says may be that of another stream, or wrong.

    Raises:
        VideoError: the file is not a video, or its first frame cannot be decoded.
    """
    with open_video(path) as container:
        stream = video_stream(container)
        codec, container_format = stream.codec_context.name, container.format.name
        has_audio = bool(container.streams.audio)
        rate, declared_s = stream.average_rate, _declared_s(container)
        frames = DecodedFrames(container, stream)
        first = next(frames, None)
        if first is None:
            raise VideoError(path, f"no frame can be decoded ({frames.fault or EMPTY_STREAM})")
        rotation = int(first.rotation)
        width, height = first.width, first.height
        if Orientation.of(first).is_sideways:
            width, height = height, width
    frame_times = read_frame_times(path, 0.0, None)
    duration_s, count = round(frame_times.end_s, 6), len(frame_times.keys)
    fps = float(rate) if rate else count / max(duration_s, 1e-9)
    fault = frame_times.fault
    if not fault and declared_s > duration_s + _CUT_SHORT_S:
        end_s = _last_packet_s(path)
        if declared_s > max(end_s, duration_s) + _CUT_SHORT_S:
            fault = f"the file ends at {duration_s:.1f} s, its header says {declared_s:,.1f} s"
    return VideoInfo(
        duration_s, fps, width, height, rotation, count, codec, container_format, has_audio,
        fault,
    )  # fmt: skip


def _declared_s(container: Any) -> float:
    """Length in seconds that a container's header states; 0 where FFmpeg estimates it."""
    states_it = set(container.format.name.split(",")) & _STATES_LENGTH
    return container.duration / av.time_base if states_it and container.duration else 0.0


def _last_packet_s(path: Path) -> float:
    """Time of the last packet of any stream, in seconds since the container's beginning."""
    last_s = 0.0
    with open_video(path) as container:
        begin_s = (container.start_time or 0) / av.time_base
        try:
            with closing(container.demux()) as demuxed:
                for packet in demuxed:
                    if packet.pts is not None and packet.size:
                        last_s = max(last_s, float(packet.pts * packet.time_base) - begin_s)
        except FFmpegError:
            pass  # the file ends there
    return last_s


def sliding_windows(
    duration_s: float, window_s: float = 10.0, stride_s: float = 5.0
) -> list[tuple[float, float]]:
    """Sliding windows over a video as (start, end): `window_s` long, every `stride_s` (paper A.1).

    The last window may be shorter, and is left out where it would add no new footage. A video
    shorter than `window_s` is one window.
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


def windows_of(clips: Sequence[Clip], window_s: float, stride_s: float) -> list[Clip]:
    """Sliding windows of whole videos as clips, each with its video's `meta`; the videos as they
    are where `window_s` is 0.

    Raises:
        VideoError: a video cannot be read.
        AtomError: windows without a stride.
    """
    if not window_s:
        return list(clips)
    if window_s < 0 or stride_s <= 0:
        raise AtomError(f"window_s={window_s:g} stride_s={stride_s:g}: both must be above 0")
    return [
        Clip(
            clip.dataset,
            clip.split,
            f"{clip.video_id}@{start_s:g}",
            clip.path,
            clip.video_id,
            start_s,
            end_s,
            meta=clip.meta,
        )
        for clip in clips
        for start_s, end_s in sliding_windows(probe(clip.path).duration_s, window_s, stride_s)
    ]


@dataclass(frozen=True)
class ClipCheck:
    """Clips of a split with `status` and `detail` filled in, and the counts by status.

    `counts` has one entry for each of ok, partial, missing and corrupt, `faults` the details of all
    that are not ok, by their id. `label` is empty unless clips were dropped; it must be printed
    with every result on the remaining clips.
    """

    clips: tuple[Clip, ...]
    counts: Mapping[ClipStatus, int]
    label: str
    faults: Mapping[str, str]

    @property
    def remark(self) -> str:
        """A line on the clips that are not or only in part seen; see `unseen`."""
        return unseen("clips", self.faults)


def unseen(what: str, faults: Mapping[str, str]) -> str:
    """A line, for display, on clips that could not be seen in full: how many, the first ones' names
    and reasons. Empty without any.

    Args:
        what: the clips are.
        faults: reasons by the clip's id.
    """
    if not faults:
        return ""
    shown = [f"{name}: {fault}" for name, fault in list(faults.items())[:_SHOWN_FAULTS]]
    rest = [f"and {len(faults) - len(shown)} more"] if len(faults) > len(shown) else []
    return f"! {what} that could not be seen in full: {len(faults)} ({'; '.join(shown + rest)})\n"


def check_clips(clips: Sequence[Clip], on_bad: OnBad, *, frames: int = 6) -> ClipCheck:
    """Decodes frames of every clip of a split, to find unreadable videos before a run starts.

    `on_bad` is the policy for missing or corrupt clips: "fail" raises; "count" keeps them, with
    their status, so that they are scored as misses; "drop" removes them and sets `label`.
    A partial clip has frames and always stays.

    Raises:
        AtomError: with "fail", naming the first bad clip and how many more there are; or an
            unknown policy.
    """
    if on_bad not in get_args(OnBad):
        raise AtomError(f"on_bad={on_bad}: choose fail, count or drop")
    bar = tqdm(clips, desc="look at clips", unit="clip", mininterval=0.5, delay=0.5, leave=False)
    scanned = [_with_status(clip, frames) for clip in bar]
    bad = [clip for clip in scanned if clip.status in ("missing", "corrupt")]
    if bad and on_bad == "fail":
        others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise AtomError(
            f"{bad[0].video_id} ({bad[0].status}: {bad[0].detail}){others} of {len(scanned)} clips "
            "cannot be read; fetch them again, or set on_bad=count or on_bad=drop"
        )
    status_counts = Counter(clip.status for clip in scanned)
    statuses: tuple[ClipStatus, ...] = ("ok", "partial", "missing", "corrupt")
    counts = {status: status_counts[status] for status in statuses}
    faults = {clip.video_id: clip.detail for clip in scanned if clip.detail}
    if on_bad == "drop" and bad:
        kept = tuple(clip for clip in scanned if clip.status in ("ok", "partial"))
        return ClipCheck(kept, counts, f"reduced gallery {len(kept)}/{len(scanned)}", faults)
    return ClipCheck(tuple(scanned), counts, "", faults)


def _with_status(clip: Clip, frames: int) -> Clip:
    try:
        sampled = read_frames(
            clip.path,
            frames=frames,
            size=16,
            sampling="centre",
            start_s=clip.start_s,
            end_s=clip.end_s,
        )
    except VideoError as error:
        return replace(clip, status=error.status, detail=error.reason)
    return replace(clip, status=sampled.status, detail=sampled.detail)


def _decode(
    path: Path,
    frame_times: FrameTimes,
    needed: set[int],
    size: int,
    start_s: float,
    end_s: float | None,
) -> tuple[list[int], dict[int, npt.NDArray[np.uint8]], str]:
    """Decodes until all needed frames are found, at most to the window's end.

    Returns the keys of all frames decoded, the needed frames (size, size, 3) by key, and the
    fault, empty if none.
    """
    decoded_keys: list[int] = []
    pixels: dict[int, npt.NDArray[np.uint8]] = {}
    stop_key = frame_times.keys[
        -1 if end_s is None else frame_on_screen(frame_times.times_s, end_s)
    ]
    with open_video(path) as container:
        stream = video_stream(container)
        if start_s > 0 and frame_times.seekable:
            # FFmpeg seeks to the keyframe at or before the frame on screen at `start_s`.
            seek_key = frame_times.keys[frame_on_screen(frame_times.times_s, start_s)]
            try:
                container.seek(seek_key, stream=stream)
            except FFmpegError as error:
                return [], {}, f"seeking fails ({error_text(error)})"
        frames, display = DecodedFrames(container, stream), Display()
        clock = Clock(frame_times.offsets, stream.time_base)
        for ordinal, frame in enumerate(frames):
            if frame.pts is None and not frame_times.ordinal:
                continue
            key = ordinal if frame_times.ordinal else clock.key(frame.pts)
            decoded_keys.append(key)
            if key in needed and key not in pixels:
                pixels[key] = resized_upright(frame, size, display)
            if len(pixels) == len(needed) or key > stop_key:
                break
    fault = "; ".join(text for text in (frames.fault, display.fault) if text)
    return decoded_keys, pixels, fault


def resized_upright(frame: Any, size: int, display: Display) -> npt.NDArray[np.uint8]:
    """A decoded frame as it is shown, (size, size, 3) RGB."""
    shown = display(frame, size, size)
    small = shown.reformat(
        width=size,
        height=size,
        format="rgb24",
        interpolation=RESIZE,
        threads=1,
        src_colorspace=source_matrix(shown),
    )
    return Orientation.of(frame).upright(small.to_ndarray())
