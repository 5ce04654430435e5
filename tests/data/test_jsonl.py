"""A data set of one's own: everything a line may hold, and everything it may not."""

import json
from pathlib import Path

import pytest

from atom_repro.data import jsonl, protocol
from atom_repro.datatypes import AtomError, Query


def made(folder: Path, *rows) -> jsonl.JsonLines:
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows]
    (folder / "clips.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return jsonl.build(name="mine", file=str(folder / "clips.jsonl"), videos=str(folder / "videos"))


def line(video_id="a", **changes):
    return {"video_id": video_id, "split": "test", "references": ["a cat"]} | changes


def test_a_line_is_a_clip(tmp_path):
    dataset = made(
        tmp_path,
        line(
            "a",
            file="sub/long.mkv",
            start_s=5,
            end_s=15.5,
            source_id="s",
            queries=["ein Kätzchen", {"query_id": "q9", "text": "all of it", "kind": "paragraph"}],
            meta={"place": "beach"},
        ),
        line("b", split="train"),
        line("c", references=["猫\u2028が寝る"]),
    )
    a, c = dataset.clips("test")
    assert dataset.splits == ("test", "train")
    assert (a.path, a.start_s, a.end_s) == (tmp_path / "videos/sub/long.mkv", 5.0, 15.5)
    assert a.queries == (Query("a#0", "ein Kätzchen"), Query("q9", "all of it", "paragraph"))
    assert (a.source_id, a.meta["place"]) == ("s", "beach")
    assert c.references == ("猫 が寝る",) and c.path == tmp_path / "videos/c.mp4"


def test_a_raw_separator_inside_a_line_does_not_end_it(tmp_path):
    raw = '{"video_id": "a", "split": "test", "references": ["one\u2028two\u0085three"]}'
    assert made(tmp_path, raw).clips("test")[0].references == ("one two three",)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ('{"video_id": ', r"clips.jsonl:2: broken JSON"),
        (line("x"), "split test, video_id: x occurs twice"),
        (line("y", split=""), "split '' is not a name"),
        (line("../y"), "cannot be a video id"),
        (line("/etc/passwd"), "cannot be a video id"),
        (line(""), "cannot be a video id"),
        (line(".."), "cannot be a video id"),
        (line(7), "cannot be a video id"),
        (line("y", file="../../etc/passwd"), "leaves the video folder"),
        (line("y", file="/etc/passwd"), "leaves the video folder"),
        (line("y", file="..\\secret.mp4"), "leaves the video folder"),
        (line("y", references=["", "b"]), "not a non-empty text"),
        (line("y", references=["\u2028"]), "not a non-empty text"),
        (line("y", references="a cat"), "references is not a list"),
        (line("y", start_s=5, end_s=5), "window 5-5 s is empty"),
        (line("y", start_s="5"), "is empty or not a number"),
        (line("y", start_s=float("nan")), "is empty or not a number"),
        (line("y", end_s=float("inf")), "is empty or not a number"),
        (line("y", references=[" "]), "not a non-empty text"),
        (line("y", queries=[{"text": "x", "kind": "word"}]), "query kind 'word'"),
        (line("y", queries=[{"query_id": "x#0", "text": "t"}]), "query_id: x#0 occurs twice"),
        (line("y", caption="a"), "unknown key 'caption'"),
        ("[1]", "no 'video_id'"),
    ],
)
def test_a_bad_line_is_one_line(tmp_path, bad, said):
    with pytest.raises(AtomError, match=said) as caught:
        made(tmp_path, line("x", queries=["q"]), bad).clips("test")
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_one_line(tmp_path):
    dataset = made(tmp_path, line())
    dataset.path.write_bytes(json.dumps(line(), ensure_ascii=False).encode("utf-16"))
    with pytest.raises(AtomError, match=r"clips\.jsonl: cannot be read \('utf-8' codec"):
        dataset.clips("test")


def test_missing_file_and_split(tmp_path):
    with pytest.raises(AtomError, match=r"clips\.jsonl: not there"):
        jsonl.build(name="mine", file=str(tmp_path / "clips.jsonl"), videos="").prepare()
    with pytest.raises(AtomError, match="no split 'dev'"):
        made(tmp_path, line()).clips("dev")


def test_a_protocol_holds_it_to_its_counts(tmp_path):
    named = protocol.build(
        name="mine/caption", dataset="mine", split="test", videos=2, captions=-1,
        captions_per_video=-1, queries=-1, query_kind="sentence",
    )  # fmt: skip
    assert len(named.select(made(tmp_path, line("a"), line("b")))) == 2
    with pytest.raises(AtomError, match="expects 2 videos in mine/test, found 1"):
        named.select(made(tmp_path, line("a")))
