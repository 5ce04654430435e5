"""Movies made from small films: every frame tells its time, and is asked for it."""

import errno
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from films import BRIGHT, DARK, decoded, film, times_in

from atom_repro.datatypes import AtomError
from atom_repro.video.editing import writer
from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.edit_list import read_edit_list
from atom_repro.video.editing.reader import SourceFormat
from atom_repro.video.editing.verify import verify_movie
from atom_repro.video.editing.writer import default_size, exact_rate, render_movie
from atom_repro.video.sampling import probe

FOLDER = Path(__file__).parents[3] / "../shared/data/videos"
needs_files = pytest.mark.skipif(not FOLDER.is_dir(), reason="the sample videos are not here")

TICK_S = 1.01 / 120  # what the clock of a film is rounded to
UNEVEN_S = [0.0, 0.05, 0.1, 0.3, 0.31, 0.5, 0.8, 0.95, 1.0, 1.3, 1.6, 1.7, 1.95]


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[str, Path]:
    """One film each of many kinds, two seconds long."""
    folder = tmp_path_factory.mktemp("films")
    tone = {"rate": 44100, "layout": "mono"}
    return {
        "24": film(folder / "24.mp4", fps=24, clock=24, sound=tone),
        "25": film(folder / "25.mkv", fps=25, size=(64, 96)),
        "30": film(folder / "30.mp4", fps=30, clock=30, size=(128, 64), sound={}),
        "60": film(folder / "60.mkv", fps=60),
        "15": film(folder / "15.webm", fps=15, codec="libvpx-vp9", sound={"codec": "libopus"}),
        "uneven": film(folder / "uneven.mkv", stamps_s=UNEVEN_S),
        "late": film(folder / "late.ts", fps=25),
        "avi": film(folder / "old.avi", fps=25, clock=25, codec="mpeg4"),
        "upright": film(folder / "upright.mp4", fps=30, rotation=90, mark=True, size=(128, 64)),
    }


def rendered(cuts, target, **settings):
    """The edit list, once the movie has been found to be what it says."""
    edited = render_movie(cuts, target, **settings)
    verify_movie(edited, target)
    return edited


def test_films_of_every_kind_become_one_movie(tmp_path, films):
    cuts = [
        Cut(name, path, 0.3, 1.5, caption=f"of {name}", narration=f"Now {name}.")
        for name, path in films.items()
        if name != "upright"
    ]
    shares: list[float] = []
    movie = tmp_path / "out/movie.mp4"
    edited = rendered(cuts, movie, fps=30, width=128, height=96, progress=shares.append)
    assert edited.frames == 36 * len(cuts)
    assert [(c.video_id, c.start_frame, c.end_frame) for c in edited.cuts] == [
        (cut.video_id, 36 * i, 36 * (i + 1)) for i, cut in enumerate(cuts)
    ]
    assert {c.status for c in edited.cuts} == {"ok"}
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    levels = decoded(movie)[0]
    for cut in edited.cuts:
        due_s = 0.3 + (np.arange(36) + 0.5) / 30
        told = times_in(levels[cut.start_frame : cut.end_frame], cut.box)
        if cut.video_id == "uneven":
            due_s = np.array([max(s for s in UNEVEN_S if s <= d) for d in due_s])
            np.testing.assert_allclose(told, due_s, atol=TICK_S)
        else:  # the frame on screen at the middle: it began up to one frame of the source before
            source_frame_s = 1 / {"24": 24, "30": 30, "60": 60, "15": 15}.get(cut.video_id, 25)
            late_s = due_s - told
            assert late_s.min() > -TICK_S
            assert late_s.max() < source_frame_s + TICK_S


def test_it_plays_everywhere(tmp_path, films):
    movie = tmp_path / "movie.mp4"
    edited = rendered([Cut("a", films["24"]), Cut("b", films["25"])], movie, fps=25)
    with av.open(str(movie)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.profile) == ("h264", "High")
        assert video.codec_context.pix_fmt == "yuv420p"
        assert video.average_rate == video.guessed_rate == 25
        assert (sound.codec_context.name, sound.codec_context.sample_rate) == ("aac", 48000)
        assert sound.codec_context.layout.name == "stereo"
        assert (video.start_time, sound.start_time) == (0, 0)
        assert sound.duration * sound.time_base == video.duration * video.time_base == 4
        # Closed groups: nothing after a keyframe is shown before it.
        shown_from = -1
        for packet in container.demux(video):
            if packet.pts is not None:
                shown_from = packet.pts if packet.is_keyframe else shown_from
                assert packet.pts >= shown_from
    assert (edited.width, edited.height) == (96, 64)
    assert edited.to_dict()["fps"] == "25/1"


def boxes(path: Path) -> list[bytes]:
    """Kinds of the top-level boxes of an MP4, in order."""
    data, at, kinds = path.read_bytes(), 0, []
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        kinds.append(kind)
        at += size
    return kinds


def test_the_index_comes_before_the_data(tmp_path, films):
    render_movie([Cut("a", films["24"])], tmp_path / "movie.mp4")
    found = boxes(tmp_path / "movie.mp4")
    assert found.index(b"moov") < found.index(b"mdat")


def test_equal_rates_lose_and_repeat_no_frame(tmp_path, films):
    edited = render_movie([Cut("a", films["30"], 0.5, 1.5)], tmp_path / "movie.mp4", fps=30)
    told_s = times_in(decoded(tmp_path / "movie.mp4")[0], edited.cuts[0].box)
    np.testing.assert_allclose(told_s, 0.5 + np.arange(30) / 30)


def test_half_the_rate_takes_every_second_frame(tmp_path, films):
    # Each middle lies on the border of two frames, whose times Matroska rounds either way.
    edited = render_movie([Cut("a", films["60"], 0.0, 1.0)], tmp_path / "movie.mp4", fps=30)
    told_s = times_in(decoded(tmp_path / "movie.mp4")[0], edited.cuts[0].box)
    np.testing.assert_allclose(told_s, (np.arange(30) + 0.5) / 30)


def test_turned_films_stand_upright_and_nothing_is_stretched(tmp_path, films):
    anamorphic = film(
        tmp_path / "wide.mp4", size=(64, 64), pixel_aspect=Fraction(2, 1), mark=True, seconds=0.4
    )
    cuts = [Cut("upright", films["upright"], 0.0, 0.4), Cut("anamorphic", anamorphic)]
    edited = rendered(cuts, tmp_path / "movie.mp4", width=128, height=128)
    turned, wide = edited.cuts
    assert (turned.box.width, turned.box.height) == (64, 128)  # 128 x 64 turned, pillars
    assert (wide.box.width, wide.box.height) == (128, 64)  # 64 x 64 of pixels two wide, letterbox
    levels = decoded(tmp_path / "movie.mp4")[0]
    # A quarter turn counter-clockwise takes the mark from top left to bottom left; it is a square.
    bright = levels[3] > (BRIGHT + DARK) / 2
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert (rows[0], rows[-1]) == pytest.approx((96, 127), abs=2)
    assert (columns[0], columns[-1]) == pytest.approx((32, 63), abs=2)
    bright = levels[turned.end_frame + 3] > (BRIGHT + DARK) / 2
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert (rows[0], rows[-1]) == pytest.approx((32, 63), abs=2)
    assert (columns[0], columns[-1]) == pytest.approx((0, 63), abs=2)
    assert levels[3][:, :30].max() < 12


SYNC = {
    "mono.mp4": {"sound": {"rate": 44100, "layout": "mono"}},
    "opus.mkv": {"sound": {"codec": "libopus"}},
    "mp3.avi": {"codec": "mpeg4", "clock": 25, "sound": {"codec": "mp3"}},
    "starts_at_1.4_s.ts": {"sound": {}},
    "sound_begins_late.mkv": {"sound": {"from_s": 0.7}},
}


@pytest.mark.parametrize("name", SYNC)
def test_flash_and_beep_stay_together(tmp_path, name):
    happens_s = (1.2, 1.4)
    setup = SYNC[name] | {"sound": SYNC[name]["sound"] | {"beep_s": happens_s}}
    path = film(tmp_path / name, flash_s=happens_s, **setup)
    starts_s = (0.0, 0.5, 1.13)
    cuts = [Cut(name, path, start_s, 1.9) for start_s in starts_s]
    edited = rendered(cuts, tmp_path / "movie.mp4", fps=Fraction(30000, 1001))
    levels, wave = decoded(tmp_path / "movie.mp4")
    frame_s = 1001 / 30000
    for cut, start_s in zip(edited.cuts, starts_s, strict=True):
        flash = np.flatnonzero(levels[cut.start_frame : cut.end_frame].mean((1, 2)) > 127)
        ends = slice(round(cut.start_s * 48000), round(cut.end_s * 48000))
        beep = np.flatnonzero(np.abs(wave[0, ends]) > 0.1)
        flash_s = np.array([flash[0], flash[-1] + 1]) * frame_s
        beep_s = np.array([beep[0], beep[-1] + 1]) / 48000
        assert np.abs(flash_s - beep_s).max() < frame_s
        assert beep_s[0] == pytest.approx(happens_s[0] - start_s, abs=0.03)
        assert np.abs(wave[0] - wave[1]).max() < 0.1


def test_sound_is_silence_where_a_source_has_none(tmp_path, films):
    cuts = [Cut(name, films[name], 0.0, 1.0) for name in ("24", "25", "30")]
    edited = rendered(cuts, tmp_path / "movie.mp4")
    assert [cut.has_sound for cut in edited.cuts] == [True, False, True]
    _, wave = decoded(tmp_path / "movie.mp4")
    # Away from the borders, where AAC smears a block; mono is as loud on two speakers at 3 dB less.
    loud = [float(np.abs(wave[:, s + 4000 : s + 44000]).mean()) for s in (0, 48000, 96000)]
    assert loud == pytest.approx([0.318 * 0.707, 0.0, 0.318], abs=0.01)


def test_a_hole_in_the_sound_is_silence_and_shifts_nothing(tmp_path):
    path = film(tmp_path / "whole.mkv", sound={"codec": "pcm_s16le"})
    with av.open(str(path)) as source, av.open(str(tmp_path / "hole.mkv"), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            seconds = float((packet.pts or 0) * packet.time_base)
            kind = source.streams[packet.stream_index].type
            if packet.size and not (kind == "audio" and 0.5 <= seconds < 1.0):
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    rendered([Cut("a", tmp_path / "hole.mkv")], tmp_path / "movie.mp4")
    wave = np.abs(decoded(tmp_path / "movie.mp4")[1][0])
    assert wave[30000:46000].max() < 0.02
    assert wave[:22000].mean() == pytest.approx(0.318, abs=0.01)
    assert wave[52000:90000].mean() == pytest.approx(0.318, abs=0.01)


def test_a_movie_of_silent_films_has_no_sound_track(tmp_path, films):
    edited = rendered([Cut("a", films["25"])], tmp_path / "movie.mp4")
    assert not edited.has_sound
    assert not probe(tmp_path / "movie.mp4").has_audio


def test_many_short_cuts_do_not_drift(tmp_path, films):
    # 29.97 frames a second: a cut of three frames is 4804.8 samples long.
    cuts = [Cut("a", films["30"], 0.1 * i, 0.1 * i + 0.1) for i in range(15)]
    edited = rendered(cuts, tmp_path / "movie.mp4", fps=29.97)
    assert edited.frames == 45
    with av.open(str(tmp_path / "movie.mp4")) as container:
        sound = container.streams.audio[0]
        assert round(sound.duration * sound.time_base * 48000) == 15 * 48048 // 10


def test_what_breaks_is_shortened_and_what_gives_nothing_is_left_out(tmp_path, films):
    path = film(
        tmp_path / "whole.mp4", sound={}, options={"movflags": "+faststart"}, size=(256, 256)
    )
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "page.mp4").write_text("<html>404</html>")
    cuts = [
        Cut("page", tmp_path / "page.mp4", narration="Nothing."),
        Cut("broken", broken, 0.0, 2.0),
        Cut("past", broken, 1.9, 2.0),
        Cut("gone", tmp_path / "gone.mp4"),
        Cut("long", films["25"], 1.0, 9.0),
        Cut("whole", films["25"]),
    ]
    edited = rendered(cuts, tmp_path / "movie.mp4")
    page, half, past, gone, long, whole = edited.cuts
    assert (page.status, page.frames) == ("corrupt", 0)
    assert (half.status, past.status, past.frames) == ("partial", "corrupt", 0)
    assert 0.3 < half.source_end_s < 1.8
    assert "shortened to 0.000-" in half.detail
    assert (gone.status, gone.detail, gone.source_sha256) == ("missing", "no such file", "")
    assert (long.status, long.frames) == ("partial", 30)
    assert long.detail.endswith("the video ends at 2.000 s")
    assert (whole.status, whole.frames, whole.end_frame) == ("ok", 60, edited.frames)


def test_nothing_to_show_is_one_line(tmp_path):
    with pytest.raises(AtomError, match=r"movie\.mp4: there are no cuts"):
        render_movie([], tmp_path / "movie.mp4")
    with pytest.raises(AtomError, match=r"none of the 1 cuts gives a picture \(.*gone\.mp4: no s"):
        render_movie([Cut("a", tmp_path / "gone.mp4")], tmp_path / "movie.mp4")
    assert list(tmp_path.iterdir()) == []


def test_cuts_past_the_end_leave_no_file(tmp_path, films):
    with pytest.raises(AtomError, match=r"the cut starts at 7 s, the video ends at 2"):
        render_movie([Cut("a", films["25"], 7.0, 8.0)], tmp_path / "movie.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_would_do_harm_is_refused(tmp_path, films):
    (tmp_path / "folder").mkdir()
    with pytest.raises(AtomError, match="is a folder"):
        render_movie([Cut("a", films["25"])], tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(AtomError, match=r"file/movie\.mp4: its folder cannot be created"):
        render_movie([Cut("a", films["25"])], tmp_path / "file/movie.mp4")
    with pytest.raises(AtomError, match="is also a source video of the movie"):
        render_movie([Cut("a", films["25"])], films["25"].parent / "x" / ".." / films["25"].name)


def test_a_full_disk_names_the_target_and_keeps_the_old_movie(tmp_path, films, monkeypatch):
    target = tmp_path / "movie.mp4"
    target.write_text("old")
    encode = writer._MovieWriter._encode_sound

    def full(movie, count):
        if movie._encoded_samples > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        encode(movie, count)

    monkeypatch.setattr(writer._MovieWriter, "_encode_sound", full)
    with pytest.raises(AtomError, match=r"no space left on the disk of .*/movie\.mp4"):
        render_movie([Cut("a", films["24"])], target)
    assert [p.name for p in tmp_path.iterdir()] == ["movie.mp4"]
    assert target.read_text() == "old"


def test_interrupted_it_leaves_nothing(tmp_path, films):
    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_movie([Cut("a", films["24"])], tmp_path / "movie.mp4", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_same_cuts_are_the_same_bytes(tmp_path, films):
    cuts = [Cut("a", films["24"], 0.2, 0.9), Cut("b", films["15"], 0.2, 0.9)]
    first = render_movie(cuts, tmp_path / "a.mp4")
    assert render_movie(cuts, tmp_path / "b.mp4").sha256 == first.sha256


def test_the_default_size_is_the_largest_of_the_common_orientation():
    wide, small, upright = (SourceFormat(*size, has_sound=False) for size in (
        (1920.0, 1080.0), (426.67, 256.0), (1080.0, 1920.0)
    ))  # fmt: skip
    assert default_size([wide, small]) == (1280, 720)
    assert default_size([small]) == (426, 256)
    assert default_size([upright, upright, wide]) == (720, 1280)
    assert default_size([upright, wide]) == (1280, 720)
    assert default_size([SourceFormat(2560.0, 1080.0, False)]) == (1280, 540)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"width": 321, "height": 240}, "width=321, height=240: both must be even"),
        ({"width": 320}, "width=320, height=None: give both"),
        ({"width": 8, "height": 16}, "from 16 to 8192"),
        ({"fps": 0}, "fps=0: choose from 1 to 120"),
        ({"fps": float("nan")}, "fps=nan"),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_name(tmp_path, films, settings, named):
    with pytest.raises(AtomError, match=named):
        render_movie([Cut("a", films["25"])], tmp_path / "movie.mp4", **settings)


def test_rates_are_exact():
    assert exact_rate(29.97) == exact_rate(30000 / 1001) == Fraction(30000, 1001)
    assert exact_rate(23.976) == Fraction(24000, 1001)
    assert (exact_rate(1), exact_rate(30), exact_rate(12.5)) == (1, 30, Fraction(25, 2))


def test_the_edit_list_comes_back_from_its_file(tmp_path, films):
    cut = Cut("a", films["24"], 0.5, 1.0, "a caption", "A narration — “quoted”.")
    edited = render_movie([cut], tmp_path / "movie.mp4", fps=29.97)
    edited.write(tmp_path / "movie.json")
    assert read_edit_list(tmp_path / "movie.json") == edited
    row = edited.to_dict()["cuts"][0]
    assert (row["source"], row["source_bytes"]) == ("24.mp4", films["24"].stat().st_size)
    assert row["box"] == {"x": 0, "y": 0, "width": 96, "height": 64}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not an edit list"),
        ("[]", "not an edit list"),
        ('{"version": 9}', "edit list of version 9, this program reads version 1"),
        ('{"version": 1, "file": "a"}', r"damaged \(KeyError: 'sha256'\)"),
    ],
)
def test_a_file_that_is_no_edit_list_is_one_line(tmp_path, text, said):
    path = tmp_path / "movie.json"
    path.write_text(text)
    with pytest.raises(AtomError, match=said):
        read_edit_list(path)
    with pytest.raises(AtomError, match="the edit list cannot be read"):
        read_edit_list(tmp_path / "gone.json")


@needs_files
def test_real_films_of_all_kinds_in_one_movie(tmp_path, capfd):
    starts_s = {"decord_corrupted.mp4": 2.4, "moviepy_chaplin.mp4": 0.7, "sam2_01_dog.mp4": 0.6}
    cuts = [
        Cut(path.stem, path, start_s := starts_s.get(path.name, 0.0), start_s + 0.8)
        for path in sorted(FOLDER.iterdir())
    ]
    assert len(cuts) == 10
    edited = rendered(cuts, tmp_path / "movie.mp4", fps=15, width=320, height=180)
    found = {cut.source: cut for cut in edited.cuts}
    broken = found["decord_corrupted.mp4"]
    assert (broken.status, broken.source_end_s) == ("partial", pytest.approx(3.2))
    assert broken.detail.startswith("2 frames are damaged, the first at 3.0 s")
    turned = found["decord_video_90.mov"].box
    assert turned.width / turned.height == pytest.approx(320 / 568, abs=0.02)
    anamorphic = found["mmaction2_demo.mp4"].box  # 340 x 256 pixels of 64:51
    assert anamorphic.width / anamorphic.height == pytest.approx(340 * 64 / 51 / 256, abs=0.02)
    assert {name for name, cut in found.items() if cut.has_sound} == {
        "decord_flipping_a_pancake.mkv", "moviepy_chaplin.mp4", "moviepy_no_duration.webm",
        "sam2_01_dog.mp4",
    }  # fmt: skip
    short = "decord_video_90.mov"
    assert {cut.frames for name, cut in found.items() if name != short} == {12}
    assert capfd.readouterr() == ("", "")
