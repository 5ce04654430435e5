"""Render cuts of source videos, in order, into one widely playable MP4.

This is the paper's "final assembly" (appendix A.1).

H.264 High, 4:2:0, BT.709, constant frame rate, closed groups of pictures and a keyframe at every
cut; AAC stereo at 48 kHz if any of the sources has sound, and no sound track otherwise. The index
(moov) precedes the data, so that playback starts before the download ends. Frames are streamed,
not collected in memory. A pipeline chooses the cuts; subtitles are written by `subtitles`.

    edited = render_movie(cuts, Path("movie.mp4"))
    edited.write(Path("movie.edit.json"))
    verify_movie(edited, Path("movie.mp4"))
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from atom_repro.datatypes import AtomError
from atom_repro.records.atomic import atomic_write
from atom_repro.records.provenance import file_hash
from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.edit_list import Box, EditedCut, EditList
from atom_repro.video.editing.reader import (
    SOUND_HZ,
    FrameReader,
    SoundReader,
    SourceFormat,
    source_format,
)
from atom_repro.video.file import X264, VideoError

# Limit of the default size, landscape; portrait movies have it transposed.
_MAX_SIZE = (1280, 720)
_SIDE_RANGE = range(16, 8193)
_FPS_RANGE = range(1, 121)

_KEYFRAME_EVERY_S = 2
_SOUND_BITS_PER_S = 160_000
_AAC_BLOCK = 1024
_HZ = Fraction(SOUND_HZ)
_BT709_MATRIX = 1  # AVCOL_SPC_BT709, which PyAV does not name


def render_movie(
    cuts: Sequence[Cut],
    target: Path,
    *,
    fps: float | Fraction = 30,
    width: int | None = None,
    height: int | None = None,
    crf: int = 20,
    preset: str = "veryfast",
    progress: Callable[[float], None] | None = None,
) -> EditList:
    """Renders cuts in their order into one MP4, atomically, and returns its edit list.

    Frames are turned upright, scaled to fit without changing the aspect ratio, letterboxed, and
    resampled in time to the constant frame rate. The sound of a cut is exactly as long as its
    frames. A cut whose source breaks is shortened to what decodes, and one without a decodable
    frame is left out; its `status` and `detail` in the edit list say so.

    Args:
        cuts: the time ranges to render; see `cuts.without_overlap`.
        target: path of the movie; its folder is created, an existing file replaced at the end.
        fps: frames per second; NTSC rates such as 29.97 mean the exact 30000/1001.
        width, height: size of the frame, both or neither, even. By default that of the largest
            source, at most 1280 x 720, or 720 x 1280 where most cuts are portrait.
        crf, preset: x264's rate factor (0 lossless, 51 worst) and speed preset.
        progress: called with the completed fraction, from 0 to 1.

    Raises:
        AtomError: no cut with a decodable frame, a size or rate that H.264 or players do not
            support, a target that cannot be written or is one of the sources, or a full disk.
    """
    rate = exact_rate(fps)
    _check_target(cuts, target)
    sources = _sources(cuts, target)
    formats = [source for cut in cuts if (source := sources[cut.path].format)]
    size = _size(formats, width, height)
    has_sound = any(source.has_sound for source in formats)
    rows: list[EditedCut] = []
    with atomic_write(target) as temporary:
        with _MovieWriter(temporary, rate, size, has_sound, crf=crf, preset=preset) as movie:
            for index, cut in enumerate(cuts):
                for fraction in _render(cut, sources[cut.path], movie, rows):
                    if progress is not None:
                        progress((index + fraction) / len(cuts))
            if not movie.frames:
                raise _no_picture_error(target, cuts, f"{rows[0].path}: {rows[0].detail}")
        sha256 = file_hash(temporary)
    return EditList(target.name, sha256, rate, movie.frames, *size, has_sound, tuple(rows))


def exact_rate(fps: float | Fraction) -> Fraction:
    """Frame rate as an exact fraction, NTSC rates included: 29.97 becomes 30000/1001.

    Raises:
        AtomError: it is not from 1 to 120.
    """
    if not _FPS_RANGE[0] <= float(fps) <= _FPS_RANGE[-1]:
        raise AtomError(
            f"fps={fps}: choose from {_FPS_RANGE[0]} to {_FPS_RANGE[-1]} frames a second"
        )
    exact = Fraction(fps).limit_denominator(1001)
    ntsc = Fraction(round(fps) * 1000, 1001)
    return ntsc if exact.denominator > 1 and abs(exact - ntsc) < Fraction(2, 1000) else exact


def default_size(formats: Sequence[SourceFormat]) -> tuple[int, int]:
    """Width and height of the largest source in the more common orientation, limited and even.

    The limit is 1280 x 720, or 720 x 1280 in portrait.
    """
    portrait = Counter(s.height > s.width for s in formats)
    candidates = [s for s in formats if (s.height > s.width) == (portrait[True] > portrait[False])]
    largest = max(candidates, key=lambda s: s.width * s.height)
    limit = _MAX_SIZE[::-1] if largest.height > largest.width else _MAX_SIZE
    scale = min(1.0, limit[0] / largest.width, limit[1] / largest.height)
    width, height = (
        max(_SIDE_RANGE[0], 2 * round(side * scale / 2)) for side in (largest.width, largest.height)
    )
    return width, height


def _check_target(cuts: Sequence[Cut], target: Path) -> None:
    if not cuts:
        raise AtomError(
            f"{target}: there are no cuts to make a movie from; choose at least one clip"
        )
    if target.is_dir():
        raise AtomError(f"{target}: is a folder; give the path of a file in it")
    if any(cut.path.resolve() == target.resolve() for cut in cuts):
        raise AtomError(f"{target}: is also a source video of the movie; choose another file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AtomError(
            f"{target}: its folder cannot be created ({error.strerror}); choose another"
        ) from None
    if not os.access(target.parent, os.W_OK):
        raise AtomError(f"{target}: its folder is not writable; choose another")


@dataclass(frozen=True)
class _Source:
    """A source's size, hash and format; unreadable: `format` is None and `fault` says why."""

    size_bytes: int
    sha256: str
    format: SourceFormat | None
    fault: str


def _sources(cuts: Sequence[Cut], target: Path) -> dict[Path, _Source]:
    """The sources of the cuts, each read once, by path."""
    sources = {path: _source(path) for path in {cut.path: None for cut in cuts}}
    if all(source.format is None for source in sources.values()):
        path, first = next(iter(sources.items()))
        raise _no_picture_error(target, cuts, f"{path}: {first.fault}")
    return sources


def _source(path: Path) -> _Source:
    readable = path.is_file()
    size_bytes, sha256 = (path.stat().st_size, file_hash(path)) if readable else (0, "")
    try:
        return _Source(size_bytes, sha256, source_format(path), "")
    except VideoError as error:
        return _Source(size_bytes, sha256, None, error.reason)


def _no_picture_error(target: Path, cuts: Sequence[Cut], reason: str) -> AtomError:
    return AtomError(
        f"{target}: none of the {len(cuts)} cuts gives a picture ({reason}); fetch the videos again"
    )


def _size(
    formats: Sequence[SourceFormat], width: int | None, height: int | None
) -> tuple[int, int]:
    if width is None and height is None:
        return default_size(formats)
    if width is None or height is None:
        raise AtomError(f"width={width}, height={height}: give both, or neither")
    if any(side % 2 or side not in _SIDE_RANGE for side in (width, height)):
        raise AtomError(
            f"width={width}, height={height}: both must be even, "
            f"from {_SIDE_RANGE[0]} to {_SIDE_RANGE[-1] // 2 * 2}"
        )
    return width, height


def _render(
    cut: Cut, source: _Source, movie: "_MovieWriter", rows: list[EditedCut]
) -> Iterator[float]:
    """Encodes a cut and appends its row of the edit list; yields the completed fraction of it."""
    start_frame = movie.frames
    try:
        frames = FrameReader(cut, rate=movie.rate, width=movie.width, height=movie.height)
    except VideoError as error:
        rows.append(_row(cut, source, movie, start_frame, status=error.status, detail=error.reason))
        return
    sound = SoundReader(
        cut.path, frames.start_pts_s, frames.begin_s, has_one_clock=frames.has_one_clock
    )
    with closing(frames), closing(sound):
        for canvas in frames:
            movie.add(canvas, sound, keyframe=movie.frames == start_frame)
            yield frames.yielded_frames / frames.expected_frames
    faults = [fault for fault in (frames.fault, sound.fault) if fault]
    rendered = {
        "source_start_s": round(frames.begin_s, 6),
        "source_end_s": round(frames.end_s, 6),
        "box": frames.box,
        "has_sound": sound.has_samples,
        "status": "partial" if faults else "ok",
        "detail": "; ".join(faults),
    }
    rows.append(_row(cut, source, movie, start_frame, **rendered))


def _row(
    cut: Cut, source: _Source, movie: "_MovieWriter", start_frame: int, **rendered: Any
) -> EditedCut:
    no_picture = {
        "source_start_s": cut.start_s,
        "source_end_s": cut.start_s,
        "box": Box(0, 0, 0, 0),
        "has_sound": False,
    }
    return EditedCut(
        video_id=cut.video_id,
        source=cut.path.name,
        path=cut.path.resolve(),
        source_bytes=source.size_bytes,
        source_sha256=source.sha256,
        start_s=round(float(start_frame / movie.rate), 6),
        end_s=round(float(movie.frames / movie.rate), 6),
        start_frame=start_frame,
        end_frame=movie.frames,
        caption=cut.caption,
        narration=cut.narration,
        **{**no_picture, **rendered},
    )


class _MovieWriter:
    """Encoder and muxer of the movie file; a context manager that flushes the streams at exit."""

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        size: tuple[int, int],
        has_sound: bool,
        *,
        crf: int,
        preset: str,
    ) -> None:
        self.rate, (self.width, self.height) = rate, size
        self.frames = 0
        self._container: Any = av.open(
            str(path),
            "w",
            format="mp4",
            # Track durations are in this timescale; the default, 1000, rounds down to 1 ms.
            options={"movflags": "+faststart", "movie_timescale": str(SOUND_HZ)},
        )
        keyframes = round(_KEYFRAME_EVERY_S * rate)
        self._video: Any = self._container.add_stream(
            "libx264",
            rate=rate,
            options={
                "crf": str(crf),
                "preset": preset,
                "profile": "high",
                "forced-idr": "1",
                "threads": "1",
                "x264-params": f"{X264}:keyint={keyframes}:open-gop=0",
            },
        )
        self._video.width, self._video.height, self._video.pix_fmt = *size, "yuv420p"
        context = self._video.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, _BT709_MATRIX
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        self._sound: Any = None
        if has_sound:
            self._sound = self._container.add_stream("aac", rate=SOUND_HZ, layout="stereo")
            self._sound.bit_rate = _SOUND_BITS_PER_S
        self._sound_buffer: npt.NDArray[np.float32] = np.zeros((2, 0), np.float32)
        self._encoded_samples = 0

    def add(self, canvas: npt.NDArray[np.uint8], sound: SoundReader, *, keyframe: bool) -> None:
        """Encodes one frame (4:2:0 planes) and the sound that plays during it."""
        frame = av.VideoFrame.from_ndarray(canvas, format="yuv420p")
        frame.pts, frame.time_base = self.frames, 1 / self.rate
        frame.colorspace, frame.color_range = _BT709_MATRIX, ColorRange.MPEG
        if keyframe:
            frame.pict_type = PictureType.I
        self._container.mux(self._video.encode(frame))
        if self._sound is not None:
            # Counted from the movie's start, so that rounding does not add up over many cuts.
            count = self._samples_before(self.frames + 1) - self._samples_before(self.frames)
            self._sound_buffer = np.concatenate([self._sound_buffer, sound.read(count)], axis=1)
            while self._sound_buffer.shape[1] >= _AAC_BLOCK:
                self._encode_sound(_AAC_BLOCK)
        self.frames += 1

    def _samples_before(self, frames: int) -> int:
        return round(frames * SOUND_HZ / self.rate)

    def _encode_sound(self, count: int) -> None:
        block, self._sound_buffer = self._sound_buffer[:, :count], self._sound_buffer[:, count:]
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, self._encoded_samples, 1 / _HZ
        self._container.mux(self._sound.encode(frame))
        self._encoded_samples += count

    def __enter__(self) -> "_MovieWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.frames:
                if self._sound is not None:
                    if self._sound_buffer.shape[1]:
                        self._encode_sound(self._sound_buffer.shape[1])
                    self._container.mux(self._sound.encode(None))
                self._container.mux(self._video.encode(None))
        finally:
            self._container.close()
