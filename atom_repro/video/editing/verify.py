"""Verification of a rendered movie: decode it and compare it with its edit list and sources.

Sources are read through `sampling.read_frames`, which shares no scaling code with the renderer, so
that a defect of one is not masked by the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from atom_repro.datatypes import AtomError
from atom_repro.records.provenance import file_hash
from atom_repro.video.editing.edit_list import Box, EditedCut, EditList
from atom_repro.video.editing.reader import BLACK_Y, ROUNDING_S, SOUND_HZ, planes
from atom_repro.video.file import (
    RESIZE,
    DecodedFrames,
    error_text,
    open_video,
    seconds,
    video_stream,
)
from atom_repro.video.frame_times import read_frame_times
from atom_repro.video.sampling import read_frames

# Side of the compared thumbnails, and the largest mean absolute difference, of 255 levels, between
# thumbnails of the same frame: rendering changes real clips by up to 2, and the guessed colour
# matrix of an untagged source a test pattern by 7. A different scene differs by 20 or more.
_THUMBNAIL = 24
_MAX_DIFFERENCE = 12.0
_MAX_BAR_LEVEL = 12.0

# AAC is decoded in whole blocks, the last of which may extend past the duration in the header.
_AAC_BLOCK = 1024


def verify_movie(edit_list: EditList, mp4: Path) -> None:
    """Decodes a movie and checks it against its edit list and sources.

    Checks the file hash, frame size and count, every frame's time, the sound's length, a keyframe
    at each cut, and three frames of every cut (first, middle, last) against the source at that
    time, with black bars.

    Raises:
        AtomError: a mismatch, or a source that is missing or has changed since.
    """
    with _mismatch_as_error(mp4):
        if file_hash(mp4) != edit_list.sha256:
            raise _Mismatch("its sha256 is not the one in the edit list")
        _check_order(edit_list)
        _check_sound(edit_list, mp4)
        thumbnails = _check_frames(edit_list, mp4)
    fingerprints: dict[Path, str] = {}
    for cut in edit_list.cuts:
        if cut.frames:
            _check_source(cut, fingerprints)
            with _mismatch_as_error(mp4):
                for index in _compared_frames(cut):
                    _compare(edit_list, cut, index, thumbnails[index])


class _Mismatch(Exception):
    """A difference between a movie and its edit list or sources."""


@contextmanager
def _mismatch_as_error(mp4: Path) -> Iterator[None]:
    if not mp4.is_file():
        raise AtomError(f"{mp4}: there is no such movie; render it again")
    try:
        yield
    except _Mismatch as error:
        raise AtomError(f"{mp4}: {error}; render the movie again") from None


def _check_order(edit_list: EditList) -> None:
    """Checks that the cuts are contiguous and cover the whole movie."""
    frame = 0
    for cut in edit_list.cuts:
        if cut.start_frame != frame or cut.end_frame < frame:
            raise _Mismatch(f"{_cut_label(cut)} starts at frame {cut.start_frame}, not at {frame}")
        frame = cut.end_frame
    if frame != edit_list.frames:
        raise _Mismatch(f"its cuts have {frame} frames, the list says {edit_list.frames}")


def _check_frames(
    edit_list: EditList, mp4: Path
) -> dict[int, tuple[npt.NDArray[np.float32], float]]:
    """Decodes and checks every frame.

    Returns, by frame number, thumbnail (24, 24, 3) and mean bar level of the frames to compare.
    """
    thumbnails: dict[int, tuple[npt.NDArray[np.float32], float]] = {}
    boxes = {index: cut.box for cut in edit_list.cuts for index in _compared_frames(cut)}
    starts = {cut.start_frame: cut for cut in edit_list.cuts if cut.frames}
    with open_video(mp4) as container:
        stream = video_stream(container)
        declared_s = seconds(stream.duration, stream.time_base)
        time_base = stream.time_base
        frames = DecodedFrames(container, stream)
        for index, frame in enumerate(frames):
            _check_frame(edit_list, index, frame, time_base, starts.get(index))
            if index in boxes:
                thumbnails[index] = _thumbnail(frame, boxes[index])
    if frames.fault:
        raise _Mismatch(frames.fault)
    if frames.count != edit_list.frames:
        raise _Mismatch(f"it has {frames.count} frames, the list says {edit_list.frames}")
    if declared_s is None or abs(declared_s - edit_list.duration_s) > ROUNDING_S:
        raise _Mismatch(f"it lasts {declared_s} s, the list says {edit_list.duration_s:.3f}")
    return thumbnails


def _check_frame(
    edit_list: EditList, index: int, frame: Any, time_base: Fraction, new_cut: EditedCut | None
) -> None:
    size = (frame.width, frame.height)
    if size != (edit_list.width, edit_list.height):
        raise _Mismatch(f"frame {index} is {size[0]} x {size[1]} pixels")
    at_s = seconds(frame.pts, time_base)
    expected_s = float(index / edit_list.fps)
    if at_s is None or abs(at_s - expected_s) > ROUNDING_S:
        raise _Mismatch(f"frame {index} is shown at {at_s} s instead of {expected_s:.4f}")
    if new_cut is not None and not frame.key_frame:
        raise _Mismatch(f"frame {index}, where {_cut_label(new_cut)} starts, is not a keyframe")


def _check_sound(edit_list: EditList, mp4: Path) -> None:
    with open_video(mp4) as container:
        streams = container.streams.audio
        if bool(streams) != edit_list.has_sound:
            raise _Mismatch(f"it has {len(streams)} sound tracks")
        if not streams:
            return
        track = streams[0]
        samples, first_s = 0, None
        declared_s = seconds(track.duration, track.time_base) or 0.0
        try:
            for frame in container.decode(track):
                if (frame.sample_rate, frame.layout.name) != (SOUND_HZ, "stereo"):
                    raise _Mismatch(f"its sound is {frame.sample_rate} Hz {frame.layout.name}")
                samples += frame.samples
                first_s = seconds(frame.pts, frame.time_base) if first_s is None else first_s
        except FFmpegError as error:
            raise _Mismatch(f"its sound breaks ({error_text(error)})") from None
    expected = round(edit_list.frames * SOUND_HZ / edit_list.fps)
    declared = round(declared_s * SOUND_HZ)
    if declared != expected or not expected <= samples < expected + _AAC_BLOCK or first_s != 0:
        raise _Mismatch(
            f"its sound has {samples} samples ({declared} in its header) from {first_s} s on, "
            f"its frames last {expected} samples"
        )


def _check_source(cut: EditedCut, fingerprints: dict[Path, str]) -> None:
    if not cut.path.is_file():
        raise AtomError(f"{cut.path}: the source of {_cut_label(cut)} is missing; restore the file")
    if cut.path not in fingerprints:
        fingerprints[cut.path] = file_hash(cut.path)
    if fingerprints[cut.path] != cut.source_sha256:
        raise AtomError(
            f"{cut.path}: changed since {_cut_label(cut)} was cut; render the movie again"
        )


def _compared_frames(cut: EditedCut) -> list[int]:
    """Frame numbers of the movie to compare with the source: first, middle and last of a cut."""
    if not cut.frames:
        return []
    return sorted({cut.start_frame, cut.start_frame + cut.frames // 2, cut.end_frame - 1})


def _compare(
    edit_list: EditList,
    cut: EditedCut,
    index: int,
    thumbnail_and_bars: tuple[npt.NDArray[np.float32], float],
) -> None:
    thumbnail, bar_level = thumbnail_and_bars
    at_s = (
        cut.source_start_s
        + float((index - cut.start_frame + Fraction(1, 2)) / edit_list.fps)
        + ROUNDING_S
    )
    if cut.frames == 1:  # of a source that is shorter than half a frame of the movie
        times = read_frame_times(cut.path, cut.source_start_s, at_s)
        at_s = min(at_s, times.end_s - ROUNDING_S)
    source = read_frames(
        cut.path,
        frames=1,
        size=_THUMBNAIL,
        sampling="centre",
        # A window whose middle is `at_s`, and that starts before the video ends.
        start_s=max(0.0, at_s - 2 * ROUNDING_S),
        end_s=at_s + 2 * ROUNDING_S,
    )
    difference = float(np.abs(thumbnail - source.pixels[0]).mean())
    if difference > _MAX_DIFFERENCE:
        raise _Mismatch(
            f"frame {index} of {_cut_label(cut)} does not match its source at {at_s:.3f} s "
            f"(mean difference {difference:.0f} of 255)"
        )
    if bar_level > _MAX_BAR_LEVEL:
        raise _Mismatch(f"frame {index} of {_cut_label(cut)} is not black outside its box")


def _thumbnail(frame: Any, box: Box) -> tuple[npt.NDArray[np.float32], float]:
    """RGB thumbnail (24, 24, 3) of the box, and the mean luma of the bars above black.

    The box is cropped in 4:2:0, so that it is scaled as `sampling` scales the source: converted to
    RGB at full size first, a test pattern differs by 19 levels from itself.
    """
    cropped, bar_level = [], 0.0
    flat = frame.to_ndarray().reshape(-1)
    for plane, step in zip(planes(flat, frame.width, frame.height), (1, 2, 2), strict=True):
        rows = slice(box.y // step, (box.y + box.height) // step)
        columns = slice(box.x // step, (box.x + box.width) // step)
        cropped.append(plane[rows, columns].reshape(-1))
        outside = np.ones(plane.shape, bool)
        outside[rows, columns] = False
        if step == 1 and outside.any():
            bar_level = float(plane[outside].mean()) - BLACK_Y
    packed = np.concatenate(cropped).reshape(-1, box.width)
    inside = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    inside.colorspace, inside.color_range = frame.colorspace, frame.color_range
    small = inside.reformat(
        width=_THUMBNAIL, height=_THUMBNAIL, format="rgb24", interpolation=RESIZE, threads=1
    )
    return small.to_ndarray().astype(np.float32), bar_level


def _cut_label(cut: EditedCut) -> str:
    return f"{cut.video_id} ({cut.source_start_s:.3f}-{cut.source_end_s:.3f} s)"
