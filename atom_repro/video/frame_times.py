"""Presentation times of the frames in a window of a video, and uniform sampling among them.

Times come from the file's packets, without decoding; frames are decoded only where the container
holds no timestamps. A recording of several parts, whose clock starts anew in each, is one video:
the parts follow each other. Pixels are read in `sampling`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from atom_repro.video.file import (
    EMPTY_STREAM,
    DecodedFrames,
    VideoError,
    error_text,
    open_video,
    packets,
    seconds,
    starts_anew,
    video_stream,
)


@dataclass(frozen=True)
class FrameTimes:
    """The frames of a window and their presentation times, in presentation order.

    `keys` identify frames to the decoding pass: presentation timestamps (PTS), or frame numbers
    where the container has none (`ordinal` is true). `times_s` (T,) are seconds since the video's
    first frame. `end_s` is when the last frame stops being shown. `fault` says why the list stops
    early, and is empty where it does not. `offsets` are those of the parts of the video (see
    `Clock`); one of several parts can only be read from its beginning.
    """

    keys: list[int]
    times_s: npt.NDArray[np.float64]
    end_s: float
    ordinal: bool
    fault: str = ""
    offsets: tuple[int, ...] = (0,)

    @property
    def seekable(self) -> bool:
        """Whether decoding may begin at a frame's key."""
        return not self.ordinal and len(self.offsets) == 1


class Clock:
    """Timestamps of a video of one or more parts, in the order of presentation, as keys of a
    `FrameTimes`, which only grow.

    Args:
        offsets: of each part, to be added to its timestamps.
        time_base: seconds a unit.
    """

    def __init__(self, offsets: tuple[int, ...], time_base: Fraction) -> None:
        self._offsets, self._time_base = offsets, time_base
        self._part = 0
        self._last: int | None = None

    def key(self, pts: int) -> int:
        """The key of the next frame."""
        # Half of what makes a part, as frames are not shown in the order of their packets.
        if (
            self._last is not None
            and self._part + 1 < len(self._offsets)
            and starts_anew(pts - self._last, self._time_base, 0.5)
        ):
            self._part += 1
        self._last = pts
        return pts + self._offsets[self._part]


_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT: containers of broadcasts and DVDs


def _part_offsets(path: Path, container: Any) -> tuple[int, ...]:
    """Offsets of the parts of a video, (0,) for one of one part."""
    if not container.format.flags & _TS_DISCONT:
        return (0,)
    stat = path.stat()
    return _scanned_offsets(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _scanned_offsets(path: Path, size: int, mtime_ns: int) -> tuple[int, ...]:
    """Offsets of the parts of a file; read once for each of its states."""
    offsets, last, duration = [0], None, 0
    with open_video(path) as container:
        stream = video_stream(container)
        try:
            with packets(container, stream) as demuxed:
                for packet in demuxed:
                    at = packet.pts if packet.dts is None else packet.dts
                    if packet.size == 0 or at is None:
                        continue
                    if last is not None and starts_anew(at - last, stream.time_base):
                        offsets.append(offsets[-1] + last + duration - at)
                    last, duration = at, packet.duration or duration
        except FFmpegError:
            pass  # where the file breaks, reading it says so
    return tuple(offsets)


def read_frame_times(path: Path, start_s: float, end_s: float | None) -> FrameTimes:
    """Reads the frame_times of a window from its packets, decoding if they have no timestamps."""
    with open_video(path) as container:
        offsets = _part_offsets(path, container)
        if len(offsets) > 1:
            return _times_of_parts(path, offsets)
        stream = video_stream(container)
        # Read now: a stream's fields are freed memory once its container is closed.
        start_pts, time_base = stream.start_time or 0, stream.time_base
        packet_times = _packet_times(container, stream, start_pts, start_s, end_s)
        if (
            packet_times is not None
            and start_s > 0
            and _starts_after(packet_times[0], start_pts, time_base, start_s)
        ):
            packet_times = None  # no usable index: read from the beginning instead
    if packet_times is None:
        with open_video(path) as container:
            stream = video_stream(container)
            packet_times = _packet_times(container, stream, start_pts, 0.0, end_s)
    if packet_times is None:
        return _decoded_frame_times(path)
    pts, last_s, fault = packet_times
    if not pts:
        raise VideoError(path, f"no frame can be decoded ({fault or EMPTY_STREAM})")
    times = np.array([float((value - start_pts) * time_base) for value in pts])
    return FrameTimes(pts, times, _last_frame_end(times, last_s), ordinal=False, fault=fault)


def _times_of_parts(path: Path, offsets: tuple[int, ...]) -> FrameTimes:
    """Frame times of a video of several parts, all of it."""
    with open_video(path) as container:
        stream = video_stream(container)
        start_pts, time_base = stream.start_time or 0, stream.time_base
        keys, durations, fault = list[int](), list[int](), ""
        part, last = 0, None
        try:
            with packets(container, stream) as demuxed:
                for packet in demuxed:
                    at = packet.pts if packet.dts is None else packet.dts
                    if packet.size == 0 or at is None:
                        continue
                    if last is not None and starts_anew(at - last, time_base):
                        part += 1
                    last = at
                    keys.append((at if packet.pts is None else packet.pts) + offsets[part])
                    durations.append(packet.duration or 0)
        except FFmpegError as error:
            fault = f"the file breaks after {len(keys)} frames ({error_text(error)})"
    if not keys:
        raise VideoError(path, f"no frame can be decoded ({fault or EMPTY_STREAM})")
    keys.sort()
    times = np.array([float((key - start_pts) * time_base) for key in keys])
    end_s = _last_frame_end(times, float(durations[-1] * time_base))
    return FrameTimes(keys, times, end_s, ordinal=False, fault=fault, offsets=offsets)


def _starts_after(pts: list[int], start_pts: int, time_base: Fraction, start_s: float) -> bool:
    return not pts or float((pts[0] - start_pts) * time_base) > start_s


def _packet_times(
    container: Any, stream: Any, start_pts: int, start_s: float, end_s: float | None
) -> tuple[list[int], float, str] | None:
    """Sorted PTS, the duration of the last frame in seconds (0 if unknown), and the fault.

    None where a packet has no timestamp, or where the seek fails. The fault is empty if none.
    """
    durations_s: dict[int, float] = {}  # of a frame, by its PTS
    packet_count, fault = 0, ""
    try:
        if start_s > 0:
            container.seek(start_pts + int(start_s / stream.time_base), stream=stream)
        with packets(container, stream) as demuxed:
            for packet in demuxed:
                packet_count += packet.size > 0
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.pts is None:
                    return None
                durations_s[packet.pts] = float((packet.duration or 0) * stream.time_base)
                dts = None if packet.dts is None else packet.dts - start_pts
                decode_s = seconds(dts, stream.time_base)
                # Later packets are shown no earlier than they are decoded.
                if end_s is not None and decode_s is not None and decode_s >= end_s:
                    break
            else:
                # The header's count, without what an edit list leaves out.
                expected = min(stream.frames, len(stream.index_entries) or stream.frames)
                if start_s == 0 and packet_count < expected:
                    fault = f"the file ends after {packet_count} of {expected} frames"
    except FFmpegError as error:
        if start_s > 0 and not durations_s:
            return None
        fault = f"the file breaks after {packet_count} frames ({error_text(error)})"
    pts = sorted(durations_s)
    return pts, durations_s[pts[-1]] if pts else 0.0, fault


def _decoded_frame_times(path: Path) -> FrameTimes:
    """Frame times of a file without timestamps (old AVI): frame number over the declared rate."""
    with open_video(path) as container:
        stream = video_stream(container)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        frames = DecodedFrames(container, stream)
        for _ in frames:
            pass
        count, fault = frames.count, frames.fault
    if not count:
        raise VideoError(path, f"no frame can be decoded ({fault or EMPTY_STREAM})")
    return FrameTimes(list(range(count)), np.arange(count) / rate, count / rate, True, fault)


def _last_frame_end(times_s: npt.NDArray[np.float64], last_s: float) -> float:
    """End time of the last frame, from its packet's duration or else the median frame interval."""
    if last_s <= 0:
        last_s = float(median(np.diff(times_s))) if len(times_s) > 1 else 0.04
    return float(times_s[-1]) + last_s


def sample_indices(
    path: Path,
    frame_times: FrameTimes,
    frames: int,
    start_s: float,
    end_s: float | None,
    rng: np.random.Generator | None,
) -> list[int]:
    """Indices into the frame_times, one for each of `frames` equal segments of the window.

    The frame on screen at the segment's middle or, with an `rng`, a random one that begins in it.

    Raises:
        VideoError: the window starts after the video ends.
    """
    stop_s = frame_times.end_s if end_s is None else min(end_s, frame_times.end_s)
    if stop_s <= start_s:
        raise VideoError(path, f"the window starts at {start_s:g} s, the video ends at {stop_s:g}")
    times_s = frame_times.times_s
    edges_s = np.linspace(start_s, stop_s, frames + 1)
    if rng is None:
        return [frame_on_screen(times_s, at_s) for at_s in (edges_s[:-1] + edges_s[1:]) / 2]
    indices = []
    for left_s, right_s in pairwise(edges_s):
        # Timestamps are rounded to the container's clock, edges are not: half a millisecond
        # keeps a frame that starts on an edge in the segment that begins there.
        first, after = np.searchsorted(times_s, [left_s - 5e-4, right_s - 5e-4])
        if first == after:
            indices.append(frame_on_screen(times_s, left_s))
        else:
            indices.append(int(rng.integers(first, after)))
    return indices


def frame_on_screen(times_s: npt.NDArray[np.float64], at_s: float) -> int:
    """Index of the frame on screen at a time: the last one that starts at or before it."""
    return max(int(np.searchsorted(times_s, at_s + 1e-9, side="right")) - 1, 0)


def restrict_to_keys(frame_times: FrameTimes, keys: Iterable[int]) -> FrameTimes:
    """The frame_times restricted to the frames with the given keys."""
    kept = set(keys)
    kept_indices = [i for i, key in enumerate(frame_times.keys) if key in kept]
    if not kept_indices:
        return replace(frame_times, keys=[])
    times_s = frame_times.times_s[kept_indices]
    after = kept_indices[-1] + 1
    end_s = (
        float(frame_times.times_s[after]) if after < len(frame_times.keys) else frame_times.end_s
    )
    return replace(
        frame_times, keys=[frame_times.keys[i] for i in kept_indices], times_s=times_s, end_s=end_s
    )
