"""How sure a mean is when its samples come in groups: bootstrap over the groups.

Twenty queries about one video are not twenty independent samples; drawing videos and keeping
each one's queries together says how the figure would move with other videos.
"""

import numpy as np
from numpy.typing import ArrayLike

from atom_repro.metrics.bootstrap import Interval

_CELLS_AT_ONCE = 4_000_000


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
