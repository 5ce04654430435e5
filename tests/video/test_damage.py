"""A packet that cannot be decoded: what is read, cut and said of a video that has one."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from atom_repro.datatypes import Clip
from atom_repro.models.generation import Generated
from atom_repro.runtime.captioning import read_clips
from atom_repro.training.batches import FrameBank
from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.reader import FrameReader
from atom_repro.video.editing.verify import verify_movie
from atom_repro.video.editing.writer import render_movie
from atom_repro.video.file import X264
from atom_repro.video.sampling import probe, read_frames

STEP = 5  # grey levels between neighbouring frames


def film(path: Path) -> Path:
    """Four seconds of ten frames, each of its own grey over noise, with a keyframe a second."""
    noise = np.random.default_rng(0).integers(0, 40, (64, 64, 1))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"x264-params": f"{X264}:keyint=10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(40):
            picture = np.broadcast_to(noise + STEP * number, (64, 64, 3)).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def destroy(path: Path, *numbers: int) -> Path:
    """Overwrite the packets of these frames, in the order of presentation."""
    with av.open(str(path)) as container:
        packets = sorted((p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size)
    content = bytearray(path.read_bytes())
    for number in numbers:
        _, at, size = packets[number]
        content[at : at + size] = b"\xff" * size
    path.write_bytes(content)
    return path


def shown(pixels: np.ndarray) -> list[int]:
    return [round((float(picture.mean()) - 19.5) / STEP) for picture in pixels]


def test_reading_goes_on_at_the_next_keyframe(tmp_path):
    path = destroy(film(tmp_path / "a.mp4"), 14)
    got = read_frames(path, frames=8, size=16, sampling="centre")
    assert (
        shown(got.pixels)[-4:]
        == shown(
            read_frames(film(tmp_path / "b.mp4"), frames=8, size=16, sampling="centre").pixels
        )[-4:]
    )
    assert got.times_s[-1] > 3.5
    assert got.status == "partial"
    assert got.detail == "1 frame is damaged, at 1.4 s (Invalid data found when processing input)"


def test_a_window_without_the_damage_is_sound(tmp_path):
    path = destroy(film(tmp_path / "a.mp4"), 14)
    got = read_frames(path, frames=4, size=16, sampling="centre", start_s=2.0, end_s=3.0)
    assert (got.status, got.detail) == ("ok", "")


def test_a_cut_lasts_as_long_as_asked_and_says_what_is_damaged(tmp_path):
    path = destroy(film(tmp_path / "a.mp4"), 14, 15)
    edited = render_movie([Cut("a", path, 0.0, 4.0)], tmp_path / "movie.mp4", fps=10)
    verify_movie(edited, tmp_path / "movie.mp4")
    (cut,) = edited.cuts
    assert (cut.frames, cut.source_end_s) == (40, pytest.approx(4.0))
    assert cut.status == "partial"
    assert cut.detail.startswith("2 frames are damaged, the first at 1.4 s")


def test_a_keyframe_that_is_lost_costs_what_depends_on_it_alone(tmp_path):
    path = destroy(film(tmp_path / "a.mp4"), 20)
    got = read_frames(path, frames=2, size=16, sampling="centre", start_s=2.0, end_s=4.0)
    assert got.status == "partial"
    assert shown(got.pixels)[-1] == 35
    reader = FrameReader(Cut("a", path, 2.0, 4.0), rate=Fraction(10), width=64, height=64)
    assert len(list(reader)) == 20
    assert "damaged" in reader.fault


def test_packets_that_a_broadcast_lost_are_said(tmp_path):
    path = film(tmp_path / "a.ts")
    content = bytearray(path.read_bytes())
    at = len(content) // 2 // 188 * 188
    content[at : at + 188 * 2] = b"\xff" * 188 * 2
    path.write_bytes(content)
    got = read_frames(path, frames=40, size=16, sampling="centre")
    assert got.status == "partial"
    assert "damaged" in got.detail
    assert got.times_s[-1] > 3.5


def test_what_a_training_or_a_caption_does_not_see_is_said(tmp_path, model):
    paths = film(tmp_path / "whole.mp4"), destroy(film(tmp_path / "torn.mp4"), 14)
    clips = [Clip("own", "train", path.stem, path) for path in paths]
    said = {"torn": "1 frame is damaged, at 1.4 s (Invalid data found when processing input)"}
    shape = {"frames": 2, "per_segment": 2, "size": 16, "folder": tmp_path / "bank", "name": "own"}
    assert FrameBank(clips, **shape).faults == said
    assert FrameBank([], **shape).faults == said  # of the next run, which decodes nothing
    batch = read_clips(clips, model.encoder)
    assert batch.faults == said
    captions = batch.outcomes([Generated((1,), 0.0, 0.0, text="a film")] * 2)
    assert [caption.fault for caption in captions] == ["", said["torn"]]


def test_a_file_that_was_cut_short_is_said_where_its_header_has_its_length(tmp_path):
    path = film(tmp_path / "a.mkv")
    assert probe(path).fault == ""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    info = probe(path)
    assert info.duration_s < 3
    assert info.fault == f"the file ends at {info.duration_s:.1f} s, its header says 4.0 s"
