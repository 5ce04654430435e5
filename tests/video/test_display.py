"""HDR, interlaced and transparent footage: captions and cuts show what a player shows."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from atom_repro.video import display
from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.verify import verify_movie
from atom_repro.video.editing.writer import render_movie
from atom_repro.video.file import write_video
from atom_repro.video.sampling import read_frames


def write(path: Path, frames: list, codec: str, *, options: dict, **properties: int) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, frames[0].format.name
        for name, value in properties.items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def interlaced(tmp_path_factory) -> Path:
    """A bright bar that is eight columns further to the right in every second row."""
    picture = np.full((64, 64, 3), 40, np.uint8)
    picture[::2, 16:32], picture[1::2, 24:40] = 210, 210
    frames = [
        av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv422p")
        for _ in range(5)
    ]
    options = {"x264-params": "interlaced=1:tff=1", "crf": "1", "threads": "1"}
    return write(tmp_path_factory.mktemp("v") / "a.mkv", frames, "libx264", options=options)


def combing(levels: np.ndarray) -> float:
    return float(np.abs(2 * levels[1:-1] - levels[:-2] - levels[2:]).mean())


def levels_of(path: Path) -> np.ndarray:
    got = read_frames(path, frames=1, size=64, sampling="centre")
    assert (got.status, got.detail) == ("ok", "")
    return got.pixels[0].astype(float).mean(-1)


def test_fields_are_separated_in_captions_and_cuts(interlaced, tmp_path):
    with av.open(str(interlaced)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="gray").astype(float)
    assert combing(stored) > 20
    assert combing(levels_of(interlaced)) < 2
    edited = render_movie([Cut("a", interlaced)], tmp_path / "movie.mp4", fps=10)
    assert edited.cuts[0].status == "ok"
    assert combing(levels_of(tmp_path / "movie.mp4")) < 2


def test_a_transparent_picture_stands_on_black(tmp_path):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[..., 0], picture[:32, :, 3] = 255, 255
    frames = [av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="argb")] * 3
    path = write(tmp_path / "a.mov", frames, "qtrle", options={})
    pixels = read_frames(path, frames=1, size=64, sampling="centre").pixels[0]
    np.testing.assert_allclose(pixels[8, 8], (255, 0, 0), atol=3)
    np.testing.assert_allclose(pixels[56, 8], (0, 0, 0), atol=3)
    render_movie([Cut("a", path)], tmp_path / "movie.mp4", fps=10)
    assert levels_of(tmp_path / "movie.mp4")[56, 8] < 6


def test_hdr_is_mapped_to_bt709_with_its_white_and_colours(tmp_path):
    """Grey of 203 cd/m², HDR's diffuse white, and a red of BT.2020 that is BT.709's."""
    picture = np.zeros((64, 64, 3), np.uint16)
    nits = np.array([[203.0, 203.0, 203.0], [203 * 0.6274, 203 * 0.0691, 203 * 0.0164]])
    codes = np.array([pq(row) for row in nits])
    picture[:32], picture[32:] = np.round(codes * 65535)[0], np.round(codes * 65535)[1]
    frame = av.VideoFrame.from_ndarray(picture, format="rgb48le").reformat(
        format="yuv420p10le", dst_colorspace=9, dst_color_range=1
    )
    path = write(
        tmp_path / "a.mp4", [frame] * 3, "libx264", options={"crf": "1", "threads": "1"},
        color_trc=ColorTrc.SMPTE2084, color_primaries=ColorPrimaries.BT2020, colorspace=9,
        color_range=1,
    )  # fmt: skip
    pixels = read_frames(path, frames=1, size=64, sampling="centre").pixels[0]
    np.testing.assert_allclose(pixels[8, 8], (255, 255, 255), atol=12)
    np.testing.assert_allclose(pixels[56, 8], (255, 0, 0), atol=40)


def pq(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084's code values, from 0 to 1."""
    power = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def test_what_this_build_cannot_do_is_said(interlaced, tmp_path, monkeypatch):
    monkeypatch.setattr(display, "_DEINTERLACE", ("no_such_filter", ""))
    got = read_frames(interlaced, frames=1, size=64, sampling="centre")
    assert got.status == "partial"
    assert got.detail.startswith("its fields are not separated: this build of FFmpeg cannot")
    (cut,) = render_movie([Cut("a", interlaced)], tmp_path / "movie.mp4").cuts
    assert "its fields are not separated" in cut.detail


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((-1, 0, 0, 1), "top right"),  # mirrored, as selfies are
        ((1, 0, 0, -1), "bottom left"),
        ((-1, 0, 0, -1), "bottom right"),
        ((0, 1, -1, 0), "top right"),
        ((0, -1, 1, 0), "bottom left"),
        ((0, 1, 1, 0), "top left"),
        ((0, -1, -1, 0), "bottom right"),
    ],
)
def test_turned_and_mirrored_films_stand_as_in_a_player(tmp_path, matrix, corner):
    """The film is white in its top left corner, and its header says how it is shown."""
    path = tmp_path / "a.mp4"
    pixels = np.zeros((5, 48, 64, 3), np.uint8)
    pixels[:, :24, :32] = 255
    write_video(path, pixels, 10)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44  # behind version, times, track, layer and volume
    a, b, c, d = (number << 16 for number in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    edited = render_movie([Cut("a", path, 0.0, 0.5)], tmp_path / "movie.mp4", fps=10)
    verify_movie(edited, tmp_path / "movie.mp4")
    for shown in (path, tmp_path / "movie.mp4"):
        levels = levels_of(shown)
        halves = {"top": slice(0, 32), "bottom": slice(32, 64)}
        sides = {"left": slice(0, 32), "right": slice(32, 64)}
        quarters = {
            f"{half} {side}": levels[halves[half], sides[side]].mean()
            for half in halves
            for side in sides
        }
        assert max(quarters, key=quarters.get) == corner


def test_a_film_shorter_than_a_frame_of_the_movie_is_cut(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, np.full((2, 48, 64, 3), 90, np.uint8), 100)
    edited = render_movie([Cut("a", path, 0.0, 0.02)], tmp_path / "movie.mp4", fps=10)
    verify_movie(edited, tmp_path / "movie.mp4")
    assert [cut.frames for cut in edited.cuts] == [1]
