"""Intervals of paired differences: against theory, against a loop, and reproducible."""

import math

import numpy as np
import pytest

from atom_repro.metrics.bootstrap import (
    corpus_bleu,
    paired_bleu_difference,
    paired_difference,
)


def test_the_interval_has_the_width_of_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    b = rng.normal(50, 10, size=800)
    a = b + rng.normal(1, 2, size=800)  # paired: the spread of b must not matter
    interval = paired_difference(a, b, resamples=4000, seed=1)
    standard_error = (a - b).std() / math.sqrt(800)
    assert interval.mean == pytest.approx((a - b).mean())
    assert interval.low == pytest.approx(interval.mean - 1.96 * standard_error, abs=0.02)
    assert interval.high == pytest.approx(interval.mean + 1.96 * standard_error, abs=0.02)
    assert interval.level == 0.95
    narrow = paired_difference(a, b, resamples=4000, seed=1, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


def test_a_seed_fixes_it_and_sides_mirror() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 50))
    one = paired_difference(a, b, resamples=500, seed=3)
    assert one == paired_difference(a, b, resamples=500, seed=3)
    assert one != paired_difference(a, b, resamples=500, seed=4)
    mirrored = paired_difference(b, a, resamples=500, seed=3)
    assert (mirrored.mean, mirrored.low) == pytest.approx((-one.mean, -one.high))


def test_a_constant_difference_has_no_width() -> None:
    interval = paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5], resamples=100)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))
    same = paired_difference([1.0, 2.0], [1.0, 2.0], resamples=100)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_median_is_taken_of_each_side() -> None:
    a, b = np.array([1.0, 2.0, 100.0]), np.array([1.0, 1.0, 1.0])
    assert paired_difference(a, b, resamples=50, statistic="median").mean == 1.0


def test_chunks_of_draws_do_not_change_the_number_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = np.arange(10.0), np.zeros(10)
    whole = paired_difference(a, b, resamples=100, seed=0)
    monkeypatch.setattr("atom_repro.metrics.bootstrap._CELLS_AT_ONCE", 7 * 20)
    assert paired_difference(a, b, resamples=100, seed=0) == whole


def _statistics(clips: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    length = rng.integers(4, 12, size=clips)
    guessed = np.stack([length - order for order in range(4)], axis=1)
    matched = rng.binomial(guessed, (0.7, 0.5, 0.4, 0.3))
    reference = np.maximum(1, length + rng.integers(-1, 3, size=clips))
    return np.column_stack((matched, guessed, length, reference))


def test_corpus_bleu_by_hand() -> None:
    # 3 of 4 words, 1 of 3 pairs, no triple; one word shorter than the reference.
    bleu = corpus_bleu([3, 1, 0, 0, 4, 3, 2, 1, 4, 5])
    brevity = math.exp(1 - 5 / 4)
    assert bleu[0] == pytest.approx(100 * brevity * 3 / 4)
    assert bleu[1] == pytest.approx(100 * brevity * math.sqrt(3 / 4 * 1 / 3))
    assert bleu[2:] == pytest.approx([0, 0], abs=0.01)
    assert corpus_bleu(np.zeros(10)) == pytest.approx([0, 0, 0, 0])


def test_bleu_is_resampled_as_a_corpus_and_not_as_a_mean() -> None:
    a, b = _statistics(60, 0), _statistics(60, 1)
    interval = paired_bleu_difference(a, b, resamples=200, seed=5)
    generator = np.random.default_rng(5)
    drawn = []
    for chosen in generator.integers(60, size=(200, 60)):
        left, right = (corpus_bleu(side[chosen].sum(axis=0))[3] for side in (a, b))
        drawn.append(left - right)
    assert interval.mean == pytest.approx(
        corpus_bleu(a.sum(axis=0))[3] - corpus_bleu(b.sum(axis=0))[3]
    )
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert paired_bleu_difference(a, a, resamples=20).high == 0.0


def test_values_that_do_not_pair_are_errors() -> None:
    with pytest.raises(ValueError, match="paired values"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not finite"):
        paired_difference([1.0, np.nan], [1.0, 1.0])
    with pytest.raises(ValueError, match="0 resamples"):
        paired_difference([1.0], [1.0], resamples=0)
    with pytest.raises(ValueError, match="10 columns"):
        paired_bleu_difference(np.ones((3, 8)), np.ones((3, 8)))
