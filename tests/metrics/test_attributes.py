"""Per-attribute accuracy by hand."""

import pytest

from atom_repro.metrics.attributes import Accuracy, attribute_accuracy

TRUTH = [
    {"colour": {"red"}, "object": {"ball"}, "scenes": {"beach", "forest"}},
    {"colour": {"blue"}, "object": {"boat"}, "scenes": set()},
    {"colour": {"red", "blue"}, "object": {"car"}},
]
STATED = [
    {"colour": {"red"}, "object": {"box"}, "scenes": {"beach"}},
    {"colour": {"blue", "red"}, "object": {"boat"}, "scenes": {"desert"}},
    {"colour": {"blue", "red"}},
]


def test_exact_sets_count_and_absent_attributes_do_not() -> None:
    got = attribute_accuracy(STATED, TRUTH, ["seen", "held_out", "seen"])
    assert got == {
        "seen": {
            "colour": Accuracy(2, 2),
            "object": Accuracy(0, 2),
            "scenes": Accuracy(0, 1),
        },
        "held_out": {"colour": Accuracy(0, 1), "object": Accuracy(1, 1)},
        "all": {
            "colour": Accuracy(2, 3),
            "object": Accuracy(1, 3),
            "scenes": Accuracy(0, 1),
        },
    }
    assert list(got) == ["seen", "held_out", "all"]
    assert got["all"]["colour"].percent == pytest.approx(200 / 3)


def test_a_set_without_parts_is_counted_once() -> None:
    got = attribute_accuracy(STATED, TRUTH, ["all"] * 3)
    assert list(got) == ["all"]
    assert got["all"]["colour"] == Accuracy(2, 3)


def test_lengths_must_agree_and_nothing_gives_nothing() -> None:
    with pytest.raises(ValueError, match="is longer than"):
        attribute_accuracy(STATED[:2], TRUTH, ["seen"] * 3)
    assert attribute_accuracy([], [], []) == {}
