"""The result folder: one for a prompt and a folder of videos, and whole."""

import json
import os
from pathlib import Path

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.pipelines.captioned_clips import Delivery, counted, time_range
from atom_repro.pipelines.result_folder import (
    folder_for,
    require_writable,
    weights_notice,
    write,
)

NOTHING = Delivery("nothing found", ("video",), (), {"shots": []})


def test_prompts_of_every_script_and_folders_have_results_of_their_own(tmp_path):
    (tmp_path / "a").mkdir()
    prompts = ("沙滩上的狗", "夜空", "!!!", "???", "", "A dog", "a dog", "x" * 300, "x" * 301)
    folders = {
        folder_for(tmp_path, "assembly", prompt, tmp_path / videos)
        for prompt in prompts
        for videos in ("a", "b")
    }
    assert len(folders) == 2 * len(prompts)
    for folder in folders:
        folder.mkdir(parents=True)  # no name is too long
    here = folder_for(tmp_path, "assembly", "夜空", tmp_path / "a")
    assert here.name.startswith("夜空-")
    assert here == folder_for(tmp_path, "assembly", "夜空", tmp_path / "b" / ".." / "a")


def test_a_result_replaces_the_earlier_one_as_a_whole(tmp_path):
    def with_movie(folder: Path) -> Delivery:
        (folder / "movie.mp4").write_text("a movie")
        return Delivery("1 shot", ("video",), (("a",),), {}, "movie.mp4", ("a: 2 frames are lost",))

    folder = tmp_path / "out/assembly/x"
    settings = {"title": "assembly", "prompt": "a", "notes": ["note"], "about": {"weights": "w"}}
    delivery = write(folder, deliver=with_movie, **settings)
    page = (folder / "index.html").read_text()
    assert "a: 2 frames are lost" in page
    assert json.loads((folder / "result.json").read_text())["faults"] == list(delivery.faults)

    def failing(folder: Path) -> Delivery:
        (folder / "movie.mp4").write_text("half a mov")
        raise AtomError("no space")

    with pytest.raises(AtomError, match="no space"):
        write(folder, deliver=failing, **settings)
    assert (folder / "movie.mp4").read_text() == "a movie"
    write(folder, deliver=lambda folder: NOTHING, **settings)
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "result.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["x"]


def test_a_name_that_is_not_utf8_is_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    rows = Delivery(name, ("video",), ((name,),), {"video": name})
    write(tmp_path / "x", title="assembly", prompt=name, deliver=lambda _: rows, notes=[], about={})
    assert json.loads((tmp_path / "x/result.json").read_text(encoding="utf-8"))["video"] == name
    assert r"caf\udce9.mp4" in (tmp_path / "x/index.html").read_text(encoding="utf-8")


def test_where_no_result_can_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(AtomError, match=r"file/assembly: cannot be created \(Not a dir"):
        require_writable(tmp_path / "file/assembly/x")
    (tmp_path / "mine/photos").mkdir(parents=True)
    with pytest.raises(AtomError, match="photos: is there and no result; move it"):
        require_writable(tmp_path / "mine/photos")
    write(tmp_path / "mine/x", title="", prompt="", deliver=lambda _: NOTHING, notes=[], about={})
    require_writable(tmp_path / "mine/x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(AtomError, match="mine: is not writable; choose another output="):
        require_writable(tmp_path / "mine/x")


@pytest.mark.parametrize(
    ("start_s", "end_s", "text"),
    [
        (5.0, 15.0, "0:05.0 to 0:15.0"),
        (50.0, 59.96, "0:50.0 to 1:00.0"),
        (3599.96, None, "1:00:00.0 to the end"),
        (9000.0, 9010.25, "2:30:00.0 to 2:30:10.2"),
    ],
)
def test_times_are_clock_times(start_s, end_s, text):
    assert time_range(start_s, end_s) == text


def test_one_is_singular():
    assert [counted(n, "clip") for n in (0, 1, 2, 1500)] == [
        "0 clips", "1 clip", "2 clips", "1,500 clips",
    ]  # fmt: skip


def test_the_notice_on_weights_is_two_lines_of_a_terminal_at_most():
    kinds = {"random": "noise", "mixed": "fine-tune", "trained": "Real video", "released": "Check"}
    for kind, word in kinds.items():
        notice = weights_notice(f"{kind}:0123456789abcdef", "toy")
        assert word in notice
        assert len(notice) <= 160
    assert "Real video" not in weights_notice("trained:0123456789abcdef", "msrvtt")
