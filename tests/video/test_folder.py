"""Which files of a user's folder are videos, and what is said of the others."""

import os
from pathlib import Path

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.video.folder import VideoFolder, list_videos, printable


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    touch(tmp_path / "v/a.mp4")
    return tmp_path / "v"


def test_every_kind_of_video_is_listed_and_the_rest_counted(folder):
    for name in ("b/VTS_01_1.VOB", "anim.gif", "x.MTS", "notes.txt", "p.jpg", "q.JPG", "README"):
        touch(folder / name)
    touch(folder / ".hidden/c.mp4")
    listing = list_videos(folder)
    assert list(listing.names) == ["a.mp4", "anim.gif", "b/VTS_01_1.VOB", "x.MTS"]
    assert listing.remarks == ()
    assert listing.others == {".txt": 1, ".jpg": 2, "no suffix": 1}


def test_links_are_followed_once_and_never_in_a_circle(folder, tmp_path):
    touch(tmp_path / "elsewhere/b.mp4")
    (folder / "holiday").symlink_to(tmp_path / "elsewhere")
    (folder / "zz again").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    touch(folder / "sub/c.mp4")
    (folder / "inner").symlink_to(folder / "sub")
    (tmp_path / "elsewhere/back").symlink_to(folder)
    assert list(list_videos(folder).names) == ["a.mp4", "holiday/b.mp4", "sub/c.mp4"]


def test_what_cannot_be_opened_is_named(folder):
    (folder / "lost.mp4").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    touch(folder / "folder.mp4/inner.mkv")
    listing = list_videos(folder)
    assert list(listing.names) == ["a.mp4", "folder.mp4/inner.mkv"]
    assert listing.remarks == ("lost.mp4: a link to nothing", "pipe.mp4: not a file")


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    touch(folder / "locked/b.mp4")
    scan = os.scandir

    def scandir(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = list_videos(folder)
    assert list(listing.names) == ["a.mp4"]
    assert listing.remarks == ("locked: the folder cannot be read (Permission denied)",)


def test_a_movie_of_an_earlier_run_is_no_source(folder):
    touch(folder / "out/assembly/x/movie.mp4")
    touch(folder / "out/assembly/x/movie.edit.json")
    touch(folder / "own/movie.mp4")
    listing = list_videos(folder)
    assert list(listing.names) == ["a.mp4", "own/movie.mp4"]
    assert listing.remarks == ("out/assembly/x/movie.mp4: a movie that eval.pipeline made",)


def test_any_name_can_be_printed_and_two_that_look_alike_are_told_apart(folder):
    odd = os.fsencode(folder) + b"/caf\xe9\n.mp4"
    touch(Path(os.fsdecode(odd)))
    touch(folder / r"caf\xe9\n.mp4")
    touch(folder / "été 🎬.mp4")
    listing = list_videos(folder)
    assert list(listing.names) == ["a.mp4", r"caf\xe9\n.mp4", "été 🎬.mp4"]
    assert listing.remarks == (
        r"caf\xe9\n.mp4: another file's name looks the same; rename one of them",
    )
    assert printable("a\u2028b") == r"a\u2028b"


def test_a_folder_without_videos_says_what_is_there(tmp_path):
    touch(tmp_path / "a.srt")
    (tmp_path / "b.mp4").symlink_to("nowhere")
    said = (
        r"contains no videos \(b\.mp4: a link to nothing; other files: 1 \.srt\); name the folder"
    )
    with pytest.raises(AtomError, match=said):
        list_videos(tmp_path)


def test_videos_of_a_data_set_are_found_behind_links_and_under_any_name(folder, tmp_path):
    touch(tmp_path / "elsewhere/b.mp4")
    (folder / "part").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    touch(folder / os.fsdecode(b"caf\xe9.mp4"))
    videos = VideoFolder(folder)
    assert len(videos) == 3
    assert videos.find("b") == folder / "part/b.mp4"
    names = [name for name, _ in videos.listing()]
    assert names == ["a.mp4", r"caf\xe9.mp4", "part/b.mp4"]
    assert "\n".join(names).encode()  # as fingerprints are made of them
