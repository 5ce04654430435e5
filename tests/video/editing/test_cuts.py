"""Cuts in order, with no second of a source shown twice."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from atom_repro.video.editing.cuts import Cut, without_overlap


def cut(source: str, start_s: float, end_s: float | None, text: str = "") -> Cut:
    return Cut(source, Path(f"{source}.mp4"), start_s, end_s, text, text)


def spans(cuts: list[Cut]) -> list[tuple[str, float, float | None]]:
    return [(c.video_id, c.start_s, c.end_s) for c in cuts]


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        # Nothing shared: nothing changed, also between sources and where cuts only touch.
        ([("a", 0, 10), ("b", 0, 10), ("a", 10, 20)], [("a", 0, 10), ("b", 0, 10), ("a", 10, 20)]),
        # The later yields, on whichever side it lies.
        ([("a", 0, 10), ("a", 5, 15)], [("a", 0, 10), ("a", 10, 15)]),
        ([("a", 5, 15), ("a", 0, 10)], [("a", 5, 15), ("a", 0, 5)]),
        ([("a", 5, 15), ("b", 0, 9), ("a", 10, 20)], [("a", 5, 15), ("b", 0, 9), ("a", 15, 20)]),
        # The same again is dropped; so is what lies between two others.
        ([("a", 0, 10), ("a", 0, 10)], [("a", 0, 10)]),
        ([("a", 0, 10), ("a", 10, 20), ("a", 5, 15)], [("a", 0, 10), ("a", 10, 20)]),
        # Of two rests the longer.
        ([("a", 4, 6), ("a", 0, 20)], [("a", 4, 6), ("a", 6, 20)]),
        # Up to the end, wherever that is.
        ([("a", 0, 10), ("a", 5, None)], [("a", 0, 10), ("a", 10, None)]),
        ([("a", 5, None), ("a", 0, 10)], [("a", 5, None), ("a", 0, 5)]),
        # A short rest is merged if it goes on from the cut before it, else dropped.
        ([("a", 0, 10), ("a", 1, 11)], [("a", 0, 11)]),
        ([("a", 0, 10), ("b", 0, 9), ("a", 1, 11)], [("a", 0, 10), ("b", 0, 9)]),
        ([("a", 1, 11), ("a", 0, 10)], [("a", 1, 11)]),
        # A short cut of its own stays.
        ([("a", 0, 0.1)], [("a", 0, 0.1)]),
        ([("a", 0, 5.001), ("a", 5, 5.1)], [("a", 0, 5.001), ("a", 5.001, 5.1)]),
        # A rounding of timestamps is no rest.
        ([("a", 0, 9.999), ("a", 5, 10.0)], [("a", 0, 9.999)]),
    ],
)
def test_overlap_is_trimmed_merged_or_dropped(wanted, kept):
    assert spans(without_overlap([cut(*w) for w in wanted], 2.0)) == kept


def test_a_merged_cut_carries_both_texts_and_a_trimmed_one_its_own():
    first, second = without_overlap([cut("a", 0, 10, "One."), cut("a", 5, 15, "Two.")], 2.0)
    assert (first.narration, second.narration) == ("One.", "Two.")
    (merged,) = without_overlap([cut("a", 0, 10, "One."), cut("a", 1, 11, "Two.")], 2.0)
    assert (merged.caption, merged.narration) == ("One. Two.", "One. Two.")


def test_no_second_is_shown_twice_whatever_the_order():
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts_s = rng.permutation(np.arange(0, 60, 5.0))
        cuts = [cut("a", float(s), float(s) + 10) for s in starts_s]
        kept = sorted((c.start_s, c.end_s) for c in without_overlap(cuts, 2.0))
        assert all(a[1] <= b[0] for a, b in pairwise(kept))
        assert sum(b - a for a, b in kept) == 65.0  # and nothing is lost


@pytest.mark.parametrize(("start_s", "end_s"), [(-1, 2), (3, 3), (float("nan"), 1), (2, 1)])
def test_an_empty_cut_is_a_defect(start_s, end_s):
    with pytest.raises(ValueError, match="is empty or starts before 0"):
        cut("a", start_s, end_s)
