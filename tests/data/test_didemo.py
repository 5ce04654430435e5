"""DiDeMo: one video under two names, paragraphs, published counts."""

import json
from pathlib import Path

import pytest

from atom_repro import config
from atom_repro.data import didemo
from atom_repro.datatypes import AtomError
from atom_repro.video.folder import stem

REAL = Path(__file__).parents[2] / "../shared/data/didemo"


def row(number, video, text, **changes):
    entry = {"annotation_id": number, "video": video, "description": text, "num_segments": 6}
    return entry | changes


ROWS = [
    row(1, "9@N1_77_ab.mov", "a cat jumps"),
    row(2, "9@N2_78_cd.", "a dog\u2028runs"),
    row(3, "9@N1_77_ab.mp4", "the cat lands"),
]


def made(folder: Path, rows=ROWS) -> didemo.Didemo:
    (folder / "test_data.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return didemo.build(annotations=str(folder), videos=str(folder / "videos"))


def test_names_of_one_video_are_one_video(tmp_path):
    clips = made(tmp_path).clips("test")
    assert [(c.video_id, c.source_id, c.references) for c in clips] == [
        ("9@N1_77_ab", "77", ("a cat jumps", "the cat lands")),
        ("9@N2_78_cd", "78", ("a dog runs",)),
    ]


def test_a_paragraph_is_all_sentences_in_order(tmp_path):
    clips = made(tmp_path).clips("test-paragraph")
    assert [(q.text, q.kind) for c in clips for q in c.queries] == [
        ("a cat jumps the cat lands", "paragraph"),
        ("a dog runs", "paragraph"),
    ]


def test_a_file_that_was_made_into_mp4_is_found(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("9@N1_77_ab.mp4", "9@N1_77_ab.mov", "9@N2_78_cd."):
        (tmp_path / "videos" / name).write_bytes(b"")
    names = [c.path.name for c in made(tmp_path).clips("test")]
    assert names == ["9@N1_77_ab.mp4", "9@N2_78_cd."]


def test_stems():
    assert [stem(n) for n in ("a.MOV", "a.", "a.b", "a", "a.b.3gp")] == [
        "a",
        "a",
        "a.b",
        "a",
        "a.b",
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(1, "a.mov", "x"), row(1, "b.mov", "y")], "annotation_id 1 occurs twice"),
        ([row(1, "../a.mov", "x")], "cannot be a video id"),
        ([row(1, "a.mov", "")], "not a non-empty text"),
        ([{"video": "a.mov"}], "no 'annotation_id'"),
        ({"a": 1}, "not a list"),
        ("[", "broken JSON"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, rows, said):
    with pytest.raises(AtomError, match=said):
        made(tmp_path, rows).clips("test")


def test_missing_splits(tmp_path):
    with pytest.raises(AtomError, match="no split 'dev'"):
        made(tmp_path).clips("dev")
    with pytest.raises(AtomError, match="needed for the validation split"):
        made(tmp_path).clips("validation-paragraph")


def test_published_counts_hold_on_the_stem():
    if not REAL.is_dir():
        pytest.skip(f"no DiDeMo annotations at {REAL}")
    dataset = didemo.build(annotations=str(REAL), videos="/nowhere")
    counts = {
        s: (len(dataset.clips(s)), sum(len(c.queries) for c in dataset.clips(s)))
        for s in ("test", "test-paragraph", "validation", "validation-paragraph")
    }
    assert counts == {
        "test": (1004, 4021), "test-paragraph": (1004, 1004),
        "validation": (1065, 4180), "validation-paragraph": (1065, 1065),
    }  # fmt: skip
    names = {r["video"] for r in json.loads((REAL / "didemo_test_data.json").read_text())}
    assert len(names) == 1037, "joining on full names would find another gallery"
    each = [len(c.references) for c in dataset.clips("test")]
    assert (min(each), max(each)) == (1, 7)
    for name in ("didemo_ret_paragraph", "didemo_ret_sentence"):
        named = config.build(config.compose("caption", [f"protocol={name}"]).protocol)
        assert len(named.select(dataset)) == 1004
    lost = didemo.build(annotations=str(REAL), videos="/nowhere")
    lost._clips["test"] = dataset.clips("test")[:-1]
    with pytest.raises(AtomError, match="expects 1004 videos in didemo/test, found 1003"):
        named.select(lost)
