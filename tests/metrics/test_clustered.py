"""Intervals over clusters: as the plain bootstrap for clusters of one, wider for larger ones."""

import numpy as np
import pytest

from atom_repro.metrics.bootstrap import clustered_interval


def test_the_interval_covers_the_mean_and_scales_like_a_standard_error():
    values = np.random.default_rng(0).normal(5, 2, 400)
    sure = clustered_interval(values, np.arange(400), resamples=4000)
    assert sure.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert sure.high - sure.low == pytest.approx(2 * half, rel=0.1)


def test_copies_of_a_sample_say_nothing_new():
    values = np.random.default_rng(0).normal(size=50)
    alone = clustered_interval(values, np.arange(50), seed=3)
    copied = clustered_interval(np.repeat(values, 20), np.repeat(np.arange(50), 20), seed=3)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_a_large_cluster_weighs_as_many_samples():
    values, cluster = [0.0] * 9 + [10.0], [0] * 9 + [1]
    # Half of the draws have one of each: the mean of ten samples, and not of two means.
    middle = clustered_interval(values, cluster, level=0.4, resamples=4000)
    assert (middle.mean, middle.low, middle.high) == (1.0, 1.0, 1.0)
    wide = clustered_interval(values, cluster, level=0.9, resamples=4000)
    assert (wide.low, wide.high) == (0.0, 10.0)


def test_bad_input():
    for values, cluster in (([1.0], [0, 1]), ([], []), ([np.nan], [0])):
        with pytest.raises(ValueError):
            clustered_interval(values, cluster)
    with pytest.raises(ValueError, match="0 resamples"):
        clustered_interval([1.0], [0], resamples=0)
