"""How fast a series rises: least squares, with an interval that allows for neighbours being alike.

Samples of a process's memory are steps and plateaus, so the textbook error of a slope, which takes
residuals for independent, is far too sure. Here whole blocks of residuals are drawn again (a
moving-block bootstrap) and the line is fitted anew.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atom_repro.metrics.bootstrap import Interval


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
