"""MSVD: published counts, both formats, and files that are not what they should be."""

from pathlib import Path

import pytest

from atom_repro import config
from atom_repro.data import msvd
from atom_repro.data.annotations import count_leaks
from atom_repro.datatypes import AtomError

REAL = Path(__file__).parents[2] / "../shared/data/msvd"
SENTENCES = "vid1\ta cat\nvid2\ta dog runs\nvid1\ta cat sleeps\n"
MAPPING = "-4wsu_PC_5_15 vid1\r\nabc_10_20 vid2\r\n"


def made(folder: Path, sentences=SENTENCES, mapping=MAPPING) -> msvd.Msvd:
    (folder / "sents_test_lc_nopunc.txt").write_bytes(sentences.encode())
    (folder / "youtube_mapping.txt").write_bytes(mapping.encode())
    return msvd.build(annotations=str(folder), videos=str(folder / "videos"))


def test_captions_are_grouped_by_youtube_id(tmp_path):
    clips = made(tmp_path).clips("test")
    assert [(c.video_id, c.source_id, c.references) for c in clips] == [
        ("-4wsu_PC_5_15", "-4wsu_PC", ("a cat", "a cat sleeps")),
        ("abc_10_20", "abc", ("a dog runs",)),
    ]
    ids = [q.query_id for c in clips for q in c.queries]
    assert ids == ["-4wsu_PC_5_15#0", "-4wsu_PC_5_15#1", "abc_10_20#0"]


def test_a_separator_inside_a_caption_does_not_split_its_line(tmp_path):
    clips = made(tmp_path, "vid1\ta\u2028cat \x0bსძინავს\nvid2\tb\x85c\n").clips("test")
    assert [c.references for c in clips] == [("a cat სძინავს",), ("b c",)]


def test_videos_may_be_called_by_either_name(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("abc_10_20.avi", "vid1.avi"):
        (tmp_path / "videos" / name).write_bytes(b"")
    assert [c.path.name for c in made(tmp_path).clips("test")] == ["vid1.avi", "abc_10_20.avi"]


def test_the_corpus_file_gives_the_same_captions(tmp_path):
    by_sentences = made(tmp_path).clips("test")
    other = tmp_path / "corpus"
    other.mkdir()
    (other / "AllVideoDescriptions.txt").write_text(
        "# a licence\n\n-4wsu_PC_5_15 a cat\nabc_10_20 a dog runs\nzzz_1_2 not here\n"
        "-4wsu_PC_5_15 a cat sleeps\n"
    )
    (other / "test_list.txt").write_text("-4wsu_PC_5_15\nabc_10_20\n")
    by_corpus = msvd.build(annotations=str(other), videos=str(tmp_path / "videos")).clips("test")
    assert by_corpus == by_sentences


@pytest.mark.parametrize(
    ("sentences", "mapping", "said"),
    [
        ("vid1 a cat\n", MAPPING, "nopunc.txt:1: not `<number><tab><sentence>`"),
        ("vid9\ta cat\n", MAPPING, "vid9 is not in"),
        ("vid1\t \n", MAPPING, "not a non-empty text"),
        (SENTENCES, "a_1_2 vid1\nb_1_2 vid1\n", "vid1 occurs twice"),
        (SENTENCES, "a_1_2 vid1\na_1_2 vid2\n", "a_1_2 occurs twice"),
        (SENTENCES, "a vid1 x\n", "not `<YouTube id> <number>`"),
        (SENTENCES, "../a vid1\n", "cannot be a video id"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, sentences, mapping, said):
    with pytest.raises(AtomError, match=said) as caught:
        made(tmp_path, sentences, mapping).clips("test")
    assert "\n" not in str(caught.value)


def test_missing_files_and_splits(tmp_path):
    with pytest.raises(AtomError, match="no split 'val'"):
        made(tmp_path).clips("val")
    with pytest.raises(AtomError, match="needed for the train split"):
        made(tmp_path).clips("train")
    (tmp_path / "AllVideoDescriptions.txt").write_text("x_1_2 a cat\n")
    (tmp_path / "train_list.txt").write_text("y_1_2\n")
    with pytest.raises(AtomError, match="no caption of y_1_2"):
        made(tmp_path).clips("train")


def test_published_counts_hold():
    if not REAL.is_dir():
        pytest.skip(f"no MSVD captions at {REAL}")
    dataset = msvd.build(annotations=str(REAL), videos="/nowhere")
    counts = {
        s: (len(dataset.clips(s)), sum(len(c.references) for c in dataset.clips(s)))
        for s in dataset.splits
    }
    assert counts == {"train": (1200, 48774), "validation": (100, 4290), "test": (670, 27763)}
    for name in ("msvd_caption", "msvd_ret_multi"):
        named = config.build(config.compose("caption", [f"protocol={name}"]).protocol)
        assert len(named.select(dataset)) == 670
    each = [len(c.references) for c in dataset.clips("test")]
    assert (min(each), max(each)) == (21, 81)
    same, shared = count_leaks(dataset.clips("train"), dataset.clips("validation"))
    assert same == 0 and shared >= 1
    listed = (REAL / "msvd_test_list.txt").read_text().split()
    assert {c.video_id for c in dataset.clips("test")} == set(listed)
