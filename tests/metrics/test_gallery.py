"""Recall in smaller galleries: exact against every sub-gallery, and at its two ends."""

from itertools import combinations

import numpy as np
import pytest

from atom_repro.metrics.gallery import recall_by_size
from atom_repro.metrics.retrieval import ranks, recall_at


def test_it_is_the_mean_over_all_sub_galleries():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (6, 6)).astype(float)  # ties on purpose
    found = ranks(scores, np.arange(6))
    for size in (1, 2, 4, 6):
        for k in (1, 2, 3):
            expected = []
            for q in range(6):
                hits = []
                for others in combinations([v for v in range(6) if v != q], size - 1):
                    part = ranks(scores[q : q + 1, [q, *others]], np.array([0]))
                    hits.append(recall_at(part, k).expected)
                expected.append(np.mean(hits))
            exact = recall_by_size(found, [size], k=k)[size]
            np.testing.assert_allclose(exact, expected, atol=1e-9)


def test_the_whole_gallery_gives_recall_itself_and_misses_stay_misses():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(300, 40))
    found = ranks(scores, rng.integers(0, 40, 300), missing=np.arange(40) < 3)
    curve = recall_by_size(found, [1, 10, 40], k=5)
    assert curve[40].mean() == pytest.approx(recall_at(found, 5).expected)
    assert curve[1].mean() == pytest.approx(100 * (1 - found.missed.mean()))
    assert curve[40].mean() < curve[10].mean() < curve[1].mean()
    assert not curve[1][found.missed].any()


def test_sizes_beyond_the_gallery_are_refused():
    found = ranks(np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match="gallery of 3"):
        recall_by_size(found, [4])
    with pytest.raises(ValueError, match="k=0"):
        recall_by_size(found, [2], k=0)
