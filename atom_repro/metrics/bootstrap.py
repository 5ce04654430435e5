"""Bootstrap percentile intervals: paired differences over clips, clustered means, slopes.

For a difference both systems are scored on the same clips; a draw takes clips with replacement,
the same ones for both. The interval covers the choice of clips only, not the seed
of a training run.

What is resampled for which metric:
- ROUGE-L, recall hits, accuracies: their corpus value is a mean over clips; exact.
- CIDEr: per-clip values that were computed with the document frequencies of the full set,
  averaged. A draw does not recompute those frequencies.
- BLEU: `paired_bleu_difference` sums n-gram counts of the drawn clips and so gives corpus BLEU.
- METEOR: per-clip scores averaged, which is not METEOR's corpus score.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CELLS_AT_ONCE = 4_000_000  # bounds the memory of the drawn clips


@dataclass(frozen=True)
class Interval:
    """Point estimate (`mean`) on all clips with its percentile interval at confidence `level`."""

    mean: float
    low: float
    high: float
    level: float

    def to_dict(self) -> dict[str, float]:
        """The fields that a record stores; `level` is fixed by the command."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    statistic: Literal["mean", "median"] = "mean",
    level: float = 0.95,
) -> Interval:
    """Returns statistic(a) − statistic(b) with its bootstrap interval.

    Args:
        a: (N,) one value a clip.
        b: (N,) the other system's values of the same clips, in the same order.
        resamples: number of resamples.
        seed: of the resamples.
        statistic: computed for each system; "median" suits ranks.
        level: the share of resamples inside the interval.

    Raises:
        ValueError: different or empty shapes, values that are not finite, bad settings.
    """
    pair = _pair(a, b, dimensions=1)
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic is mean or median, not {statistic!r}")
    reduce = np.mean if statistic == "mean" else np.median

    def difference(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        sides: NDArray[np.float64] = reduce(pair[:, chosen], axis=-1)
        return np.asarray(sides[0] - sides[1])

    return _interval(difference, pair.shape[1], resamples, seed, level)


def paired_bleu_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    order: int = 4,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the difference of corpus BLEU, in points, with its bootstrap interval.

    Args:
        a: (N, 10), `CaptionScores.bleu_statistics` of one system.
        b: (N, 10), of the other, for the same clips in the same order.
        order: 4 for BLEU@4.
        resamples: number of resamples.
        seed: of the resamples.
        level: the share of resamples inside the interval.

    Raises:
        ValueError: as `paired_difference`.
    """
    pair = _pair(a, b, dimensions=2)
    if pair.shape[2] != 10 or order not in (1, 2, 3, 4):
        raise ValueError(
            f"BLEU takes statistics of 10 columns and order 1 to 4, not "
            f"shape {pair.shape[1:]} and order {order}"
        )

    def difference(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        bleu = corpus_bleu(pair[:, chosen].sum(axis=-2))[..., order - 1]
        return np.asarray(bleu[0] - bleu[1])

    return _interval(difference, pair.shape[1], resamples, seed, level, cells_per_clip=20)


def corpus_bleu(totals: ArrayLike) -> NDArray[np.float64]:
    """Returns corpus BLEU-1..4 in per cent from summed statistics.

    The formula and its two small constants are those of pycocoevalcap's BleuScorer, so that
    the sums over all clips give its corpus value to the last digits.

    Args:
        totals: (..., 10), sums over clips of `CaptionScores.bleu_statistics`.

    Returns:
        (..., 4).
    """
    sums = np.asarray(totals, dtype=np.float64)
    matched, hypothesis, length, reference = np.split(sums, (4, 8, 9), axis=-1)
    precision = (matched + 1e-15) / (hypothesis + 1e-9)
    geometric = np.cumprod(precision, axis=-1) ** (1.0 / np.arange(1, 5))
    ratio = (length + 1e-15) / (reference + 1e-9)
    return np.asarray(100.0 * geometric * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio)))


def _pair(a: ArrayLike, b: ArrayLike, *, dimensions: int) -> NDArray[np.float64]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != dimensions or left.size == 0:
        raise ValueError(
            f"paired values must have one shape, {dimensions} dimensions and not be empty, "
            f"got {left.shape} and {right.shape}"
        )
    pair = np.stack((left, right))
    if not np.isfinite(pair).all():
        raise ValueError("a value is not finite")
    return pair


def _interval(
    difference: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    clips: int,
    resamples: int,
    seed: int,
    level: float,
    cells_per_clip: int = 2,
) -> Interval:
    """Applies `difference` to (resamples, clips) indices, a chunk of resamples at a time."""
    if resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(
            f"{resamples} resamples at level {level}: at least 1, level between 0 and 1"
        )
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS_AT_ONCE // (clips * cells_per_clip))
    replicates = np.concatenate(
        [
            difference(generator.integers(clips, size=(min(chunk, resamples - start), clips)))
            for start in range(0, resamples, chunk)
        ]
    )
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(replicates, (tail, 1.0 - tail))
    estimate = float(difference(np.arange(clips)[None])[0])
    return Interval(estimate, float(low), float(high), level)


def clustered_interval(
    values: ArrayLike,
    cluster: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the mean of all values with its cluster bootstrap percentile interval.

    Args:
        values: (Q,) finite.
        cluster: (Q,) integers, the group of each value.
        resamples: number of resamples.
        seed: of the resamples.
        level: the share of resamples inside the interval.

    Raises:
        ValueError: different shapes, no values, or one that is not finite.
    """
    samples, clusters = np.asarray(values, dtype=np.float64), np.asarray(cluster)
    if samples.ndim != 1 or samples.shape != clusters.shape or not samples.size:
        raise ValueError(
            f"values {samples.shape} and clusters {clusters.shape} differ or are empty"
        )
    if not np.isfinite(samples).all():
        raise ValueError("a value is not finite")
    if resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(
            f"{resamples} resamples at level {level}: at least 1, level between 0 and 1"
        )
    _, cluster_index = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(cluster_index, weights=samples), np.bincount(cluster_index)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS_AT_ONCE // len(sums))
    replicates = []
    for start in range(0, resamples, chunk):
        chosen = generator.integers(len(sums), size=(min(chunk, resamples - start), len(sums)))
        replicates.append(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.concatenate(replicates), (tail, 1.0 - tail))
    return Interval(float(samples.mean()), float(low), float(high), level)


def slope(
    x: ArrayLike, y: ArrayLike, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Returns the least-squares slope of y over x with a block bootstrap interval (blocks of √N).

    Args:
        x: (N,) strictly increasing, N at least 4.
        y: (N,) a sample at each.
        resamples: number of resamples.
        seed: of the resamples.
        level: the share of resamples inside the interval.

    Raises:
        ValueError: other shapes, fewer than 4 samples, x not increasing, values not finite.
    """
    positions, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if positions.ndim != 1 or positions.shape != values.shape or len(positions) < 4:
        raise ValueError(
            f"two series of 4 samples or more, not {positions.shape} and {values.shape}"
        )
    if not np.isfinite(values).all() or not (np.diff(positions) > 0).all():
        raise ValueError("x must increase and y be finite")
    centred = positions - positions.mean()
    weights = centred / (centred @ centred)
    estimate = float(weights @ values)
    residuals = values - values.mean() - estimate * centred
    noise = _blocks(residuals, resamples, np.random.default_rng(seed))
    slopes = estimate + noise @ weights
    low, high = np.quantile(slopes, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)


def _blocks(
    residuals: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(resamples, N) series: moving-block bootstrap of the residuals."""
    n = len(residuals)
    length = max(2, round(n**0.5))
    starts = rng.integers(0, n - length + 1, (resamples, -(-n // length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :n]
    return residuals[index]
