"""Cutting and stitching: stretches of any videos, in order, become one MP4 that plays everywhere
(the paper's "final assembly", appendix A.1).

H.264 High, 4:2:0, BT.709, constant frame rate, closed groups of pictures and a keyframe at every
cut; AAC stereo at 48 kHz if any of the sources has sound, and no sound track if none has, since
a silent one would only claim that there is something to hear. The index lies before the data, so
that a movie starts before it is fetched. Nothing but the picture of the moment is held in memory.
Which cuts are wanted is a pipeline's business; subtitles are `subtitles`'.

    edited = edit(cuts, Path("movie.mp4"))
    edited.write(Path("movie.edit.json"))
    verify(edited, Path("movie.mp4"))
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
from atom_repro.records.atomic import atomically
from atom_repro.records.provenance import file_hash
from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.edit_list import Box, EditedCut, EditList
from atom_repro.video.editing.reader import SOUND_HZ, PictureReader, Shape, SoundReader, shape
from atom_repro.video.file import X264, VideoError

# The default size is that of the largest source, but no larger than this (or this upright).
_LARGEST = (1280, 720)
_SIDES = range(16, 8193)
_RATES = range(1, 121)

_KEYFRAME_EVERY_S = 2
_SOUND_BITS_PER_S = 160_000
_AAC_BLOCK = 1024
_HZ = Fraction(SOUND_HZ)
_BT709_MATRIX = 1  # of AVColorSpace, which PyAV has no names for


def edit(
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
    """Renders cuts in their order into one MP4, all of it or nothing.

    Pictures are turned upright, scaled to fit and never stretched, with black bars around them,
    and resampled to the constant rate by when they are shown. The sound of a cut is exactly as
    long as its pictures. A cut whose source breaks is shortened to what decodes, and one that
    gives no picture is left out; the list says so by its `status` and `detail`.

    Args:
        cuts: what to show; see `cuts.without_overlap`.
        target: the movie; its folder is made. A file of that name is replaced at the end.
        fps: frames a second; 29.97 and the like mean the exact 30000/1001.
        width, height: size of the frame, both or neither, even. By default that of the largest
            source, at most 1280 x 720, or 720 x 1280 where most cuts are upright.
        crf, preset: x264's rate factor (0 lossless, 51 worst) and effort.
        progress: called with the share that is done, from 0 to 1.

    Raises:
        AtomError: nothing to show, a size or rate that H.264 or players cannot take, a target
            that cannot be written or is one of the sources, or a full disk (it names the target).
    """
    rate = exact_rate(fps)
    _check_target(cuts, target)
    sources = _sources(cuts, target)
    shapes = [found for cut in cuts if (found := sources[cut.path].shape)]
    size = _size(shapes, width, height)
    has_sound = any(found.has_sound for found in shapes)
    rows: list[EditedCut] = []
    with atomically(target) as building:
        with _Movie(building, rate, size, has_sound, crf=crf, preset=preset) as movie:
            for index, cut in enumerate(cuts):
                for share in _render(cut, sources[cut.path], movie, rows):
                    if progress is not None:
                        progress((index + share) / len(cuts))
            if not movie.frames:
                raise _nothing(target, cuts, f"{rows[0].path}: {rows[0].detail}")
        sha256 = file_hash(building)
    return EditList(target.name, sha256, rate, movie.frames, *size, has_sound, tuple(rows))


def exact_rate(fps: float | Fraction) -> Fraction:
    """The exact frame rate that a number means: 29.97 is 30000/1001.

    Raises:
        AtomError: it is not from 1 to 120.
    """
    if not _RATES[0] <= float(fps) <= _RATES[-1]:
        raise AtomError(f"fps={fps}: choose from {_RATES[0]} to {_RATES[-1]} frames a second")
    exact = Fraction(fps).limit_denominator(1001)
    ntsc = Fraction(round(fps) * 1000, 1001)
    return ntsc if exact.denominator > 1 and abs(exact - ntsc) < Fraction(2, 1000) else exact


def default_size(shapes: Sequence[Shape]) -> tuple[int, int]:
    """Width and height that lose least: the largest source's among the more common of the two
    orientations, within 1280 x 720 or, upright, 720 x 1280; even."""
    upright = Counter(s.height > s.width for s in shapes)
    chosen = [s for s in shapes if (s.height > s.width) == (upright[True] > upright[False])]
    largest = max(chosen, key=lambda s: s.width * s.height)
    limit = _LARGEST[::-1] if largest.height > largest.width else _LARGEST
    scale = min(1.0, limit[0] / largest.width, limit[1] / largest.height)
    width, height = (
        max(_SIDES[0], 2 * round(side * scale / 2)) for side in (largest.width, largest.height)
    )
    return width, height


def _check_target(cuts: Sequence[Cut], target: Path) -> None:
    if not cuts:
        raise AtomError(f"{target}: there are no cuts to make a movie from; choose some clips")
    if target.is_dir():
        raise AtomError(f"{target}: a folder; name the movie's file in it")
    if any(cut.path.resolve() == target.resolve() for cut in cuts):
        raise AtomError(f"{target}: one of the videos that are cut; name another file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AtomError(
            f"{target}: its folder cannot be made ({error.strerror}); name another"
        ) from None
    if not os.access(target.parent, os.W_OK):
        raise AtomError(f"{target}: its folder may not be written to; name another")


@dataclass(frozen=True)
class _Source:
    """A source's fingerprint and shape; `shape` None where it has no picture, and `fault` why."""

    size_bytes: int
    sha256: str
    shape: Shape | None
    fault: str


def _sources(cuts: Sequence[Cut], target: Path) -> dict[Path, _Source]:
    """Every source once, by its path."""
    found = {path: _source(path) for path in {cut.path: None for cut in cuts}}
    if all(source.shape is None for source in found.values()):
        path, first = next(iter(found.items()))
        raise _nothing(target, cuts, f"{path}: {first.fault}")
    return found


def _source(path: Path) -> _Source:
    readable = path.is_file()
    size_bytes, sha256 = (path.stat().st_size, file_hash(path)) if readable else (0, "")
    try:
        return _Source(size_bytes, sha256, shape(path), "")
    except VideoError as error:
        return _Source(size_bytes, sha256, None, error.reason)


def _nothing(target: Path, cuts: Sequence[Cut], why: str) -> AtomError:
    return AtomError(
        f"{target}: none of the {len(cuts)} cuts gives a picture ({why}); fetch the videos again"
    )


def _size(shapes: Sequence[Shape], width: int | None, height: int | None) -> tuple[int, int]:
    if width is None and height is None:
        return default_size(shapes)
    if width is None or height is None:
        raise AtomError(f"width={width}, height={height}: give both, or neither")
    if any(side % 2 or side not in _SIDES for side in (width, height)):
        raise AtomError(
            f"width={width}, height={height}: both must be even, "
            f"from {_SIDES[0]} to {_SIDES[-1] // 2 * 2}"
        )
    return width, height


def _render(cut: Cut, source: _Source, movie: "_Movie", rows: list[EditedCut]) -> Iterator[float]:
    """Adds a cut to the movie and its row to the list; gives the share of it that is done."""
    begin = movie.frames
    try:
        pictures = PictureReader(cut, rate=movie.rate, width=movie.width, height=movie.height)
    except VideoError as error:
        rows.append(_row(cut, source, movie, begin, status=error.status, detail=error.reason))
        return
    sound = SoundReader(cut.path, pictures.zero_s, pictures.begin_s)
    with closing(pictures), closing(sound):
        for canvas in pictures:
            movie.add(canvas, sound, starts=movie.frames == begin)
            yield pictures.made / pictures.planned
    faults = [fault for fault in (pictures.shortfall, sound.fault) if fault]
    found = {
        "source_start_s": round(pictures.begin_s, 6),
        "source_end_s": round(pictures.end_s, 6),
        "box": pictures.box,
        "has_sound": sound.found,
        "status": "partial" if faults else "ok",
        "detail": "; ".join(faults),
    }
    rows.append(_row(cut, source, movie, begin, **found))


def _row(cut: Cut, source: _Source, movie: "_Movie", begin: int, **found: Any) -> EditedCut:
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
        start_s=round(float(begin / movie.rate), 6),
        end_s=round(float(movie.frames / movie.rate), 6),
        start_frame=begin,
        end_frame=movie.frames,
        caption=cut.caption,
        narration=cut.narration,
        **{**no_picture, **found},
    )


class _Movie:
    """The file while it is written; leave it by way of `with`, which ends the streams."""

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
            # Tracks end where the movie's clock says, by default to the millisecond below.
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
        self._waiting: npt.NDArray[np.float32] = np.zeros((2, 0), np.float32)
        self._encoded = 0

    def add(self, canvas: npt.NDArray[np.uint8], sound: SoundReader, *, starts: bool) -> None:
        """One picture, and of the sound what belongs to it; a cut `starts` with a keyframe."""
        frame = av.VideoFrame.from_ndarray(canvas, format="yuv420p")
        frame.pts, frame.time_base = self.frames, 1 / self.rate
        frame.colorspace, frame.color_range = _BT709_MATRIX, ColorRange.MPEG
        if starts:
            frame.pict_type = PictureType.I
        self._container.mux(self._video.encode(frame))
        if self._sound is not None:
            # Counted from the movie's start: rounding in one cut must not add up over many.
            count = self._samples(self.frames + 1) - self._samples(self.frames)
            self._waiting = np.concatenate([self._waiting, sound.read(count)], axis=1)
            while self._waiting.shape[1] >= _AAC_BLOCK:
                self._encode_sound(_AAC_BLOCK)
        self.frames += 1

    def _samples(self, frames: int) -> int:
        return round(frames * SOUND_HZ / self.rate)

    def _encode_sound(self, count: int) -> None:
        block, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, self._encoded, 1 / _HZ
        self._container.mux(self._sound.encode(frame))
        self._encoded += count

    def __enter__(self) -> "_Movie":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.frames:
                if self._sound is not None:
                    if self._waiting.shape[1]:
                        self._encode_sound(self._waiting.shape[1])
                    self._container.mux(self._sound.encode(None))
                self._container.mux(self._video.encode(None))
        finally:
            self._container.close()
