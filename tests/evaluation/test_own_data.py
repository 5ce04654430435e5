"""Scores of a person's own clips: what one reference, one clip or no training split allow."""

from pathlib import Path

import pytest

from atom_repro.config import build, compose
from atom_repro.data import jsonl
from atom_repro.datatypes import AtomError, Clip, Query
from atom_repro.evaluation import caption_scores
from atom_repro.evaluation.caption_scores import (
    baselines,
    constant_sentence,
    require_references,
    training_references,
)
from atom_repro.evaluation.retrieval import require_gallery
from atom_repro.metrics.java import find_java

LINES = (
    '{"video_id": "a", "split": "test", "references": ["a red ball on the beach"]}\n'
    '{"video_id": "b", "split": "test", "references": ["海滩上的红球", "ein roter Ball, klein"]}\n'
)


@pytest.fixture
def own(tmp_path):
    """The data set of a file with these lines."""

    def made(text: str = LINES) -> jsonl.JsonLines:
        (tmp_path / "own.jsonl").write_text(text, encoding="utf-8")
        return jsonl.build(name="jsonl", file=str(tmp_path / "own.jsonl"), videos=str(tmp_path))

    return made


def clip(name: str, *references: str, queries: int = 1) -> Clip:
    asked = tuple(Query(f"{name}#{i}", "x") for i in range(queries))
    return Clip("own", "test", name, Path(name), references=references, queries=asked)


def test_any_data_set_has_a_protocol(own):
    for primary in ("caption", "retrieval"):
        protocol = build(compose(primary, ["protocol=own"]).protocol)
        assert [c.video_id for c in protocol.select(own())] == ["a", "b"]
    toy = build(compose("caption", []).protocol)
    with pytest.raises(AtomError, match="protocol=own for data of your own"):
        toy.select(own())


@pytest.mark.java
def test_what_cannot_be_computed_is_left_out_and_said(own):
    java = find_java(None)
    dataset = own()
    assert constant_sentence(training_references(dataset), java=java) == ""
    references = {c.video_id: c.references for c in dataset.clips("test")}
    rows, left_out = baselines(references, "", java=java)
    assert [line.partition(":")[0] for line in left_out] == [
        "no floor of a constant sentence", "no scores of people against each other",
    ]  # fmt: skip
    assert set(rows["floor_constant_sentence"].values()) == {None}
    assert set(rows["people_leave_one_out"].values()) == {None}
    assert rows["floor_next_video"].keys() == rows["people_leave_one_out"].keys()
    assert 0 < rows["floor_next_video"]["bleu_1"] < 20  # one word of them is the same


@pytest.mark.java
def test_with_a_training_split_and_two_references_all_is_there(own):
    java = find_java(None)
    more = LINES + '{"video_id": "c", "split": "train", "references": ["ein roter Ball"]}\n'
    assert constant_sentence(training_references(own(more)), java=java) == "ein roter Ball"
    two = {"a": ("a ball", "the ball"), "b": ("a boat", "the boat")}
    rows, left_out = baselines(two, "a ball", java=java)
    assert left_out == []
    assert rows["people_leave_one_out"].keys() == dict.fromkeys(caption_scores._CORPUS).keys()
    assert None not in {score for row in rows.values() for score in row.values()}


def test_what_cannot_be_scored_is_refused_before_it_is_captioned():
    require_references([clip("a", "x"), clip("b", "y")])
    with pytest.raises(AtomError, match="1 of 2 clips have no reference, such as b"):
        require_references([clip("a", "x"), clip("b")])
    with pytest.raises(AtomError, match="at least two clips to choose from, there are 1"):
        require_gallery([clip("a", "x")])
    with pytest.raises(AtomError, match="no clip has a query"):
        require_gallery([clip("a", "x", queries=0), clip("b", "y", queries=0)])
    require_gallery([clip("a", "x"), clip("b", "y", queries=0)])
