"""What recall would be in a smaller gallery: exact, from ranks in the whole one.

A query's own video stays and the others are drawn at random. Those that rank ahead of it are then
drawn hypergeometrically, so no sub-gallery has to be searched. It shows why recalls over
different numbers of videos do not compare.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atom_repro.metrics.retrieval import RankResult


def recall_by_size(
    result: RankResult, sizes: Sequence[int], *, k: int = 1
) -> dict[int, NDArray[np.float64]]:
    """Returns for each gallery size every query's chance, in per cent, of a place among k.

    Tied videos come in random order, as everywhere.

    Args:
        result: ranks in the whole gallery of N.
        sizes: from 1 to N; the query's video is one of them.
        k: at least 1.

    Returns:
        Size to (Q,) per cent.

    Raises:
        ValueError: a size outside the gallery, or k below 1.
    """
    n = result.index_size
    if k < 1 or any(not 1 <= size <= n for size in sizes):
        raise ValueError(f"k={k} and sizes {list(sizes)} for a gallery of {n}")
    others = n - 1
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    found = {}
    for size in sizes:
        chance = _at_most(k - 1, others, size - 1, log_factorial)  # (N,) by videos ahead
        # The mean over rank … rank + ties, from a running sum.
        total = np.concatenate(([0.0], np.cumsum(chance)))
        rank = np.minimum(result.rank, others)
        last = np.minimum(rank + result.ties, others)
        hits = (total[last + 1] - total[rank]) / (last - rank + 1)
        hits[result.missed] = 0.0
        found[size] = 100.0 * hits
    return found


def _at_most(
    most: int, others: int, drawn: int, log_factorial: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(others + 1,) by videos ahead: the chance that `drawn` of the others hold `most` or fewer."""
    ahead = np.arange(others + 1)
    chance = np.zeros(others + 1)
    whole = _log_choose(np.array([others]), np.array([drawn]), log_factorial)[0]
    for marked in range(min(most, drawn) + 1):
        fits = (marked <= ahead) & (drawn - marked <= others - ahead)
        logs = (
            _log_choose(ahead[fits], np.full(fits.sum(), marked), log_factorial)
            + _log_choose(others - ahead[fits], np.full(fits.sum(), drawn - marked), log_factorial)
            - whole
        )
        chance[fits] += np.exp(logs)
    return np.minimum(chance, 1.0)


def _log_choose(
    n: NDArray[np.int64], k: NDArray[np.int64], log_factorial: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(log_factorial[n] - log_factorial[k] - log_factorial[n - k])
