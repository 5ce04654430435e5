"""Expected recall in smaller galleries: exact, from the ranks in the full gallery.

A query's own video stays and the others are drawn at random. The number of drawn videos that rank
ahead of it is hypergeometric, so no sub-gallery has to be searched. It shows why recalls over
different numbers of videos do not compare.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atom_repro.metrics.retrieval import RankResult


def recall_by_size(
    result: RankResult, sizes: Sequence[int], *, k: int = 1
) -> dict[int, NDArray[np.float64]]:
    """Returns for each gallery size every query's probability, in per cent, of a rank up to k.

    Ties are in random order, as in `RankResult.hits`.

    Args:
        result: ranks in the full gallery of N.
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
    by_size = {}
    for size in sizes:
        probability = _hypergeometric_cdf(k - 1, others, size - 1, log_factorial)  # (N,) by rank
        # The mean over rank … rank + ties, from a running sum.
        cumulative = np.concatenate(([0.0], np.cumsum(probability)))
        rank = np.minimum(result.rank, others)
        last = np.minimum(rank + result.ties, others)
        hits = (cumulative[last + 1] - cumulative[rank]) / (last - rank + 1)
        hits[result.missed] = 0.0
        by_size[size] = 100.0 * hits
    return by_size


def _hypergeometric_cdf(
    limit: int, others: int, drawn: int, log_factorial: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(others + 1,) P(at most `limit` of `drawn` rank ahead), by the number of others ahead."""
    ahead = np.arange(others + 1)
    probability = np.zeros(others + 1)
    log_total = _log_choose(np.array([others]), np.array([drawn]), log_factorial)[0]
    for drawn_ahead in range(min(limit, drawn) + 1):
        possible = (drawn_ahead <= ahead) & (drawn - drawn_ahead <= others - ahead)
        logs = (
            _log_choose(ahead[possible], np.full(possible.sum(), drawn_ahead), log_factorial)
            + _log_choose(
                others - ahead[possible],
                np.full(possible.sum(), drawn - drawn_ahead),
                log_factorial,
            )
            - log_total
        )
        probability[possible] += np.exp(logs)
    return np.minimum(probability, 1.0)


def _log_choose(
    n: NDArray[np.int64], k: NDArray[np.int64], log_factorial: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(log_factorial[n] - log_factorial[k] - log_factorial[n - k])
