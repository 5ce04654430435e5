"""Summaries and answers scored by hand."""

import pytest

from atom_repro.metrics.attributes import Accuracy
from atom_repro.metrics.summary import (
    Overlap,
    answer_accuracy,
    attribute_overlap,
    first_caption,
    joined_captions,
    most_frequent_answers,
    normalised,
)


def test_overlap_counts_values():
    stated = [{"colour": {"red", "blue"}, "object": {"ball"}}, {"motion": {"up"}}]
    truth = [{"colour": {"red"}, "object": {"box"}, "place": set()}, {"colour": {"green"}}]
    got = attribute_overlap(stated, truth)
    assert got == {
        "colour": Overlap(right=1, stated=2, true=2),
        "motion": Overlap(right=0, stated=1, true=0),
        "object": Overlap(right=0, stated=1, true=1),
        "all": Overlap(right=1, stated=4, true=3),
    }
    assert list(got)[-1] == "all"
    assert (got["all"].precision, got["all"].recall) == (0.25, pytest.approx(1 / 3))
    assert got["all"].f1 == pytest.approx(2 / 7)


def test_nothing_stated_and_nothing_true():
    assert attribute_overlap([], []) == {}
    assert attribute_overlap([{"colour": set()}], [{"colour": set()}]) == {}
    silent = Overlap(0, 0, 3)
    assert (silent.precision, silent.recall, silent.f1) == (0, 0, 0)
    with pytest.raises(ValueError, match="shorter than"):
        attribute_overlap([{}], [])


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("On the Beach.", "on beach"),
        ("  2 ", "two"),
        ("A single, red  ball!", "single red ball"),
        ("the", ""),
        ("yes.", "yes"),
    ],
)
def test_normalisation(answer, plain):
    assert normalised(answer) == plain


def test_answers_by_kind():
    got = answer_accuracy(
        ["Violet", "3", "in a city", "no"],
        [("purple", "violet"), ("two",), ("in the city", "downtown"), ("yes",)],
        ["colour", "count", "place", "colour"],
    )
    assert got == {
        "colour": Accuracy(1, 2),
        "count": Accuracy(0, 1),
        "place": Accuracy(1, 1),
        "all": Accuracy(2, 4),
    }
    assert list(got) == ["colour", "count", "place", "all"]


def test_an_answer_cannot_be_asked_for_nothing():
    with pytest.raises(ValueError, match="accepts no answer"):
        answer_accuracy(["red"], [()], ["colour"])
    with pytest.raises(ValueError, match="shorter than"):
        answer_accuracy(["red"], [], ["colour"])
    assert answer_accuracy([], [], []) == {}


def test_baselines():
    assert first_caption(["one", "two"]) == "one"
    assert joined_captions(["one", "two"]) == "one, then two"
    assert most_frequent_answers(["red", "blue", "blue", "up"], ["c", "c", "c", "m"]) == {
        "c": "blue",
        "m": "up",
    }
    with pytest.raises(ValueError, match="no captions"):
        first_caption([])
