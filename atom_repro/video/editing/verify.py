"""Whether a movie is what its edit list says: decoded again, and compared with the sources.

The sources are read by way of `frames`, which shares with the rendering neither its rotation nor
its scaling, so that a fault of one does not hide in the other.
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
from atom_repro.video.file import RESIZE, open_video, pictures, said, seconds
from atom_repro.video.sampling import read_frames

# Side of the thumbnails that are compared, and how far apart two of one picture may be on average,
# of 255 levels: rendering changes real clips by up to 2, and the guess at the colour matrix of an
# untagged source, on a test pattern, by 7. Another scene is 20 and more away.
_THUMBNAIL = 24
_MOST_DIFFERENT = 12.0
_MOST_LIGHT_IN_BARS = 12.0

# AAC is decoded in whole blocks, the last of which goes past the end that the header gives.
_AAC_BLOCK = 1024


def verify(edit_list: EditList, mp4: Path) -> None:
    """Decodes a movie and checks it against its edit list.

    Bytes, size, frame count, every frame's time, the sound's length, a keyframe at each cut, and
    three pictures of every cut (first, middle, last) against the source at that time, bars too.

    Raises:
        AtomError: what differs, or a source that is gone or has changed since.
    """
    with _differences(mp4):
        if file_hash(mp4) != edit_list.sha256:
            raise _Differs("its bytes are not those that the edit list has the sha256 of")
        _check_order(edit_list)
        _check_sound(edit_list, mp4)
        thumbnails = _check_frames(edit_list, mp4)
    fingerprints: dict[Path, str] = {}
    for cut in edit_list.cuts:
        if cut.frames:
            _check_source(cut, fingerprints)
            with _differences(mp4):
                for index in _looked_at(cut):
                    _compare(edit_list, cut, index, thumbnails[index])


class _Differs(Exception):
    """What of a movie is not as its edit list says."""


@contextmanager
def _differences(mp4: Path) -> Iterator[None]:
    if not mp4.is_file():
        raise AtomError(f"{mp4}: there is no such movie; render it again")
    try:
        yield
    except _Differs as error:
        raise AtomError(f"{mp4}: {error}; render the movie again") from None


def _check_order(edit_list: EditList) -> None:
    """The cuts of the list follow each other without a gap and fill the movie."""
    frame = 0
    for cut in edit_list.cuts:
        if cut.start_frame != frame or cut.end_frame < frame:
            raise _Differs(f"{_name(cut)} starts at frame {cut.start_frame}, not at {frame}")
        frame = cut.end_frame
    if frame != edit_list.frames:
        raise _Differs(f"its cuts have {frame} frames, the list says {edit_list.frames}")


def _check_frames(
    edit_list: EditList, mp4: Path
) -> dict[int, tuple[npt.NDArray[np.float32], float]]:
    """Decodes every frame.

    Returns, for those that are compared, the picture (24, 24, 3) and the mean level of its bars.
    """
    kept: dict[int, tuple[npt.NDArray[np.float32], float]] = {}
    boxes = {index: cut.box for cut in edit_list.cuts for index in _looked_at(cut)}
    starts = {cut.start_frame: cut for cut in edit_list.cuts if cut.frames}
    count = 0
    with open_video(mp4) as container:
        stream = container.streams.video[0]
        declared_s = seconds(stream.duration, stream.time_base)
        time_base = stream.time_base
        try:
            for picture in pictures(container, stream):
                _check_frame(edit_list, count, picture, time_base, starts.get(count))
                if count in boxes:
                    kept[count] = _split(picture, boxes[count])
                count += 1
        except FFmpegError as error:
            raise _Differs(f"it cannot be decoded after frame {count} ({said(error)})") from None
    if count != edit_list.frames:
        raise _Differs(f"it has {count} frames, the list says {edit_list.frames}")
    if declared_s is None or abs(declared_s - edit_list.duration_s) > ROUNDING_S:
        raise _Differs(f"it lasts {declared_s} s, the list says {edit_list.duration_s:.3f}")
    return kept


def _check_frame(
    edit_list: EditList, index: int, picture: Any, time_base: Fraction, starts: EditedCut | None
) -> None:
    size = (picture.width, picture.height)
    if size != (edit_list.width, edit_list.height):
        raise _Differs(f"frame {index} is {size[0]} x {size[1]} pixels")
    at_s = seconds(picture.pts, time_base)
    due_s = float(index / edit_list.fps)
    if at_s is None or abs(at_s - due_s) > ROUNDING_S:
        raise _Differs(f"frame {index} is shown at {at_s} s instead of {due_s:.4f}")
    if starts is not None and not picture.key_frame:
        raise _Differs(f"frame {index}, where {_name(starts)} starts, is no keyframe")


def _check_sound(edit_list: EditList, mp4: Path) -> None:
    with open_video(mp4) as container:
        streams = container.streams.audio
        if bool(streams) != edit_list.has_sound:
            raise _Differs(f"it has {len(streams)} sound tracks")
        if not streams:
            return
        track = streams[0]
        samples, first_s = 0, None
        declared_s = seconds(track.duration, track.time_base) or 0.0
        try:
            for frame in container.decode(track):
                if (frame.sample_rate, frame.layout.name) != (SOUND_HZ, "stereo"):
                    raise _Differs(f"its sound is {frame.sample_rate} Hz {frame.layout.name}")
                samples += frame.samples
                first_s = seconds(frame.pts, frame.time_base) if first_s is None else first_s
        except FFmpegError as error:
            raise _Differs(f"its sound breaks ({said(error)})") from None
    due = round(edit_list.frames * SOUND_HZ / edit_list.fps)
    declared = round(declared_s * SOUND_HZ)
    if declared != due or not due <= samples < due + _AAC_BLOCK or first_s != 0:
        raise _Differs(
            f"its sound has {samples} samples ({declared} by its header) from {first_s} s on, "
            f"its pictures last {due}"
        )


def _check_source(cut: EditedCut, fingerprints: dict[Path, str]) -> None:
    if not cut.path.is_file():
        raise AtomError(f"{cut.path}: the source of {_name(cut)} is gone; put it back")
    if cut.path not in fingerprints:
        fingerprints[cut.path] = file_hash(cut.path)
    if fingerprints[cut.path] != cut.source_sha256:
        raise AtomError(f"{cut.path}: changed since {_name(cut)} was cut; render the movie again")


def _looked_at(cut: EditedCut) -> list[int]:
    """Frames of the movie that are compared: first, middle and last of the cut."""
    if not cut.frames:
        return []
    return sorted({cut.start_frame, cut.start_frame + cut.frames // 2, cut.end_frame - 1})


def _compare(
    edit_list: EditList,
    cut: EditedCut,
    index: int,
    found: tuple[npt.NDArray[np.float32], float],
) -> None:
    picture, bars = found
    at_s = (
        cut.source_start_s
        + float((index - cut.start_frame + Fraction(1, 2)) / edit_list.fps)
        + ROUNDING_S
    )
    source = read_frames(
        cut.path,
        frames=1,
        size=_THUMBNAIL,
        sampling="centre",
        # A window whose middle is the time that is meant, and that opens before the video ends.
        start_s=max(0.0, at_s - 2 * ROUNDING_S),
        end_s=at_s + 2 * ROUNDING_S,
    )
    difference = float(np.abs(picture - source.pixels[0]).mean())
    if difference > _MOST_DIFFERENT:
        raise _Differs(
            f"frame {index} of {_name(cut)} is not its source at {at_s:.3f} s "
            f"(mean difference {difference:.0f} of 255)"
        )
    if bars > _MOST_LIGHT_IN_BARS:
        raise _Differs(f"frame {index} of {_name(cut)} is not black around its picture")


def _split(picture: Any, box: Box) -> tuple[npt.NDArray[np.float32], float]:
    """The picture in its box (24, 24, 3), RGB, and how light the rest is, 0 to 255.

    Cut out of the planes, so that it is scaled as `frames` scales the source: by way of RGB at
    full size a test pattern differs by 19 levels from itself.
    """
    parts, light = [], 0.0
    flat = picture.to_ndarray().reshape(-1)
    for plane, by in zip(planes(flat, picture.width, picture.height), (1, 2, 2), strict=True):
        rows = slice(box.y // by, (box.y + box.height) // by)
        columns = slice(box.x // by, (box.x + box.width) // by)
        parts.append(plane[rows, columns].reshape(-1))
        outside = np.ones(plane.shape, bool)
        outside[rows, columns] = False
        if by == 1 and outside.any():
            light = float(plane[outside].mean()) - BLACK_Y
    packed = np.concatenate(parts).reshape(-1, box.width)
    inside = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    inside.colorspace, inside.color_range = picture.colorspace, picture.color_range
    small = inside.reformat(
        width=_THUMBNAIL, height=_THUMBNAIL, format="rgb24", interpolation=RESIZE, threads=1
    )
    return small.to_ndarray().astype(np.float32), light


def _name(cut: EditedCut) -> str:
    return f"{cut.video_id} ({cut.source_start_s:.3f}-{cut.source_end_s:.3f} s)"
