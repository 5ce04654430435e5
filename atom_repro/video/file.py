"""Opening, decoding and writing one video file with PyAV, and the error for an unreadable one.

One thread, so that decoding a file always gives the same pixels, and encoding the same pixels
always gives the same bytes. Which frames of a file to take is decided in `sampling`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
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
    if not path.exists():
        raise VideoError(path, "no such file", "missing")
    if not path.is_file():
        raise VideoError(path, "not a file")
    if path.stat().st_size == 0:
        raise VideoError(path, "the file is empty (0 bytes)")
    try:
        container = av.open(str(path))
    except (FFmpegError, OSError) as error:
        raise VideoError(path, f"not a readable video ({error_text(error)})") from None
    if not container.streams.video:
        container.close()
        raise VideoError(path, "there is no video stream in the file")
    codec_context = container.streams.video[0].codec_context
    if codec_context is None:
        container.close()
        raise VideoError(path, "there is no decoder for the video's codec")
    codec_context.thread_count = 1
    return container


def error_text(error: BaseException) -> str:
    """FFmpeg's message of an error, without its error numbers."""
    return str(getattr(error, "strerror", "") or error).strip()


def seconds(value: int | None, time_base: Any) -> float | None:
    """A timestamp or duration in units of a stream's time base, in seconds."""
    return None if value is None else float(value * time_base)


def quarter_turns(rotation: float) -> int:
    """Quarter turns counter-clockwise, the unit of np.rot90, for a display rotation."""
    return round(rotation / 90) % 4


def packets(container: Any, stream: Any) -> AbstractContextManager[Iterator[Any]]:
    """A stream's packets from the container's current position on, as a context manager.

    Closed on leaving: PyAV 18 loses about 150 bytes for each demuxer that is dropped half-read.
    """
    return closing(container.demux(stream))


def decoded_frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames in presentation order.

    Packets before the first good frame may fail to decode, as where a file starts in the middle
    of a group of pictures; a failure after it is raised.
    """
    any_decoded = False
    with packets(container, stream) as demuxed:
        for packet in demuxed:
            try:
                decoded = packet.decode()
            except FFmpegError:
                if any_decoded:
                    raise
                continue
            for frame in decoded:
                any_decoded = True
                yield frame
