"""One cut of a source as it enters a movie: upright pictures at a constant rate in a frame of the
movie's size, and 48 kHz stereo sound that begins with them.

Streams: of a cut no more than two pictures and a packet of sound are held. Encoding is
`video_edit`'s business.
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

from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.edit_list import Box
from atom_repro.video.file import (
    RESIZE,
    VideoError,
    open_video,
    packets,
    pictures,
    quarter_turns,
    said,
    seconds,
)
from atom_repro.video.frame_times import read_timeline, shown_at

SOUND_HZ = 48_000

# A frame of the movie shows what the source shows at the frame's middle, which is the nearest
# source frame where rates differ and the same one where they do not. Timestamps rounded to 1 ms
# must not decide between two frames when a middle falls on a border (60 to 30 frames a second).
ROUNDING_S = 1e-3

# A cut that lost less than this lost a rounding of the duration, not video.
_LOST_S = 0.1

# Sound is decoded from before the cut: codecs overlap their blocks, and Opus asks for 80 ms.
_PREROLL_S = 0.25

# Where timestamps and counted samples part by more than this there is a gap in the sound.
_GAP_S = 0.04

# Bars that would be thinner than this share of the frame are rounding, and are left out.
_BAR = 0.005

BLACK_Y, _GREY_UV = 16, 128

# Values of AVColorSpace that name no matrix of colours: unspecified, and reserved.
_UNTOLD = (2, 3)


@dataclass(frozen=True)
class Shape:
    """A source as shown: upright, with square pixels."""

    width: float
    height: float
    has_sound: bool


def shape(path: Path) -> Shape:
    """Decodes a source's first frame.

    Raises:
        VideoError: there is none.
    """
    with open_video(path) as container:
        stream = container.streams.video[0]
        try:
            first = next(pictures(container, stream), None)
        except FFmpegError as error:
            raise VideoError(path, f"no frame can be decoded ({said(error)})") from None
        if first is None:
            raise VideoError(path, "no frame can be decoded")
        width, height = _shown_size(first, stream.sample_aspect_ratio)
        return Shape(width, height, _sound_stream(container) is not None)


def fitted(size: tuple[float, float], width: int, height: int) -> Box:
    """The largest box of a shape (width, height) in a frame, centred; even, as 4:2:0 needs."""
    scale = min(width / size[0], height / size[1])
    inner = [
        whole if side * scale > whole * (1 - _BAR) else max(2, 2 * round(side * scale / 2))
        for side, whole in zip(size, (width, height), strict=True)
    ]
    x, y = ((whole - side) // 4 * 2 for side, whole in zip(inner, (width, height), strict=True))
    return Box(x, y, inner[0], inner[1])


class PictureReader:
    """The pictures of a cut: iterate once, then ask what became of it.

    `begin_s` is where in the source they begin: the cut's start, or the first frame after it
    that can be decoded. `zero_s` is the source's first frame on its own clock. `planned` is how
    many pictures there should be, `made` how many there were. `box` is where in the frame the
    first of them stands.

    Raises:
        VideoError: the cut gives no picture.
    """

    def __init__(self, cut: Cut, *, rate: Fraction, width: int, height: int) -> None:
        self._cut, self._rate, self._width, self._height = cut, rate, width, height
        self._timeline = read_timeline(cut.path, cut.start_s, cut.end_s)
        asked_s = self._timeline.end_s if cut.end_s is None else cut.end_s
        stop_s = min(asked_s, self._timeline.end_s)
        if stop_s <= cut.start_s:
            raise VideoError(
                cut.path, f"the cut starts at {cut.start_s:g} s, the video ends at {stop_s:g}"
            )
        self.zero_s = 0.0
        self._aspect: Fraction | None = None
        self._fault = ""
        self._frames = self._from_index()
        first = next(self._frames, None)
        if first is None:
            why = self._fault or self._timeline.fault or "the stream is empty"
            raise VideoError(cut.path, f"no frame of the cut can be decoded ({why})")
        self._first = first
        self.begin_s = max(cut.start_s, first[0])
        self._asked_s = asked_s
        self.planned = max(1, round((stop_s - self.begin_s) * rate))
        self.made = 0
        self.box = Box(0, 0, width, height)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Planes of 4:2:0 one below the other, (3/2 height, width) uint8, BT.709, limited range.

        An array may be given several times; it is not to be written to.
        """
        (time_s, picture), coming = self._first, next(self._frames, None)
        canvas, self.box = self._placed(picture)
        stale = False
        for index in range(self.planned):
            at_s = self.begin_s + float((index + Fraction(1, 2)) / self._rate)
            while coming is not None and coming[0] <= at_s + ROUNDING_S:
                (time_s, picture), stale = coming, True
                coming = next(self._frames, None)
            if coming is None and index and at_s >= self._shown_until(time_s):
                break
            if stale:
                (canvas, _), stale = self._placed(picture), False
            self.made += 1
            yield canvas

    def close(self) -> None:
        """Closes the source before its end."""
        self._frames.close()

    @property
    def end_s(self) -> float:
        """Where in the source the pictures given so far end."""
        return self.begin_s + float(self.made / self._rate)

    @property
    def shortfall(self) -> str:
        """What of the cut is missing and why; empty if nothing is."""
        late_s = self.begin_s - self._cut.start_s
        early_s = self._asked_s - self.end_s
        why = self._fault or self._timeline.fault
        least_s = max(_LOST_S, float(1 / self._rate))
        # Where a cut goes up to the end, its end was read from the file that breaks.
        open_ended = self._cut.end_s is None and bool(why)
        if max(late_s, early_s) <= least_s and not open_ended:
            return ""
        why = why or f"the video ends at {self._timeline.end_s:.3f} s"
        where = f"{self.begin_s:.3f}-{self.end_s:.3f} s"
        wanted = "the end" if self._cut.end_s is None else f"{self._cut.end_s:.3f} s"
        return f"shortened to {where} of {self._cut.start_s:.3f} s to {wanted}: {why}"

    def _from_index(self) -> Any:
        """Times and frames from the one on screen at the cut's start on; a generator."""
        timeline = self._timeline
        if self._cut.start_s > 0 and not timeline.ordinal:
            at = shown_at(timeline.times_s, self._cut.start_s)
            found = self._decoded(timeline.keys[at])
            first = next(found, None)
            if first is not None and first[0] <= timeline.times_s[at] + ROUNDING_S:
                yield first
                yield from found
                return
            # The container's index led elsewhere (transport streams have none): read it all.
            found.close()
            self._fault = ""
        yield from self._decoded(None)

    def _decoded(self, seek: int | None) -> Any:
        """Frames with their times in seconds, those before the cut left out but for the last."""
        timeline, before = self._timeline, None
        with open_video(self._cut.path) as container:
            stream = container.streams.video[0]
            zero, time_base = stream.start_time or 0, stream.time_base
            self.zero_s = float(zero * time_base)
            self._aspect = stream.sample_aspect_ratio
            try:
                if seek is not None:
                    container.seek(seek, stream=stream)
                for ordinal, picture in enumerate(pictures(container, stream)):
                    if timeline.ordinal:
                        if ordinal == len(timeline.times_s):
                            break
                        time_s = float(timeline.times_s[ordinal])
                    elif picture.pts is None:
                        continue
                    else:
                        time_s = float((picture.pts - zero) * time_base)
                    if time_s <= self._cut.start_s + ROUNDING_S:
                        before = (time_s, picture)
                        continue
                    if before is not None:
                        yield before
                        before = None
                    yield time_s, picture
            except FFmpegError as error:
                self._fault = f"decoding breaks ({said(error)})"
            if before is not None:
                yield before

    def _shown_until(self, time_s: float) -> float:
        """When a frame stops being shown: at the next one's time, decoded or not."""
        times_s = self._timeline.times_s
        after = int(np.searchsorted(times_s, time_s + ROUNDING_S))
        return float(times_s[after]) if after < len(times_s) else self._timeline.end_s

    def _placed(self, picture: Any) -> tuple[npt.NDArray[np.uint8], Box]:
        turns = quarter_turns(picture.rotation)
        box = fitted(_shown_size(picture, self._aspect), self._width, self._height)
        width, height = (box.height, box.width) if turns % 2 else (box.width, box.height)
        small = picture.reformat(
            width=width,
            height=height,
            format="yuv420p",
            interpolation=RESIZE,
            threads=1,
            src_colorspace=_matrix(picture),
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        canvas = np.empty(self._width * self._height * 3 // 2, np.uint8)
        canvas[: self._width * self._height] = BLACK_Y
        canvas[self._width * self._height :] = _GREY_UV
        whole = planes(canvas, self._width, self._height)
        for plane, part, by in zip(
            whole, planes(small.to_ndarray().reshape(-1), width, height), (1, 2, 2), strict=True
        ):
            rows = slice(box.y // by, (box.y + box.height) // by)
            columns = slice(box.x // by, (box.x + box.width) // by)
            plane[rows, columns] = np.rot90(part, turns)
        return canvas.reshape(-1, self._width), box


def planes(
    flat: npt.NDArray[np.uint8], width: int, height: int
) -> tuple[npt.NDArray[np.uint8], ...]:
    """Views of the three planes of a 4:2:0 picture."""
    luma, chroma = width * height, width * height // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(half),
        flat[luma + chroma :].reshape(half),
    )


def _shown_size(picture: Any, aspect: Fraction | None) -> tuple[float, float]:
    """Width and height in square pixels, upright; `aspect` is one coded pixel's."""
    width, height = picture.width * float(aspect or 1), float(picture.height)
    return (height, width) if quarter_turns(picture.rotation) % 2 else (width, height)


def _matrix(picture: Any) -> Colorspace | None:
    """The colour matrix of a frame that does not say, by its size, as players guess it."""
    if picture.colorspace not in _UNTOLD or picture.format.is_rgb:
        return None
    return Colorspace.ITU709 if picture.height >= 720 else Colorspace.ITU601


def _sound_stream(container: Any) -> Any:
    """The first stream of sound that can be decoded, or None."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


class SoundReader:
    """The sound of a source from a time on; silence where it has none. `fault` says what broke.

    `start_s` is in seconds since the first frame, which lies at `zero_s` on the source's clock.
    """

    def __init__(self, path: Path, zero_s: float, start_s: float) -> None:
        self._path, self._zero_s, self._start_s = path, zero_s, start_s
        self._blocks = self._from_index()
        self._at = 0
        self._left: tuple[int, npt.NDArray[np.float32]] | None = None
        self.fault = ""
        self.found = False

    def read(self, count: int) -> npt.NDArray[np.float32]:
        """The next `count` samples, (2, count) float32, always that many."""
        out = np.zeros((2, count), np.float32)
        stop = self._at + count
        while (block := self._left or next(self._blocks, None)) is not None:
            position, samples = block
            first, last = max(position, self._at), min(position + samples.shape[1], stop)
            if first < last:
                out[:, first - self._at : last - self._at] = samples[
                    :, first - position : last - position
                ]
                self.found = True
            self._left = block if position + samples.shape[1] > stop else None
            if self._left is not None:
                break
        self._at = stop
        return out

    def close(self) -> None:
        """Closes the source before its end."""
        self._blocks.close()

    def _from_index(self) -> Any:
        """Blocks of samples with their places, counted from the start; a generator."""
        if self._start_s > _PREROLL_S:
            blocks = self._resampled(self._start_s - _PREROLL_S)
            first = next(blocks, None)
            if first is not None and first[0] <= 0:
                yield first
                yield from blocks
                return
            blocks.close()  # sound that begins late, or an index that leads elsewhere
            self.fault = ""
        yield from self._resampled(None)

    def _resampled(self, seek_s: float | None) -> Any:
        setup: tuple[int, str, str] | None = None
        resampler: Any = None
        place, read, begun_s = 0, 0, -self._start_s
        for frame in self._decoded(seek_s):
            expected_s = begun_s + (read / setup[0] if setup else 0.0)
            now_s = expected_s if frame.pts is None else self._since_start(frame)
            kind = (frame.sample_rate, frame.format.name, frame.layout.name)
            if kind != setup or abs(now_s - expected_s) > _GAP_S:
                if resampler is not None:
                    yield from self._put(resampler, None, place)
                resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_HZ)
                setup, read, begun_s = kind, 0, now_s
                place = round(now_s * SOUND_HZ)
            read += frame.samples
            for block in self._put(resampler, frame, place):
                place += block[1].shape[1]
                yield block
        if resampler is not None:
            yield from self._put(resampler, None, place)

    def _put(self, resampler: Any, frame: Any, place: int) -> Any:
        try:
            for out in resampler.resample(frame):
                if out is not None:  # a resampler with nothing to do gives back what it is given
                    samples = out.to_ndarray()
                    yield place, samples
                    place += samples.shape[1]
        except (FFmpegError, ValueError) as error:
            self.fault = f"the sound cannot be converted ({said(error)})"

    def _since_start(self, sound: Any) -> float:
        """Seconds from the cut's start to a frame or packet of sound; below 0 before it."""
        clock_s = seconds(sound.pts, sound.time_base) or 0.0
        return clock_s - self._zero_s - self._start_s

    def _decoded(self, seek_s: float | None) -> Any:
        """Frames of sound; what cannot be decoded is left out, and is silence by its place."""
        with open_video(self._path) as container:
            stream = _sound_stream(container)
            if stream is None:
                return
            try:
                if seek_s is not None:
                    clock = int((self._zero_s + seek_s) / stream.time_base)
                    container.seek(clock, stream=stream)
                with packets(container, stream) as demuxed:
                    for packet in demuxed:
                        try:
                            decoded = packet.decode()
                        except FFmpegError as error:
                            # After a seek a codec may miss what lies before: no fault of the cut's.
                            if packet.pts is None or self._since_start(packet) >= 0:
                                self.fault = f"some of the sound cannot be decoded ({said(error)})"
                            continue
                        yield from decoded
            except FFmpegError as error:
                self.fault = f"the sound breaks ({said(error)})"
