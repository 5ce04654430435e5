"""Reader, probe, writer, windows and scan, on small files made here."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from atom_repro.datatypes import AtomError, Clip
from atom_repro.video.file import VideoError, write_video
from atom_repro.video.sampling import (
    check_clips,
    probe,
    read_frames,
    sliding_windows,
    unseen,
    windows_of,
)

STEP = 6  # grey levels between neighbouring frames: far above what compression changes


def grey(count: int, size: int = 32, *, width: int | None = None) -> np.ndarray:
    """Frame i is a plain grey of level STEP * i."""
    levels = (np.arange(count) * STEP).astype(np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (count, size, width or size, 3)).copy()


def encode(path: Path, pixels: np.ndarray, **made: object) -> Path:
    """Writes frames with chosen timestamps (milliseconds), container, codec and rotation."""
    stamps = made.get("stamps_ms", [100 * i for i in range(len(pixels))])
    with av.open(str(path), "w", format=made.get("format"), options=made.get("flags", {})) as out:
        stream = out.add_stream(made.get("codec", "libx264"), rate=10)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[2], pixels.shape[1], "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, made.get("clock", 1000))
        stream.codec_context.gop_size = 5
        stream.codec_context.thread_count = 1
        if "rotation" in made:
            stream.set_display_rotation(made["rotation"])
        for stamp_ms, picture in zip(stamps, pixels, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = stamp_ms * made.get("clock", 1000) // 1000
            frame.time_base = stream.codec_context.time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def shown(frames) -> list[int]:
    """Which source frames were picked, from their grey."""
    return [round(float(picture.mean()) / STEP) for picture in frames.pixels]


def test_centre_takes_the_middle_of_each_segment(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, grey(30), 10)
    got = read_frames(path, frames=6, size=32, sampling="centre")
    assert got.pixels.shape == (6, 32, 32, 3)
    assert got.pixels.dtype == np.uint8
    assert shown(got) == [2, 7, 12, 17, 22, 27]
    assert got.times_s == pytest.approx([0.2, 0.7, 1.2, 1.7, 2.2, 2.7])
    assert (got.status, got.detail) == ("ok", "")


def test_jitter_reaches_every_frame_of_its_segment_and_no_other(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, grey(12), 10)
    rng = np.random.default_rng(0)
    draws = [
        shown(read_frames(path, frames=3, size=16, sampling="jitter", rng=rng)) for _ in range(60)
    ]
    assert [set(column) for column in zip(*draws, strict=True)] == [
        {0, 1, 2, 3},
        {4, 5, 6, 7},
        {8, 9, 10, 11},
    ]


def test_jitter_without_a_generator_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rng"):
        read_frames(tmp_path / "a.mp4", frames=3, size=16, sampling="jitter")


def test_a_short_clip_repeats_frames(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, grey(2), 10)
    assert shown(read_frames(path, frames=6, size=16, sampling="centre")) == [0, 0, 0, 1, 1, 1]


def test_variable_frame_rate_is_sampled_evenly_in_time(tmp_path):
    # Ten frames in the first second, then one every half second.
    stamps = [*range(0, 1000, 100), 1000, 1500, 2000]
    path = encode(tmp_path / "a.mkv", grey(13), stamps_ms=stamps)
    got = read_frames(path, frames=4, size=16, sampling="centre", end_s=2.0)
    assert shown(got) == [2, 7, 10, 11]  # by index they would be 1, 4, 7, 10
    assert got.times_s == pytest.approx([0.2, 0.7, 1.0, 1.5])


def test_jitter_uses_the_frame_on_screen_where_a_segment_has_none(tmp_path):
    path = encode(tmp_path / "a.mkv", grey(3), stamps_ms=[0, 100, 2000])
    rng = np.random.default_rng(0)
    got = read_frames(path, frames=4, size=16, sampling="jitter", rng=rng, end_s=2.0)
    assert shown(got)[1:] == [1, 1, 1]


def test_a_window_is_read_from_where_it_starts(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, grey(40), 10)
    got = read_frames(path, frames=2, size=16, sampling="centre", start_s=2.0, end_s=3.0)
    assert shown(got) == [22, 27]
    late = read_frames(path, frames=2, size=16, sampling="centre", start_s=3.0, end_s=99.0)
    assert shown(late) == [32, 37]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("start_s", [0.0, 1.3, 2.9])
def test_a_window_equals_the_same_frames_of_the_whole(tmp_path, start_s, container):
    clock = 10 if container == "avi" else 1000
    codec = "mpeg4" if container == "avi" else "libx264"
    path = encode(tmp_path / f"a.{container}", grey(40), codec=codec, clock=clock)
    whole = read_frames(path, frames=40, size=16, sampling="centre")
    part = read_frames(
        path, frames=10, size=16, sampling="centre", start_s=start_s, end_s=start_s + 1
    )
    first = round(start_s * 10)
    assert part.times_s == pytest.approx([i / 10 for i in range(first, first + 10)])
    np.testing.assert_array_equal(part.pixels, whole.pixels[first : first + 10])


def test_a_window_past_the_end_is_one_line(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, grey(10), 10)
    with pytest.raises(VideoError, match=r"a\.mp4: the window starts at 5 s, the video ends at 1"):
        read_frames(path, frames=2, size=16, sampling="centre", start_s=5.0)
    with pytest.raises(VideoError, match="is empty"):
        read_frames(path, frames=2, size=16, sampling="centre", start_s=0.5, end_s=0.5)


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(tmp_path, rotation, turns):
    pixels = grey(4, 32, width=48)
    pixels[:, :16, :24] = 255  # a white quarter, top left
    path = encode(tmp_path / "a.mp4", pixels, rotation=rotation)
    got = read_frames(path, frames=1, size=32, sampling="centre").pixels[0, ..., 0]
    corners = np.array([[got[4, 4], got[4, -4]], [got[-4, 4], got[-4, -4]]]) > 200
    np.testing.assert_array_equal(corners, np.rot90([[True, False], [False, False]], turns))
    info = probe(path)
    assert (info.width, info.height) == ((32, 48) if turns % 2 else (48, 32))


def test_what_the_header_lacks_is_measured(tmp_path):
    path = encode(tmp_path / "a.webm", grey(20), codec="libvpx", format="webm", flags={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
        assert container.streams.video[0].frames == 0
    info = probe(path)
    assert info.frames == 20
    assert info.duration_s == pytest.approx(2.0, abs=0.02)
    assert info.codec == "vp8"
    got = read_frames(path, frames=4, size=16, sampling="centre")
    assert shown(got) == [2, 7, 12, 17]


def test_a_stream_without_timestamps_is_counted(tmp_path):
    path = encode(tmp_path / "a.h264", grey(20), format="h264")
    got = read_frames(path, frames=4, size=16, sampling="centre")
    assert shown(got) == [2, 7, 12, 17]
    late = read_frames(path, frames=2, size=16, sampling="centre", start_s=float(got.times_s[2]))
    assert shown(late)[0] >= 12


def test_old_avi(tmp_path):
    path = encode(tmp_path / "a.avi", grey(20), codec="mpeg4", clock=10)
    assert shown(read_frames(path, frames=4, size=16, sampling="centre")) == [2, 7, 12, 17]


def test_a_truncated_file_is_partial(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8)
    path = encode(tmp_path / "a.mkv", noise)
    whole = read_frames(path, frames=4, size=16, sampling="centre")
    moov_first = encode(tmp_path / "b.mp4", noise, flags={"movflags": "faststart"})
    moov_first.write_bytes(moov_first.read_bytes()[: moov_first.stat().st_size // 2])
    half = read_frames(moov_first, frames=4, size=16, sampling="centre")
    assert half.status == "partial"
    assert "the file ends after" in half.detail
    assert half.pixels.shape == whole.pixels.shape
    assert half.times_s[-1] < whole.times_s[-1]
    assert half.times_s[0] < half.times_s[-1]


@pytest.mark.parametrize(
    ("name", "content", "reason", "status"),
    [
        ("none.mp4", None, "no such file", "missing"),
        ("empty.mp4", b"", "0 bytes", "corrupt"),
        ("page.mp4", b"<html>404 Not Found</html>\n" * 20, "not a readable video", "corrupt"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, name, content, reason, status):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for call in (
        lambda: read_frames(path, frames=6, size=16, sampling="centre"),
        lambda: probe(path),
    ):
        with pytest.raises(VideoError) as caught:
            call()
        message = str(caught.value)
        assert name in message
        assert reason in message
        assert "\n" not in message
        assert caught.value.status == status


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        read_frames(path, frames=6, size=16, sampling="centre")


def test_writing_is_deterministic_and_leaves_nothing_else(tmp_path):
    # Small pictures with motion over a still ground: what x264 by default encodes differently
    # from one time to the next.
    rng = np.random.default_rng(1)
    pixels = np.broadcast_to(rng.integers(90, 160, (1, 64, 64, 3)), (30, 64, 64, 3)).copy()
    for i, picture in enumerate(pixels):
        picture[20:40, i : i + 20] = (230, 40, 30)
    pixels = (pixels + rng.integers(-6, 7, pixels.shape)).astype(np.uint8)
    path = tmp_path / "a.mp4"
    written = set()
    for _ in range(25):
        write_video(path, pixels, 4)
        written.add(path.read_bytes())
    assert len(written) == 1
    assert [left.name for left in tmp_path.iterdir()] == ["a.mp4"]
    info = probe(path)
    assert (info.frames, info.fps, info.width, info.height) == (30, 4.0, 64, 64)
    assert info.duration_s == pytest.approx(7.5)
    assert not info.has_audio


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", broken)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", grey(4), 4)
    assert list(tmp_path.iterdir()) == []


def test_odd_sides_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even"):
        write_video(tmp_path / "a.mp4", grey(2, 31), 4)


@pytest.mark.parametrize(
    ("duration_s", "windows"),
    [
        (4.0, [(0.0, 4.0)]),
        (10.0, [(0.0, 10.0)]),
        (10.02, [(0.0, 10.0)]),
        (12.0, [(0.0, 10.0), (5.0, 12.0)]),
        (15.0, [(0.0, 10.0), (5.0, 15.0)]),
        (21.0, [(0.0, 10.0), (5.0, 15.0), (10.0, 20.0), (15.0, 21.0)]),
    ],
)
def test_segment(duration_s, windows):
    assert sliding_windows(duration_s) == windows


def test_segment_refuses_nothing_to_cut():
    with pytest.raises(ValueError, match="above 0"):
        sliding_windows(0.0)


@pytest.fixture
def gallery(tmp_path) -> list[Clip]:
    write_video(tmp_path / "good.mp4", grey(10), 10)
    (tmp_path / "bad.mp4").write_bytes(b"x" * 100)
    names = ("good", "bad", "gone")
    return [Clip("toy", "test", name, tmp_path / f"{name}.mp4") for name in names]


def test_windows_of_videos_are_clips_of_their_own(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, grey(40), 10)
    video = Clip("toy", "test", "a", path, meta={"scenes": [1]})
    assert windows_of([video], 0.0, 0.0) == [video]
    cut = windows_of([video, video], 2.0, 1.5)
    assert [(c.video_id, c.source_id, c.start_s, c.end_s) for c in cut[:3]] == [
        ("a@0", "a", 0.0, 2.0), ("a@1.5", "a", 1.5, 3.5), ("a@3", "a", 3.0, 4.0),
    ]  # fmt: skip
    assert len(cut) == 6
    assert all(c.path == path and c.meta == video.meta for c in cut)
    with pytest.raises(AtomError, match="stride_s=0: both must be above 0"):
        windows_of([video], 2.0, 0.0)


def test_scan_fails_naming_the_first_bad_clip(gallery):
    with pytest.raises(AtomError, match=r"^bad \(corrupt: .*\) and 1 more of 3 clips"):
        check_clips(gallery, "fail")
    assert check_clips(gallery[:1], "fail").counts["ok"] == 1


def test_scan_counts_or_drops(gallery):
    counted = check_clips(gallery, "count")
    assert [clip.status for clip in counted.clips] == ["ok", "corrupt", "missing"]
    assert counted.counts == {"ok": 1, "partial": 0, "missing": 1, "corrupt": 1}
    assert counted.clips[2].detail == "no such file"
    assert counted.label == ""
    dropped = check_clips(gallery, "drop")
    assert [clip.video_id for clip in dropped.clips] == ["good"]
    assert dropped.label == "reduced gallery 1/3"
    assert dropped.counts == counted.counts
    said = "! clips that could not be seen in full: 2 (bad: not a readable video"
    assert counted.remark == dropped.remark
    assert counted.remark.startswith(said)
    assert check_clips(gallery[:1], "count").remark == ""


def test_of_many_clips_that_are_not_seen_some_are_named():
    faults = {f"v{i}": "no such file" for i in range(5)}
    names = "v0: no such file; v1: no such file; v2: no such file; and 2 more"
    assert unseen("clips", faults) == f"! clips that could not be seen in full: 5 ({names})\n"


def test_scan_refuses_an_unknown_policy(gallery):
    with pytest.raises(AtomError, match="on_bad=ignore"):
        check_clips(gallery, "ignore")


def test_a_file_whose_pictures_do_not_decode_is_one_line(tmp_path):
    """Headers and packets in order, rubbish inside: every layer but the decoder is content."""
    path = encode(tmp_path / "a.mp4", grey(20), flags={"movflags": "faststart"})
    content = bytearray(path.read_bytes())
    body = content.index(b"mdat") + 4
    content[body:] = b"\xff" * (len(content) - body)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: no frame can be decoded"):
        read_frames(path, frames=4, size=16, sampling="centre")
    with pytest.raises(VideoError, match=r"a\.mp4: no frame can be decoded"):
        probe(path)
