"""Pearson and Spearman correlation with bootstrap resampling, the STS-B scores (Table 7)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CELLS_AT_ONCE = 4_000_000


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Returns the linear correlation of two (N,) sequences, −1 to 1.

    Raises:
        ValueError: different shapes, fewer than two values, one that is not finite, or a
            constant sequence, whose correlation is undefined.
    """
    pair = _pair(a, b)
    return float(_pearson(pair[0][None], pair[1][None])[0])


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Returns the correlation of ranks; equal values share the mean of their ranks.

    Raises:
        ValueError: as `pearson`.
    """
    pair = _pair(a, b)
    return pearson(_ranks(pair[0]), _ranks(pair[1]))


def bootstrap_pearson(
    a: ArrayLike, b: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Returns the Pearson correlation of `resamples` resamples of the pairs, (resamples,).

    The same seed draws the same pairs, so two systems' results may be subtracted draw by draw.

    Raises:
        ValueError: as `pearson`, or no resamples.
    """
    pair = _pair(a, b)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    generator = np.random.default_rng(seed)
    size = pair.shape[1]
    chunk = max(1, _CELLS_AT_ONCE // size)
    replicates = []
    for start in range(0, resamples, chunk):
        chosen = generator.integers(size, size=(min(chunk, resamples - start), size))
        replicates.append(_pearson(pair[0][chosen], pair[1][chosen]))
    return np.concatenate(replicates)


def _pair(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or left.size < 2:
        raise ValueError(
            f"correlation needs two sequences of one length, at least 2, got shapes {left.shape} "
            f"and {right.shape}"
        )
    pair = np.stack((left, right))
    if not np.isfinite(pair).all() or (pair.max(axis=1) == pair.min(axis=1)).any():
        raise ValueError("a value is not finite, or a sequence is constant")
    return pair


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    left = a - a.mean(axis=-1, keepdims=True)
    right = b - b.mean(axis=-1, keepdims=True)
    scale = np.sqrt((left * left).sum(axis=-1) * (right * right).sum(axis=-1))
    return np.asarray((left * right).sum(axis=-1) / scale)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[group])
