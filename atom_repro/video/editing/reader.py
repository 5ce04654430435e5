"""Decode one cut of a source video for a movie: frames at the movie's size and rate, and its sound.

Frames are upright and letterboxed at a constant rate; the sound is 48 kHz stereo and begins with
them. Decoding is streamed: no more than two frames and a packet of sound of a cut are in memory.
Encoding is in `writer`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace

from atom_repro.video.display import Display, source_matrix
from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.edit_list import Box
from atom_repro.video.file import (
    EMPTY_STREAM,
    RESIZE,
    DecodedFrames,
    Orientation,
    VideoError,
    error_text,
    open_video,
    packets,
    seconds,
    video_stream,
)
from atom_repro.video.frame_times import Clock, frame_on_screen, read_frame_times

SOUND_HZ = 48_000

# A movie frame takes the source frame on screen at its temporal middle: the nearest one where the
# rates differ, the same one where they do not. Timestamps rounded to 1 ms must not decide between
# two frames when a middle falls on a frame boundary (60 to 30 frames a second).
ROUNDING_S = 1e-3

# A smaller shortfall of a cut comes from rounding of the duration.
_SHORTFALL_S = 0.1

# Sound is decoded from before the cut: codecs overlap their blocks, and Opus asks for 80 ms.
_PREROLL_S = 0.25

# Where timestamps and counted samples differ by more than this, the sound has a gap.
_GAP_S = 0.04

# Black bars below this fraction of the frame's side come from rounding, and are left out.
_MIN_BAR = 0.005

BLACK_Y, _GREY_UV = 16, 128


@dataclass(frozen=True)
class SourceFormat:
    """Display size of a source (upright, in square pixels), and whether it has sound."""

    width: float
    height: float
    has_sound: bool


def source_format(path: Path) -> SourceFormat:
    """Reads a source's display size from its first frame, and whether it has sound.

    Raises:
        VideoError: no frame can be decoded.
    """
    with open_video(path) as container:
        stream = video_stream(container)
        frames = DecodedFrames(container, stream)
        first = next(frames, None)
        if first is None:
            raise VideoError(path, f"no frame can be decoded ({frames.fault or EMPTY_STREAM})")
        width, height = _display_size(first, stream.sample_aspect_ratio)
        return SourceFormat(width, height, _sound_stream(container) is not None)


def fit_box(size: tuple[float, float], width: int, height: int) -> Box:
    """The largest centred box of aspect ratio `size` in a frame; even sides, as 4:2:0 needs."""
    scale = min(width / size[0], height / size[1])
    inner = [
        full if side * scale > full * (1 - _MIN_BAR) else max(2, 2 * round(side * scale / 2))
        for side, full in zip(size, (width, height), strict=True)
    ]
    x, y = ((full - side) // 4 * 2 for side, full in zip(inner, (width, height), strict=True))
    return Box(x, y, inner[0], inner[1])


class FrameReader:
    """Frames of one cut, letterboxed, at a constant rate; an iterable to be used once.

    `begin_s` is the source time of the first frame: the cut's start, or the first decodable frame
    after it. `start_pts_s` is the timestamp of the source's first frame. `expected_frames` is
    the number of frames that the cut should give, `yielded_frames` the number given so far. `box`
    is the place of the cut's first frame in the movie's frame.

    Raises:
        VideoError: no frame of the cut can be decoded.
    """

    def __init__(self, cut: Cut, *, rate: Fraction, width: int, height: int) -> None:
        self._cut, self._rate, self._width, self._height = cut, rate, width, height
        self._timeline = read_frame_times(cut.path, cut.start_s, cut.end_s)
        requested_end_s = self._timeline.end_s if cut.end_s is None else cut.end_s
        stop_s = min(requested_end_s, self._timeline.end_s)
        if stop_s <= cut.start_s:
            raise VideoError(
                cut.path, f"the cut starts at {cut.start_s:g} s, the video ends at {stop_s:g}"
            )
        self.start_pts_s = 0.0
        self._aspect: Fraction | None = None
        self._fault, self._display = "", Display()
        self._frames = self._frames_of_cut()
        first = next(self._frames, None)
        if first is None:
            reason = self._fault or self._timeline.fault or EMPTY_STREAM
            raise VideoError(cut.path, f"no frame of the cut can be decoded ({reason})")
        self._first = first
        self.begin_s = max(cut.start_s, first[0])
        self._requested_end_s = requested_end_s
        self.expected_frames = max(1, round((stop_s - self.begin_s) * rate))
        self.yielded_frames = 0
        self.box = Box(0, 0, width, height)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Frames as stacked 4:2:0 planes: (3/2 height, width) uint8, BT.709, limited range.

        The same array may be yielded several times; do not write to it.
        """
        (time_s, frame), upcoming = self._first, next(self._frames, None)
        canvas, self.box = self._letterbox(frame)
        stale = False
        for index in range(self.expected_frames):
            at_s = self.begin_s + float((index + Fraction(1, 2)) / self._rate)
            while upcoming is not None and upcoming[0] <= at_s + ROUNDING_S:
                (time_s, frame), stale = upcoming, True
                upcoming = next(self._frames, None)
            if upcoming is None and index and at_s >= self._frame_end_s(time_s):
                break
            if stale:
                (canvas, _), stale = self._letterbox(frame), False
            self.yielded_frames += 1
            yield canvas

    def close(self) -> None:
        """Closes the source before its end."""
        self._frames.close()

    @property
    def has_one_clock(self) -> bool:
        """Whether sound can be found by its timestamps: not in a source of several parts."""
        return len(self._timeline.offsets) == 1

    @property
    def end_s(self) -> float:
        """Source time at which the frames yielded so far end."""
        return self.begin_s + float(self.yielded_frames / self._rate)

    @property
    def fault(self) -> str:
        """What of the cut is missing or damaged, as text; empty if it is complete and sound."""
        faults = (self._shortfall() or self._fault, self._display.fault)
        return "; ".join(text for text in faults if text)

    def _shortfall(self) -> str:
        late_s = self.begin_s - self._cut.start_s
        early_s = self._requested_end_s - self.end_s
        reason = self._fault or self._timeline.fault
        tolerance_s = max(_SHORTFALL_S, float(1 / self._rate))
        # Where a cut goes up to the end, that end was taken from the broken file itself.
        open_ended = self._cut.end_s is None and bool(reason)
        if max(late_s, early_s) <= tolerance_s and not open_ended:
            return ""
        reason = reason or f"the video ends at {self._timeline.end_s:.3f} s"
        actual = f"{self.begin_s:.3f}-{self.end_s:.3f} s"
        requested = "the end" if self._cut.end_s is None else f"{self._cut.end_s:.3f} s"
        return f"shortened to {actual} of {self._cut.start_s:.3f} s to {requested}: {reason}"

    def _frames_of_cut(self) -> Any:
        """Generator of (time, frame) from the frame on screen at the cut's start on."""
        timeline = self._timeline
        if self._cut.start_s > 0 and timeline.seekable:
            at = frame_on_screen(timeline.times_s, self._cut.start_s)
            frames = self._decoded(timeline.keys[at])
            first = next(frames, None)
            if first is not None and first[0] <= timeline.times_s[at] + ROUNDING_S:
                yield first
                yield from frames
                return
            # The seek went past the cut (transport streams have no index): decode from the start.
            frames.close()
            self._fault = ""
        yield from self._decoded(None)

    def _decoded(self, seek_pts: int | None) -> Any:
        """Generator of (time, frame), starting at the last frame at or before the cut's start."""
        timeline, before = self._timeline, None
        with open_video(self._cut.path) as container:
            stream = video_stream(container)
            start_pts, time_base = stream.start_time or 0, stream.time_base
            self.start_pts_s = float(start_pts * time_base)
            self._aspect = stream.sample_aspect_ratio
            if seek_pts is not None:
                try:
                    container.seek(seek_pts, stream=stream)
                except FFmpegError:
                    return  # and from the start, as where a seek goes too far
            frames, clock = DecodedFrames(container, stream), Clock(timeline.offsets, time_base)
            for ordinal, frame in enumerate(frames):
                self._fault = frames.fault
                if timeline.ordinal:
                    if ordinal == len(timeline.times_s):
                        break
                    time_s = float(timeline.times_s[ordinal])
                elif frame.pts is None:
                    continue
                else:
                    time_s = float((clock.key(frame.pts) - start_pts) * time_base)
                if time_s <= self._cut.start_s + ROUNDING_S:
                    before = (time_s, frame)
                    continue
                if before is not None:
                    yield before
                    before = None
                yield time_s, frame
            self._fault = frames.fault
            if before is not None:
                yield before

    def _frame_end_s(self, time_s: float) -> float:
        """End time of a frame: the start of the next one, whether that can be decoded or not."""
        times_s = self._timeline.times_s
        after = int(np.searchsorted(times_s, time_s + ROUNDING_S))
        return float(times_s[after]) if after < len(times_s) else self._timeline.end_s

    def _letterbox(self, frame: Any) -> tuple[npt.NDArray[np.uint8], Box]:
        orientation = Orientation.of(frame)
        box = fit_box(_display_size(frame, self._aspect), self._width, self._height)
        sideways = orientation.is_sideways
        width, height = (box.height, box.width) if sideways else (box.width, box.height)
        shown = self._display(frame, width, height)
        small = shown.reformat(
            width=width,
            height=height,
            format="yuv420p",
            interpolation=RESIZE,
            threads=1,
            src_colorspace=source_matrix(shown),
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        canvas = np.empty(self._width * self._height * 3 // 2, np.uint8)
        canvas[: self._width * self._height] = BLACK_Y
        canvas[self._width * self._height :] = _GREY_UV
        canvas_planes = planes(canvas, self._width, self._height)
        content_planes = planes(small.to_ndarray().reshape(-1), width, height)
        for plane, content, step in zip(canvas_planes, content_planes, (1, 2, 2), strict=True):
            rows = slice(box.y // step, (box.y + box.height) // step)
            columns = slice(box.x // step, (box.x + box.width) // step)
            plane[rows, columns] = orientation.upright(content)
        return canvas.reshape(-1, self._width), box


def planes(
    flat: npt.NDArray[np.uint8], width: int, height: int
) -> tuple[npt.NDArray[np.uint8], ...]:
    """Views of the Y, U and V planes of a flat 4:2:0 frame."""
    luma, chroma = width * height, width * height // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(half),
        flat[luma + chroma :].reshape(half),
    )


def _display_size(frame: Any, pixel_aspect: Fraction | None) -> tuple[float, float]:
    """Width and height of a frame as it is shown, in square pixels."""
    width, height = frame.width * float(pixel_aspect or 1), float(frame.height)
    return (height, width) if Orientation.of(frame).is_sideways else (width, height)


def _sound_stream(container: Any) -> Any:
    """The first audio stream with a decoder, or None."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


class SoundReader:
    """The sound of a source from `start_s` on, as 48 kHz stereo; silence where it has none.

    `start_s` is in seconds since the first video frame, whose timestamp is `start_pts_s`.
    `has_samples` is true once `read` returned decoded sound; `fault` says what failed to decode.
    The sound of a source whose clock starts anew within it (not `has_one_clock`) is left out.
    """

    def __init__(
        self, path: Path, start_pts_s: float, start_s: float, *, has_one_clock: bool = True
    ) -> None:
        self._path, self._start_pts_s, self._start_s = path, start_pts_s, start_s
        self._blocks = self._blocks_from_start() if has_one_clock else self._left_out()
        self._position = 0
        self._pending: tuple[int, npt.NDArray[np.float32]] | None = None
        self.fault = ""
        self.has_samples = False

    def read(self, count: int) -> npt.NDArray[np.float32]:
        """The next `count` samples: (2, count) float32, padded with silence."""
        out = np.zeros((2, count), np.float32)
        stop = self._position + count
        while (block := self._pending or next(self._blocks, None)) is not None:
            position, samples = block
            first, last = max(position, self._position), min(position + samples.shape[1], stop)
            if first < last:
                out[:, first - self._position : last - self._position] = samples[
                    :, first - position : last - position
                ]
                self.has_samples = True
            self._pending = block if position + samples.shape[1] > stop else None
            if self._pending is not None:
                break
        self._position = stop
        return out

    def close(self) -> None:
        """Closes the source before its end."""
        self._blocks.close()

    def _left_out(self) -> Any:
        """Generator of no blocks."""
        with open_video(self._path) as container:
            if _sound_stream(container) is not None:
                self.fault = "its sound is left out, as its clock starts anew within the file"
        yield from ()

    def _blocks_from_start(self) -> Any:
        """Generator of (position, samples), the position counted in samples from the start."""
        if self._start_s > _PREROLL_S:
            blocks = self._resampled_blocks(self._start_s - _PREROLL_S)
            first = next(blocks, None)
            if first is not None and first[0] <= 0:
                yield first
                yield from blocks
                return
            blocks.close()  # sound that begins late, or a seek that went too far
            self.fault = ""
        yield from self._resampled_blocks(None)

    def _resampled_blocks(self, seek_s: float | None) -> Any:
        resampler_format: tuple[int, str, str] | None = None
        resampler: Any = None
        position, samples_read, run_start_s = 0, 0, -self._start_s
        for frame in self._decoded(seek_s):
            read_s = samples_read / resampler_format[0] if resampler_format else 0.0
            expected_s = run_start_s + read_s
            frame_s = expected_s if frame.pts is None else self._seconds_from_start(frame)
            frame_format = (frame.sample_rate, frame.format.name, frame.layout.name)
            if frame_format != resampler_format or abs(frame_s - expected_s) > _GAP_S:
                if resampler is not None:
                    yield from self._resample(resampler, None, position)
                resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_HZ)
                resampler_format, samples_read, run_start_s = frame_format, 0, frame_s
                position = round(frame_s * SOUND_HZ)
            samples_read += frame.samples
            for block in self._resample(resampler, frame, position):
                position += block[1].shape[1]
                yield block
        if resampler is not None:
            yield from self._resample(resampler, None, position)

    def _resample(self, resampler: Any, frame: Any, position: int) -> Any:
        try:
            for out in resampler.resample(frame):
                if out is not None:  # a resampler with nothing to convert returns its input
                    samples = out.to_ndarray()
                    yield position, samples
                    position += samples.shape[1]
        except (FFmpegError, ValueError) as error:
            self.fault = f"the sound cannot be converted ({error_text(error)})"

    def _seconds_from_start(self, unit: Any) -> float:
        """Seconds from the cut's start to an audio frame or packet; negative before it."""
        stream_s = seconds(unit.pts, unit.time_base) or 0.0
        return stream_s - self._start_pts_s - self._start_s

    def _decoded(self, seek_s: float | None) -> Any:
        """Generator of audio frames; undecodable packets are skipped and become silence."""
        with open_video(self._path) as container:
            stream = _sound_stream(container)
            if stream is None:
                return
            try:
                if seek_s is not None:
                    seek_pts = int((self._start_pts_s + seek_s) / stream.time_base)
                    container.seek(seek_pts, stream=stream)
                with packets(container, stream) as demuxed:
                    for packet in demuxed:
                        try:
                            decoded = packet.decode()
                        except FFmpegError as error:
                            # After a seek a codec may lack earlier packets: not a fault of the cut.
                            if packet.pts is None or self._seconds_from_start(packet) >= 0:
                                text = error_text(error)
                                self.fault = f"some of the sound cannot be decoded ({text})"
                            continue
                        yield from decoded
            except FFmpegError as error:
                self.fault = f"the sound breaks ({error_text(error)})"
