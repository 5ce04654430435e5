"""STS-B: three sources of the same pairs, and counts that are asserted."""

from pathlib import Path

import pytest

from atom_repro.data import stsb
from atom_repro.data.stsb import PAIRS, Pair
from atom_repro.datatypes import AtomError

REAL = Path(__file__).parents[2] / "../shared/data/stsb"


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "real" not in request.node.name:
        monkeypatch.setitem(PAIRS, "test", 2)


def made(folder: Path, name="stsb-en-test.csv", text="") -> stsb.StsBenchmark:
    (folder / name).write_text(text, encoding="utf-8")
    return stsb.build(annotations=str(folder), hub_id="")


EXPECTED = [Pair('He said "no", twice.', "Он сказал нет.", 2.5), Pair("a cat", "a dog", 0.0)]


def test_both_file_formats_give_the_same_pairs(tmp_path):
    ours = made(tmp_path, text='"He said ""no"", twice.",Он сказал нет.,2.5\na cat,a dog,0.0\n')
    official = tmp_path / "official"
    official.mkdir()
    rows = [
        f"main\tMSRvid\t2012\t000{i}\t{p.score}\t{p.first}\t{p.second}"
        for i, p in enumerate(EXPECTED)
    ]
    theirs = made(official, "sts-test.csv", "\n".join(rows) + "\n")
    assert ours.pairs("test") == theirs.pairs("test") == EXPECTED
    assert ours.fingerprint("test") == theirs.fingerprint("test")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,1.0\n", "stsb/test has 2 pairs, found 1"),
        ("a,b,1.0\na,b\n", "not two sentences and a score"),
        ("a,b,1.0\na,b,high\n", "not two sentences and a score"),
        ("a,b,1.0\na,,2\n", "not a non-empty text"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text, said):
    with pytest.raises(AtomError, match=said):
        made(tmp_path, text=text).pairs("test")


def test_missing_files_and_splits(tmp_path):
    dataset = stsb.build(annotations=str(tmp_path), hub_id="")
    with pytest.raises(AtomError, match=r"stsb-en-test\.csv: not there"):
        dataset.pairs("test")
    with pytest.raises(AtomError, match="no split 'dev'"):
        dataset.pairs("dev")


def test_a_hub_id_is_a_source(tmp_path):
    (tmp_path / "test.jsonl").write_text(
        '{"sentence1": "a cat", "sentence2": "a dog", "score": 0.5}\n'
        '{"sentence1": "b", "sentence2": "c", "score": 1}\n'
    )
    dataset = stsb.build(annotations="", hub_id=str(tmp_path))
    assert dataset.pairs("test") == [Pair("a cat", "a dog", 0.5), Pair("b", "c", 1.0)]


def test_published_counts_of_the_real_files_hold():
    if not REAL.is_dir():
        pytest.skip(f"no STS-B at {REAL}")
    dataset = stsb.build(annotations=str(REAL), hub_id="")
    assert {s: len(dataset.pairs(s)) for s in dataset.splits} == {
        "train": 5749, "validation": 1500, "test": 1379,
    }  # fmt: skip
    scores = [p.score for p in dataset.pairs("test")]
    assert (min(scores), max(scores)) == (0.0, 5.0)
