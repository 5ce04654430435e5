"""Correlations against known values, and draws that can be paired."""

import numpy as np
import pytest

from atom_repro.metrics.correlation import bootstrap_pearson, pearson, spearman


def test_known_values():
    assert pearson([1, 2, 3, 4], [2, 4, 6, 8.5]) == pytest.approx(
        np.corrcoef([1, 2, 3, 4], [2, 4, 6, 8.5])[0, 1]
    )
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    # Ranks 1.5, 1.5, 3, 4 against 1 … 4.
    assert spearman([5, 5, 6, 7], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)


def test_draws_are_those_of_the_seed():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    good, bad = truth + rng.normal(size=200), truth + 3 * rng.normal(size=200)
    first, second = (bootstrap_pearson(s, truth, resamples=500, seed=4) for s in (good, bad))
    assert (first > second).mean() > 0.99
    assert np.array_equal(first, bootstrap_pearson(good, truth, resamples=500, seed=4))
    assert first.mean() == pytest.approx(pearson(good, truth), abs=0.02)


@pytest.mark.parametrize(
    "pair", [([1, 2], [1]), ([1], [1]), ([1, 1], [1, 2]), ([1, np.nan], [1, 2])]
)
def test_bad_input(pair):
    with pytest.raises(ValueError):
        pearson(*pair)
