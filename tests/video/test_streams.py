"""Which stream of a file is the film, and how long that is, on small files made here."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.verify import verify_movie
from atom_repro.video.editing.writer import render_movie
from atom_repro.video.file import MOST_PIXELS, VideoError, write_video
from atom_repro.video.sampling import probe, read_frames

RED, GREY = (255, 0, 0), (128, 128, 128)


def write(path: Path, *videos: dict, sound_s: float = 0.0) -> Path:
    """A file with one video stream for each of `videos`: its colour, size, seconds and flags."""
    with av.open(str(path), "w") as out:
        streams = []
        for video in videos:
            stream = out.add_stream(video.get("codec", "libx264"), rate=10)
            stream.width, stream.height = video.get("size", (32, 32))
            stream.pix_fmt = video.get("format", "yuv420p")
            stream.codec_context.thread_count = 1
            stream.disposition = video.get("disposition", Disposition(0))
            streams.append(stream)
        sound = out.add_stream("aac", rate=44100, layout="mono") if sound_s else None
        for video, stream in zip(videos, streams, strict=True):
            picture = np.full((stream.height, stream.width, 3), video["colour"], np.uint8)
            for number in range(round(10 * video.get("seconds", 1.0))):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        if sound is not None:
            for at in range(0, round(44100 * sound_s), 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                frame.sample_rate, frame.pts = 44100, at
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
    return path


def colour(path: Path) -> np.ndarray:
    return read_frames(path, frames=1, size=16, sampling="centre").pixels[0].mean((0, 1))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_default_stream_is_captioned_and_cut(tmp_path, suffix):
    path = write(
        tmp_path / f"two.{suffix}",
        {"colour": GREY, "size": (128, 128)},
        {"colour": RED, "size": (64, 48), "disposition": Disposition.default},
    )
    np.testing.assert_allclose(colour(path), RED, atol=12)
    info = probe(path)
    assert (info.width, info.height) == (64, 48)
    edited = render_movie([Cut("two", path)], tmp_path / "movie.mp4")
    assert (edited.width, edited.height) == (64, 48)
    np.testing.assert_allclose(colour(tmp_path / "movie.mp4"), RED, atol=12)


def test_of_equal_streams_the_largest_is_shown(tmp_path):
    path = write(tmp_path / "a.mkv", {"colour": GREY}, {"colour": RED, "size": (64, 64)})
    np.testing.assert_allclose(colour(path), RED, atol=12)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_video_is_as_long_as_its_pictures(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", {"colour": RED}, sound_s=6.0)
    with av.open(str(path)) as container:
        assert container.duration > 5 * av.time_base
    info = probe(path)
    assert info.duration_s == pytest.approx(1.0, abs=0.05)
    assert info.frames == 10
    assert info.has_audio


def test_a_header_does_not_say_how_long_a_video_is(tmp_path):
    path = write(tmp_path / "a.mkv", {"colour": RED})
    content = path.read_bytes()
    at = content.index(b"\x44\x89\x88") + 3  # Matroska's Duration, a float of 8 bytes
    path.write_bytes(content[:at] + np.array([9e15], ">f8").tobytes() + content[at + 8 :])
    with av.open(str(path)) as container:
        assert container.duration > 1e12
    info = probe(path)
    assert info.duration_s == pytest.approx(1.0, abs=0.05)
    assert info.fault.startswith("the file ends at 1.0 s, its header says")


def test_sound_with_a_cover_is_no_video(tmp_path):
    cover = {"colour": GREY, "seconds": 0.1, "codec": "mjpeg", "format": "yuvj420p"}
    path = write(tmp_path / "a.mp4", cover | {"disposition": Disposition.attached_pic}, sound_s=2.0)
    for call in (lambda: probe(path), lambda: colour(path)):
        with pytest.raises(VideoError, match=r"a\.mp4: it is sound with a cover picture"):
            call()


def test_a_cover_beside_a_film_is_not_the_film(tmp_path):
    cover = {"colour": GREY, "seconds": 0.1, "codec": "mjpeg", "format": "yuvj420p"}
    path = write(
        tmp_path / "a.mp4",
        cover | {"size": (64, 64), "disposition": Disposition.attached_pic},
        {"colour": RED},
    )
    np.testing.assert_allclose(colour(path), RED, atol=12)


def test_pictures_too_large_to_decode_are_refused_in_a_line(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", {"colour": RED, "size": (64, 64)})
    assert MOST_PIXELS >= 7680 * 4320
    monkeypatch.setattr("atom_repro.video.file.MOST_PIXELS", 64 * 64 - 1)
    with pytest.raises(VideoError, match=r"a\.mp4: its pictures have 64 x 64 pixels; more than"):
        probe(path)


def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
    write_video(tmp_path / "part:2.mp4", np.zeros((4, 32, 32, 3), np.uint8), 4)
    monkeypatch.chdir(tmp_path)
    assert probe(Path("part:2.mp4")).frames == 4


def parts(tmp_path: Path, *colours: tuple[int, int, int]) -> Path:
    """Recordings of two seconds each, one after the other in a transport stream."""
    path = tmp_path / "parts.ts"
    content = b""
    for number, part in enumerate(colours):
        content += write(
            tmp_path / f"{number}.ts", {"colour": part, "seconds": 2.0}, sound_s=2.0
        ).read_bytes()
    path.write_bytes(content)
    return path


def test_a_clock_that_starts_anew_goes_on(tmp_path):
    path = parts(tmp_path, RED, GREY, RED)
    info = probe(path)
    assert info.duration_s == pytest.approx(6.0, abs=0.2)
    assert info.frames == 60
    for start_s, seen in ((0.2, RED), (2.4, GREY), (4.4, RED)):
        got = read_frames(
            path, frames=3, size=16, sampling="centre", start_s=start_s, end_s=start_s + 1.2
        )
        assert (got.status, got.detail) == ("ok", "")
        np.testing.assert_allclose(got.pixels.mean((0, 1, 2)), seen, atol=12)
        assert start_s <= got.times_s[0] < got.times_s[-1] < start_s + 1.2


def test_cuts_of_such_a_file_are_what_was_captioned(tmp_path):
    path = parts(tmp_path, RED, GREY)
    edited = render_movie([Cut("a", path, 2.5, 3.5)], tmp_path / "movie.mp4", fps=10)
    verify_movie(edited, tmp_path / "movie.mp4")
    np.testing.assert_allclose(colour(tmp_path / "movie.mp4"), GREY, atol=12)
    (cut,) = edited.cuts
    assert cut.frames == 10
    assert cut.detail == "its sound is left out, as its clock starts anew within the file"


def test_a_hole_in_a_broadcast_is_closed(tmp_path):
    path = write(tmp_path / "a.ts", {"colour": RED, "seconds": 2.0})
    late = tmp_path / "b.ts"
    with av.open(str(path)) as source, av.open(str(late), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts += 90_000 * 3600
                packet.dts += 90_000 * 3600
                out.mux(packet)
    both = tmp_path / "both.ts"
    both.write_bytes(path.read_bytes() + late.read_bytes())
    assert probe(both).duration_s == pytest.approx(4.0, abs=0.2)


def test_a_film_that_was_trimmed_without_being_encoded_anew_is_whole(tmp_path):
    """Phones trim so: the packets from the keyframe on stay, an edit list says what is shown."""
    write_video(tmp_path / "a.mp4", np.zeros((40, 32, 32, 3), np.uint8), 10)
    trimmed = tmp_path / "trimmed.mp4"
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with (
        av.open(str(tmp_path / "a.mp4")) as source,
        av.open(str(trimmed), "w", options=options) as out,
    ):
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                back = round(1.5 / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - back, packet.dts - back, copy
                out.mux(packet)
    info = probe(trimmed)
    assert (info.frames, info.duration_s, info.fault) == (25, pytest.approx(2.5), "")
    got = read_frames(trimmed, frames=5, size=16, sampling="centre")
    assert (got.status, got.detail) == ("ok", "")
    trimmed.write_bytes(trimmed.read_bytes()[:-500])  # its index is at the end
    with pytest.raises(VideoError, match="not a readable video"):
        probe(trimmed)
