"""How sure a difference between two systems is: paired bootstrap over the clips.

Both systems are scored on the same clips; a draw takes clips with replacement, the same ones
for both. The interval is the percentile one. It covers the choice of clips only, not the seed
of a training run.

What is resampled for which metric:
- ROUGE-L, recall hits, accuracies: their corpus value is a mean over clips; exact.
- CIDEr: per-clip values that were computed with the document frequencies of the full set,
  averaged. A draw does not recompute those frequencies; the set stays the yardstick.
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
    """A difference on the clips at hand, and where `level` of the draws put it."""

    mean: float
    low: float
    high: float
    level: float

    def to_dict(self) -> dict[str, float]:
        """As records hold it; `level` is the command's."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    draws: int = 10_000,
    seed: int = 0,
    statistic: Literal["mean", "median"] = "mean",
    level: float = 0.95,
) -> Interval:
    """Returns statistic(a) − statistic(b) with its bootstrap interval.

    Args:
        a: (N,) one value a clip.
        b: (N,) the other system's values of the same clips, in the same order.
        draws: how many resamples.
        seed: of the resamples.
        statistic: what is taken of each side; "median" suits ranks.
        level: the share of draws inside the interval.

    Raises:
        ValueError: different or empty shapes, values that are not finite, bad settings.
    """
    pair = _pair(a, b, dimensions=1)
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic is mean or median, not {statistic!r}")
    take = np.mean if statistic == "mean" else np.median

    def difference(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        sides: NDArray[np.float64] = take(pair[:, chosen], axis=-1)
        return np.asarray(sides[0] - sides[1])

    return _interval(difference, pair.shape[1], draws, seed, level)


def paired_bleu_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    order: int = 4,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the difference of corpus BLEU, in points, with its bootstrap interval.

    Args:
        a: (N, 10), `CaptionScores.bleu_statistics` of one system.
        b: (N, 10), of the other, for the same clips in the same order.
        order: 4 for BLEU@4.
        draws: how many resamples.
        seed: of the resamples.
        level: the share of draws inside the interval.

    Raises:
        ValueError: as `paired_difference`.
    """
    pair = _pair(a, b, dimensions=2)
    if pair.shape[2] != 10 or order not in (1, 2, 3, 4):
        raise ValueError(f"statistics of 10 columns and an order of 1 to 4, not {pair.shape[1:]}")

    def difference(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        bleu = corpus_bleu(pair[:, chosen].sum(axis=-2))[..., order - 1]
        return np.asarray(bleu[0] - bleu[1])

    return _interval(difference, pair.shape[1], draws, seed, level, cells_a_clip=20)


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
    matched, guessed, length, reference = np.split(sums, (4, 8, 9), axis=-1)
    precision = (matched + 1e-15) / (guessed + 1e-9)
    geometric = np.cumprod(precision, axis=-1) ** (1.0 / np.arange(1, 5))
    ratio = (length + 1e-15) / (reference + 1e-9)
    return np.asarray(100.0 * geometric * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio)))


def _pair(a: ArrayLike, b: ArrayLike, *, dimensions: int) -> NDArray[np.float64]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != dimensions or left.size == 0:
        raise ValueError(f"paired values of shapes {left.shape} and {right.shape}")
    pair = np.stack((left, right))
    if not np.isfinite(pair).all():
        raise ValueError("a value is not finite")
    return pair


def _interval(
    difference: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    clips: int,
    draws: int,
    seed: int,
    level: float,
    cells_a_clip: int = 2,
) -> Interval:
    """Applies `difference` to (draws, clips) indices, a chunk of draws at a time."""
    if draws < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"{draws} draws and a level of {level}")
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // (clips * cells_a_clip))
    drawn = np.concatenate(
        [
            difference(generator.integers(clips, size=(min(at_once, draws - done), clips)))
            for done in range(0, draws, at_once)
        ]
    )
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(drawn, (tail, 1.0 - tail))
    here = float(difference(np.arange(clips)[None])[0])
    return Interval(here, float(low), float(high), level)


def clustered_interval(
    values: ArrayLike,
    cluster: ArrayLike,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the mean of all values with its percentile interval over draws of clusters.

    Args:
        values: (Q,) finite.
        cluster: (Q,) integers, the group of each value.
        draws: how many resamples.
        seed: of the resamples.
        level: the share of draws inside the interval.

    Raises:
        ValueError: shapes that do not fit, no values, or one that is not finite.
    """
    numbers, groups = np.asarray(values, dtype=np.float64), np.asarray(cluster)
    if numbers.ndim != 1 or numbers.shape != groups.shape or not numbers.size:
        raise ValueError(f"values {numbers.shape} and clusters {groups.shape} do not fit")
    if not np.isfinite(numbers).all():
        raise ValueError("a value is not finite")
    if draws < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"{draws} draws and a level of {level}")
    _, member = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(member, weights=numbers), np.bincount(member)
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // len(sums))
    drawn = []
    for done in range(0, draws, at_once):
        chosen = generator.integers(len(sums), size=(min(at_once, draws - done), len(sums)))
        drawn.append(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.concatenate(drawn), (tail, 1.0 - tail))
    return Interval(float(numbers.mean()), float(low), float(high), level)


def slope(
    x: ArrayLike, y: ArrayLike, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Returns the rise of y a unit of x; a block is as long as the square root of the series.

    Args:
        x: (N,) strictly increasing, N at least 4.
        y: (N,) a sample at each.
        draws: how many resamples.
        seed: of the resamples.
        level: the share of draws inside the interval.

    Raises:
        ValueError: other shapes, fewer than 4 samples, x not increasing, values not finite.
    """
    at, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if at.ndim != 1 or at.shape != values.shape or len(at) < 4:
        raise ValueError(f"two series of 4 samples or more, not {at.shape} and {values.shape}")
    if not np.isfinite(values).all() or not (np.diff(at) > 0).all():
        raise ValueError("x must increase and y be finite")
    centred = at - at.mean()
    weights = centred / (centred @ centred)
    rise = float(weights @ values)
    residuals = values - values.mean() - rise * centred
    drawn = _blocks(residuals, draws, np.random.default_rng(seed))
    rises = rise + drawn @ weights
    low, high = np.quantile(rises, [(1 - level) / 2, (1 + level) / 2])
    return Interval(rise, float(low), float(high), level)


def _blocks(
    residuals: NDArray[np.float64], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(draws, N) series of blocks drawn with replacement."""
    n = len(residuals)
    length = max(2, round(n**0.5))
    starts = rng.integers(0, n - length + 1, (draws, -(-n // length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(draws, -1)[:, :n]
    return residuals[index]
