"""Scripts scored by hand."""

import random

import pytest

from atom_repro.metrics.script import (
    ScriptScore,
    coverage,
    duplicate_rate,
    kendall_tau_b,
    precision_at,
    ranked_script,
    scene_order,
    score_script,
    shuffled_script,
)

# Part 0 is fulfilled by a or b, part 1 by c, part 2 by d.
WANTED = [{"a", "b"}, {"c"}, {"d"}]


def test_tau_without_ties():
    assert kendall_tau_b([1, 2, 3], [1, 2, 3]) == 1
    assert kendall_tau_b([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau_b([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)


def test_tau_b_corrects_for_ties():
    # Pairs 5 agree, 0 disagree, 1 tied in the second: 5 / sqrt(6 * 5).
    assert kendall_tau_b([1, 2, 3, 4], [1, 1, 2, 3]) == pytest.approx(5 / 30**0.5)


def test_tau_of_nothing_to_order():
    assert kendall_tau_b([], []) is None
    assert kendall_tau_b([1, 2], [5, 5]) is None
    with pytest.raises(ValueError, match="lengths 1 and 2"):
        kendall_tau_b([1], [1, 2])


def test_order_passes_over_what_nobody_asked_for_and_what_is_repeated():
    assert scene_order(["a", "x", "c", "a", "d"], WANTED) == 1
    assert scene_order(["d", "c", "b"], WANTED) == -1
    # Places 0 1 2, parts 0 2 1.
    assert scene_order(["a", "d", "c"], WANTED) == pytest.approx(1 / 3)
    assert scene_order(["a", "b"], WANTED) is None
    assert scene_order(["x"], WANTED) is None


def test_coverage_counts_parts():
    assert coverage(["b", "a", "x"], WANTED) == pytest.approx(1 / 3)
    assert coverage(["b", "d", "c"], WANTED) == 1
    assert coverage([], WANTED) == 0
    with pytest.raises(ValueError, match="without parts"):
        coverage(["a"], [])


def test_duplicates_and_precision():
    assert duplicate_rate(["a", "b", "a", "a"]) == 0.5
    assert duplicate_rate([]) == 0
    assert precision_at(["a", "x", "c"], {"a", "c"}, 2) == 0.5
    assert precision_at(["a"], {"a", "c"}, 4) == 0.25
    assert precision_at(["a", "a"], {"a"}, 2) == 0.5
    with pytest.raises(ValueError, match="precision at 0"):
        precision_at(["a"], {"a"}, 0)


def test_a_whole_script():
    assert score_script(["c", "a", "a", "x"], WANTED, ordered=True) == ScriptScore(
        order=-1, coverage=pytest.approx(2 / 3), duplicates=0.25, precision=0.5
    )
    assert score_script(["c", "a"], WANTED, ordered=False).order is None
    assert score_script([], WANTED, ordered=True) == ScriptScore(None, 0, 0, 0)


def test_baselines():
    assert ranked_script(3) == [1, 2, 3]
    assert ranked_script(3, max_clips=2) == [1, 2]
    shuffled = [tuple(shuffled_script(3, random.Random(seed))) for seed in range(200)]
    assert len(set(shuffled)) == 6
    assert all(sorted(order) == [1, 2, 3] for order in shuffled)
    assert len(shuffled_script(5, random.Random(0), max_clips=2)) == 2
