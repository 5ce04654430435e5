"""When each frame of a window is shown, and which of them stand for it.

Read from a file's packets, so that nothing is decoded that nobody wants; decoded only where the
container holds no timestamps. Pixels are `frames`' business.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from atom_repro.video.file import VideoError, open_video, packets, pictures, said, seconds


@dataclass(frozen=True)
class Timeline:
    """When each frame of a window is shown, in presentation order.

    `keys` identify frames to the decoding pass: presentation timestamps, or ordinals where
    the container has none (`ordinal`). `times_s` start at the video's first frame. `end_s` is
    when the last of them stops being shown. `fault` says why the list stops early, if it does.
    """

    keys: list[int]
    times_s: npt.NDArray[np.float64]
    end_s: float
    ordinal: bool
    fault: str = ""


def read_timeline(path: Path, start_s: float, end_s: float | None) -> Timeline:
    """Lists the frames of a window from its packets, without decoding any."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        # Read now: a stream's fields are freed memory once its container is closed.
        zero, time_base = stream.start_time or 0, stream.time_base
        found = _packet_times(container, stream, zero, start_s, end_s)
        if found is not None and start_s > 0 and _starts_late(found[0], zero, time_base, start_s):
            found = None  # no usable index: read from the beginning instead
    if found is None:
        with open_video(path) as container:
            stream = container.streams.video[0]
            found = _packet_times(container, stream, zero, 0.0, end_s)
    if found is None:
        return _decoded_timeline(path)
    stamps, last_s, fault = found
    if not stamps:
        raise VideoError(path, f"no frame can be decoded ({fault or 'the stream is empty'})")
    times = np.array([float((stamp - zero) * time_base) for stamp in stamps])
    return Timeline(stamps, times, _ending(times, last_s), ordinal=False, fault=fault)


def _starts_late(stamps: list[int], zero: int, time_base: Fraction, start_s: float) -> bool:
    return not stamps or float((stamps[0] - zero) * time_base) > start_s


def _packet_times(
    container: Any, stream: Any, zero: int, start_s: float, end_s: float | None
) -> tuple[list[int], float, str] | None:
    """Sorted timestamps, the duration of the last frame (0 if unknown) and what went wrong.

    None where a packet has no timestamp, or where the seek fails.
    """
    stamps: dict[int, float] = {}
    read, fault = 0, ""
    try:
        if start_s > 0:
            container.seek(zero + int(start_s / stream.time_base), stream=stream)
        with packets(container, stream) as demuxed:
            for packet in demuxed:
                read += packet.size > 0
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.pts is None:
                    return None
                stamps[packet.pts] = float((packet.duration or 0) * stream.time_base)
                dts = None if packet.dts is None else packet.dts - zero
                decode_s = seconds(dts, stream.time_base)
                # Later packets are shown no earlier than they are decoded.
                if end_s is not None and decode_s is not None and decode_s >= end_s:
                    break
            else:
                if start_s == 0 and read < stream.frames:
                    fault = f"the file ends after {read} of {stream.frames} frames"
    except FFmpegError as error:
        if start_s > 0 and not stamps:
            return None
        fault = f"the file breaks after {read} frames ({said(error)})"
    ordered = sorted(stamps)
    return ordered, stamps[ordered[-1]] if ordered else 0.0, fault


def _decoded_timeline(path: Path) -> Timeline:
    """The timeline of a file without timestamps (old AVI): frames counted, the rate believed."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        count, fault = 0, ""
        try:
            for _ in pictures(container, stream):
                count += 1
        except FFmpegError as error:
            fault = f"the file breaks after {count} frames ({said(error)})"
    if not count:
        raise VideoError(path, f"no frame can be decoded ({fault or 'the stream is empty'})")
    return Timeline(list(range(count)), np.arange(count) / rate, count / rate, True, fault)


def _ending(times_s: npt.NDArray[np.float64], last_s: float) -> float:
    """When the last frame stops being shown; its length is the packet's, or a usual one."""
    if last_s <= 0:
        last_s = float(median(np.diff(times_s))) if len(times_s) > 1 else 0.04
    return float(times_s[-1]) + last_s


def pick(
    path: Path,
    timeline: Timeline,
    frames: int,
    start_s: float,
    end_s: float | None,
    rng: np.random.Generator | None,
) -> list[int]:
    """Indices into the timeline, one for each of `frames` equal stretches of the window.

    The frame on screen at the stretch's middle or, with an `rng`, any that begins within it.
    """
    stop_s = timeline.end_s if end_s is None else min(end_s, timeline.end_s)
    if stop_s <= start_s:
        raise VideoError(path, f"the window starts at {start_s:g} s, the video ends at {stop_s:g}")
    times_s = timeline.times_s
    edges_s = np.linspace(start_s, stop_s, frames + 1)
    if rng is None:
        return [shown_at(times_s, at_s) for at_s in (edges_s[:-1] + edges_s[1:]) / 2]
    picks = []
    for left_s, right_s in pairwise(edges_s):
        # Timestamps are rounded to the container's clock, edges are not: half a millisecond
        # keeps a frame that starts on an edge in the stretch which it starts.
        first, after = np.searchsorted(times_s, [left_s - 5e-4, right_s - 5e-4])
        if first == after:
            picks.append(shown_at(times_s, left_s))
        else:
            picks.append(int(rng.integers(first, after)))
    return picks


def shown_at(times_s: npt.NDArray[np.float64], at_s: float) -> int:
    """Index of the frame on screen at a time: the last that began by then."""
    return max(int(np.searchsorted(times_s, at_s + 1e-9, side="right")) - 1, 0)


def only(timeline: Timeline, keys: Iterable[int]) -> Timeline:
    """The timeline of the frames that were really decoded."""
    kept = set(keys)
    index = [i for i, key in enumerate(timeline.keys) if key in kept]
    if not index:
        return replace(timeline, keys=[])
    times_s = timeline.times_s[index]
    after = index[-1] + 1
    end_s = float(timeline.times_s[after]) if after < len(timeline.keys) else timeline.end_s
    return replace(timeline, keys=[timeline.keys[i] for i in index], times_s=times_s, end_s=end_s)
