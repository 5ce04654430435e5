"""Opening, decoding and writing one video file with PyAV, and the error for an unreadable one.

One thread, so that decoding a file always gives the same pixels, and encoding the same pixels
always gives the same bytes. Which frames of a file to take is decided in `sampling`.
"""

import math
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.reformatter import Interpolation

from atom_repro.datatypes import AtomError, ClipStatus
from atom_repro.records.atomic import atomic_write

# FFmpeg's bicubic widens its support when it downscales, so it does not alias; the two flags
# take out the approximations that differ between CPUs.
RESIZE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

# x264 165 with its AVX2 code and the macroblock tree is not deterministic on small frames:
# 25 encodings of one 64-pixel clip gave up to four different files, on one thread. Without the
# tree, and with the code paths that agree with plain C, equal pixels are equal bytes.
X264 = "mbtree=0:asm=mmx2,sse2"

# 8K and 360-degree cameras stay below it. A picture of 16000 x 16000 pixels takes a second and half
# a gigabyte to decode, from a file of a few hundred kilobytes.
MOST_PIXELS = 2**26

EMPTY_STREAM = "the stream is empty"
_MISSING = "a part of it is missing"
_FLAGGED_BEFORE_PART = 4  # packets in the parser when a broadcast's packets leap


class VideoError(AtomError):
    """No frame of a video can be decoded; one line with the file and the reason.

    `status` is "missing" where there is no such file and "corrupt" for everything else.
    """

    def __init__(self, path: Path, reason: str, status: ClipStatus = "corrupt") -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.status = status


def write_video(
    path: Path, pixels: npt.NDArray[np.uint8], fps: int, *, crf: int = 24, preset: str = "veryfast"
) -> None:
    """Writes (T, H, W, 3) uint8 RGB frames as H.264 in MP4, 4:2:0, atomically.

    The same pixels always give the same bytes. `crf` is x264's constant rate factor (0
    lossless, 51 worst). H and W must be even, as 4:2:0 requires.
    """
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
        raise ValueError(f"pixels must be (T, H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 4:2:0 needs even sides, got {height} x {width}")
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        options = {"crf": str(crf), "preset": preset, "threads": "1", "x264-params": X264}
        stream: Any = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in pixels:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            planar = frame.reformat(format="yuv420p", interpolation=RESIZE, threads=1)
            container.mux(stream.encode(planar))
        container.mux(stream.encode(None))


def open_video(path: Path) -> Any:
    """Opens a file that has a video stream for decoding; FFmpeg errors become a VideoError."""
    try:
        if not path.exists():
            raise VideoError(path, "no such file", "missing")
        if not path.is_file():
            raise VideoError(path, "not a file")
        if path.stat().st_size == 0:
            raise VideoError(path, "the file is empty (0 bytes)")
        # Absolute: in a relative name FFmpeg takes what stands before a colon for a protocol.
        container = av.open(str(path.absolute()))
    except (FFmpegError, OSError) as error:
        raise VideoError(path, f"not a readable video ({error_text(error)})") from None
    try:
        context = _checked_stream(path, container).codec_context
    except VideoError:
        container.close()
        raise
    context.thread_count = 1
    # Of pictures that turn out larger than the header says.
    context.options = {"max_pixels": str(MOST_PIXELS)}
    return container


def video_stream(container: Any) -> Any:
    """The video stream that players show: the default one, of several the one with most pixels.

    Cover pictures and thumbnails, which are video streams to FFmpeg, and streams without a decoder
    do not count; None where no other is left.
    """
    films = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & _NO_FILM
    ]
    return max(films, key=_prominence, default=None)


_NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails


def _prominence(stream: Any) -> tuple[bool, int, int]:
    context, is_default = stream.codec_context, bool(stream.disposition & Disposition.default)
    return is_default, context.width * context.height, -stream.index


def _checked_stream(path: Path, container: Any) -> Any:
    """`video_stream` of a container, with a VideoError where it has none that can be decoded."""
    streams = container.streams.video
    if not streams:
        raise VideoError(path, "there is no video stream in the file")
    stream = video_stream(container)
    if stream is None:
        covers = all(s.disposition & _NO_FILM for s in streams)
        raise VideoError(
            path,
            "it is sound with a cover picture, and no video"
            if covers
            else "there is no decoder for the video's codec",
        )
    context = stream.codec_context
    if context.width * context.height > MOST_PIXELS:
        raise VideoError(
            path,
            f"its pictures have {context.width} x {context.height} pixels; more than "
            f"{MOST_PIXELS:,} are not decoded",
        )
    return stream


def error_text(error: BaseException) -> str:
    """FFmpeg's message of an error, without its error numbers."""
    return str(getattr(error, "strerror", "") or error).strip()


def seconds(value: int | None, time_base: Any) -> float | None:
    """A timestamp or duration in units of a stream's time base, in seconds."""
    return None if value is None else float(value * time_base)


# FFmpeg, too, takes a clock that leaps forward by 10 s for one that starts anew.
_BACK_S, _FORWARD_S = 1.0, 10.0


def starts_anew(step: int, time_base: Any, share: float = 1.0) -> bool:
    """Whether a clock that moves by `step` from one packet to the next starts anew there, as
    between two recordings in one file. `share` scales what counts as a leap."""
    step_s = float(step * time_base)
    return step_s < -_BACK_S * share or step_s > _FORWARD_S * share


@dataclass(frozen=True)
class Orientation:
    """How players show a decoded frame: mirrored left to right or not, then turned."""

    mirrored: bool
    quarter_turns: int  # counter-clockwise, the unit of np.rot90

    @classmethod
    def of(cls, frame: Any) -> "Orientation":
        """Read a frame's display matrix. PyAV leaves applying it to the caller."""
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
        if matrix is None:
            return cls(False, 0)
        # Row vectors times (a, b; c, d), in 16.16 fixed point.
        a, b, _, c, d, *_ = struct.unpack_from("=9i", bytes(matrix))
        mirrored = a * d < b * c
        angle = math.atan2(-b, -a) if mirrored else math.atan2(b, a)
        return cls(mirrored, round(-angle / (math.pi / 2)) % 4)

    @property
    def is_sideways(self) -> bool:
        """Whether width and height are exchanged."""
        return self.quarter_turns % 2 == 1

    def upright(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Pixels (H, W) or (H, W, C) as they are shown."""
        return np.rot90(pixels[:, ::-1] if self.mirrored else pixels, self.quarter_turns)


def packets(container: Any, stream: Any) -> AbstractContextManager[Iterator[Any]]:
    """A stream's packets from the container's current position on, as a context manager.

    Closed on leaving: PyAV 18 loses about 150 bytes for each demuxer that is dropped half-read.
    """
    return closing(container.demux(stream))


class DecodedFrames(Iterator[Any]):
    """Decoded frames of a stream in presentation order; decoding goes on where a player goes on.

    A packet that cannot be decoded is left out: frames up to the next keyframe may then show
    remains of earlier ones. `fault` says how many frames were lost or are flagged as damaged, from
    when on and why; it is empty while there are none. Packets before the first good frame may fail,
    as where a file starts in the middle of a group of pictures, and are no fault once it has come.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.count = 0
        self._damaged: dict[int, str] = {}  # reason by timestamp
        self._end = ""
        self._start_pts, self._time_base = stream.start_time or 0, stream.time_base
        self._frames = self._decode(container, stream)

    def __next__(self) -> Any:
        return next(self._frames)

    @property
    def fault(self) -> str:
        damage = ""
        if self._damaged:
            (first, reason), count = next(iter(self._damaged.items())), len(self._damaged)
            counted = "1 frame is damaged, at" if count == 1 else f"{count} frames are damaged, the"
            at = "" if count == 1 else " first at"
            first_s = float((first - self._start_pts) * self._time_base)
            damage = f"{counted}{at} {first_s:.1f} s ({reason})"
        return "; ".join(text for text in (damage, self._end) if text)

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        with packets(container, stream) as demuxed:
            try:
                before: deque[Any] = deque(maxlen=_FLAGGED_BEFORE_PART)
                for packet in demuxed:
                    if before and self._parted(before[-1], packet):
                        # Their flag is of the leap between two recordings: nothing is missing.
                        for flagged in before:
                            self._damaged.pop(_timestamp(flagged), None)
                    before.append(packet)
                    if packet.is_corrupt:
                        self._add_damage(packet, _MISSING)
                    try:
                        decoded = packet.decode()
                    except FFmpegError as error:
                        self._add_damage(packet, error_text(error))
                        continue
                    for frame in decoded:
                        if not self.count:
                            self._damaged.clear()
                        elif frame.is_corrupt:
                            self._add_damage(frame, _MISSING)
                        self.count += 1
                        yield frame
            except FFmpegError as error:
                self._end = f"decoding breaks after {self.count} frames ({error_text(error)})"

    def _parted(self, first: Any, second: Any) -> bool:
        """Whether two packets that follow each other are of two recordings."""
        if first.dts is None or second.dts is None:
            return False
        return starts_anew(second.dts - first.dts, self._time_base)

    def _add_damage(self, unit: Any, reason: str) -> None:
        at = _timestamp(unit)
        self._damaged.setdefault(self._start_pts if at is None else at, reason)


def _timestamp(unit: Any) -> Any:
    """Of a packet or frame: when it is shown, or else decoded; None for neither."""
    return unit.dts if unit.pts is None else unit.pts
