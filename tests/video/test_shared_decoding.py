"""Clips of one video that are read in order: the pixels of each clip alone, each frame decoded
once."""

from pathlib import Path

import av
import numpy as np
import pytest

from atom_repro.datatypes import Clip
from atom_repro.video.file import DecodedFrames, VideoError
from atom_repro.video.sampling import clip_frames
from atom_repro.video.shared_decoding import SharedDecoding

FPS, SECONDS = 10, 16


def video(path: Path, *, gop: int = 40, seed: int = 0) -> Path:
    """A bright square on noise that moves a pixel a frame: no two frames are alike."""
    picture = np.random.default_rng(seed).integers(0, 120, (32, 48, 3), dtype=np.uint8)
    picture[8:16, 8:16] = 255
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
        for i in range(FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, i, axis=1), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def windows(path: Path, window_s: float, stride_s: float) -> list[Clip]:
    starts = np.arange(0.0, SECONDS, stride_s)
    return [
        Clip(
            "folder", "", f"{s:g}", path, start_s=float(s), end_s=float(min(s + window_s, SECONDS)),
        )
        for s in starts
    ]  # fmt: skip


@pytest.fixture
def decoded(monkeypatch):
    """Timestamps of the frames that were decoded."""
    stamps: list[int] = []
    decode = DecodedFrames.__next__

    def counted(self):
        frame = decode(self)
        stamps.append(frame.pts)
        return frame

    monkeypatch.setattr(DecodedFrames, "__next__", counted)
    return stamps


def same(one, other):
    """Whether pixels and faults are."""
    return np.array_equal(one[0], other[0]) and one[1] == other[1]


def read_by(read, clips, frames):
    return [read(clip, frames=frames, size=16) for clip in clips]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("window_s", "stride_s", "frames"),
    [
        (6.0, 3.0, 6),  # a window shares every sampled frame of its half
        (5.0, 1.7, 4),  # none, and three windows overlap
        (4.0, 4.0, 3),  # windows that follow each other, as keyframes do not
    ],
)
def test_overlapping_clips_have_their_pixels_and_decode_a_frame_once(
    tmp_path, decoded, container, window_s, stride_s, frames
):
    clips = windows(video(tmp_path / f"a.{container}", gop=35), window_s, stride_s)
    alone = read_by(clip_frames, clips, frames)
    each_alone = len(decoded)
    decoded.clear()
    together = read_by(SharedDecoding(clips), clips, frames)
    for one, other in zip(alone, together, strict=True):
        assert one[0].shape == (frames, 3, 16, 16)
        assert same(one, other)
    if container != "ts" or stride_s < window_s:  # without an index, a clip apart is sought anew
        assert len(set(decoded)) == len(decoded) <= FPS * SECONDS < each_alone


def test_a_clip_far_behind_is_sought_as_alone(tmp_path, decoded):
    path = video(tmp_path / "a.mp4", gop=10)
    clips = [Clip("folder", "", f"{s}", path, start_s=s, end_s=s + 1.0) for s in (0.0, 9.0, 9.5)]
    alone = read_by(clip_frames, clips, 3)
    decoded.clear()
    together = read_by(SharedDecoding(clips), clips, 3)
    assert all(map(same, alone, together))
    assert len(decoded) == len(set(decoded)) < 40


def test_clips_of_other_videos_and_in_no_order_have_their_pixels(tmp_path):
    one, other = video(tmp_path / "a.mp4"), video(tmp_path / "b.mp4", seed=1)
    clips = [*windows(one, 4.0, 2.0)[:3], *windows(other, 4.0, 2.0)[:3], windows(one, 4.0, 2.0)[1]]
    clips = [*clips, *reversed(clips)]
    read = SharedDecoding(clips)
    for clip in (*clips, windows(one, 4.0, 2.0)[2]):  # the last is none of them
        expected = clip_frames(clip, frames=4, size=16)
        assert same(read(clip, frames=4, size=16), expected)
    skipping = SharedDecoding(clips)
    for clip in clips[::2]:  # one that is known to be broken is not read
        expected = clip_frames(clip, frames=4, size=16)
        assert same(skipping(clip, frames=4, size=16), expected)


def test_a_damaged_video_gives_what_it_gives_alone(tmp_path):
    path = video(tmp_path / "a.mp4", gop=20)
    with av.open(str(path)) as container:
        packets = sorted((p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size)
    _, at, size = packets[55]
    content = bytearray(path.read_bytes())
    content[at : at + size] = b"\xff" * size
    path.write_bytes(content)
    clips = windows(path, 4.0, 2.0)
    alone, together = read_by(clip_frames, clips, 4), read_by(SharedDecoding(clips), clips, 4)
    assert all(map(same, alone, together))
    assert {bool(fault) for _, fault in alone} == {True, False}


def test_what_cannot_be_read_is_the_error_of_the_clip(tmp_path):
    path = video(tmp_path / "a.mp4")
    late = Clip("folder", "", "late", path, start_s=99.0, end_s=100.0)
    missing = Clip("folder", "", "missing", tmp_path / "b.mp4", end_s=2.0)
    clips = [windows(path, 4.0, 2.0)[0], late, missing, missing]
    read = SharedDecoding(clips)
    read(clips[0], frames=4, size=16)
    with pytest.raises(VideoError, match="the window starts at 99 s"):
        read(late, frames=4, size=16)
    with pytest.raises(VideoError, match="no such file"):
        read(missing, frames=4, size=16)
