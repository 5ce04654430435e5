"""Recall@k and ranks from a similarity matrix, with the expected value over ties.

Pure numpy, one relevant video a query. Tied scores are common here: videos are found by their
captions, and two videos may have the same one. Counting every tied position as the rank, as a
much used script does, inflates recall; here a tie earns its expected value over random orders,
and the two extremes are reported when they matter. Without ties all agree.

Not here: a maximum over the queries of a video (any-caption recall), which is another task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RECALL_AT = (1, 5, 10)  # the k of the paper's tables
TIE_TOLERANCE = 1e-6
_MIN_BOUNDS_GAP = 0.1  # percentage points between the pessimistic and the optimistic recall
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class RankResult:
    """Rank of each query's video in an index of `index_size` videos.

    `rank` (Q,) counts the videos that score higher, so 0 is first; `ties` (Q,) counts the
    other videos that score the same. A query whose video is missing is `missed` (Q,): no k
    finds it, and it ranks behind the whole index. `target` (Q,) is the relevant video.
    """

    rank: NDArray[np.int64]
    ties: NDArray[np.int64]
    missed: NDArray[np.bool_]
    target: NDArray[np.int64]
    index_size: int

    @property
    def queries(self) -> int:
        return len(self.rank)

    @property
    def tied_queries(self) -> int:
        """How many queries share their score with another video."""
        return int(np.count_nonzero(self.ties))

    @property
    def median_rank(self) -> float:
        """The median of the rank expected under a random order of ties; 1 is the best."""
        return float(np.median(self.rank + 1 + self.ties / 2))

    def hits(self, k: int) -> NDArray[np.float64]:
        """(Q,) the probability of each query's video among the first k, ties in random order."""
        hits = np.clip((k - self.rank) / (self.ties + 1), 0.0, 1.0)
        hits[self.missed] = 0.0
        return hits

    @property
    def mean_rank(self) -> float:
        """The mean of the rank expected under a random order of ties; 1 is the best."""
        return float(np.mean(self.rank + 1 + self.ties / 2))


@dataclass(frozen=True)
class Recall:
    """Recall@k in per cent: expected over ties, and with every tie lost or won."""

    expected: float
    pessimistic: float
    optimistic: float

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The two extremes, or None where ties move the recall by 0.1 points or less."""
        if self.optimistic - self.pessimistic <= _MIN_BOUNDS_GAP:
            return None
        return self.pessimistic, self.optimistic


@dataclass(frozen=True)
class RetrievalScores:
    """Recall@k, ranks and counts. Recalls at different `index_size` do not compare.

    `micro` averages over queries, `macro` over videos and so gives a video with many queries
    no more weight than another. `distinct_texts` is how many different texts the index held:
    far fewer than `index_size` means that ties dominate the result.
    """

    micro: Mapping[int, Recall]
    macro: Mapping[int, Recall]
    median_rank: float
    mean_rank: float
    queries: int
    index_size: int
    distinct_texts: int
    tied_queries: int
    missed_queries: int


def ranks(
    similarity: ArrayLike, target: ArrayLike, *, missing: ArrayLike | None = None
) -> RankResult:
    """Ranks each query's video among all videos.

    Two scores within `TIE_TOLERANCE` are equal.

    Args:
        similarity: (Q, N), higher is more alike.
        target: (Q,) integers, the column of each query's video.
        missing: (N,) booleans, videos that stay in the index but have no text to match
            (no caption). They rank behind all others whatever their column holds, and their
            queries are misses.

    Raises:
        ValueError: shapes or targets that do not fit, or a similarity that is not finite in a
            column that is not missing.
    """
    scores = np.asarray(similarity)
    targets = np.asarray(target)
    if scores.ndim != 2 or 0 in scores.shape or targets.shape != scores.shape[:1]:
        raise ValueError(f"similarity {scores.shape} and target {targets.shape} do not fit")
    queries, size = scores.shape
    if not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(f"targets are column numbers, not {targets.dtype}")
    if targets.min() < 0 or targets.max() >= size:
        raise ValueError(f"a target lies outside the {size} columns")
    absent = np.zeros(size, dtype=np.bool_) if missing is None else np.asarray(missing)
    if absent.shape != (size,) or absent.dtype != np.bool_:
        raise ValueError(f"missing must be {size} booleans, not {absent.dtype}{absent.shape}")

    present = ~absent
    rank = np.empty(queries, dtype=np.int64)
    ties = np.empty(queries, dtype=np.int64)
    for start in range(0, queries, _ROWS_AT_ONCE):  # bounds the memory of the differences
        rows = slice(start, start + _ROWS_AT_ONCE)
        block = scores[rows].astype(np.float64)
        if not np.isfinite(block[:, present]).all():
            raise ValueError("a similarity is not finite; mark videos without text as missing")
        block[:, absent] = -np.inf
        target_scores = block[np.arange(len(block)), targets[rows], None]
        target_scores[~np.isfinite(target_scores)] = 0.0  # missed queries, overwritten below
        margin = block - target_scores
        rank[rows] = np.count_nonzero(margin > TIE_TOLERANCE, axis=1)
        ties[rows] = np.count_nonzero(np.abs(margin) <= TIE_TOLERANCE, axis=1) - 1
    missed = absent[targets]
    rank[missed] = size
    ties[missed] = 0
    return RankResult(rank, ties, missed, targets.astype(np.int64), size)


def recall_at(result: RankResult, k: int, *, average: str = "micro") -> Recall:
    """Returns recall@k: the share of queries whose video is among the first k.

    With r videos ahead and e tied ones, a random order of ties ranks it there with probability
    min(max((k − r) / (e + 1), 0), 1).

    Args:
        result: from `ranks`.
        k: at least 1.
        average: "micro" over queries, or "macro" over the target videos.
    """
    if k < 1:
        raise ValueError(f"k is {k}, not a positive number")
    slots = k - result.rank
    expected = result.hits(k)
    pessimistic = (slots > result.ties).astype(np.float64)
    optimistic = (slots > 0).astype(np.float64)
    means = []
    for hits in (expected, pessimistic, optimistic):
        hits[result.missed] = 0.0
        means.append(100.0 * _mean(hits, result.target, average))
    return Recall(*means)


def retrieval_scores(
    result: RankResult, *, distinct_texts: int, ks: Sequence[int] = (1, 5, 10)
) -> RetrievalScores:
    """Returns recall@k for each of `ks`, rank statistics and counts.

    Args:
        result: from `ranks`.
        distinct_texts: how many different texts the videos were represented by.
        ks: the cut-offs.
    """
    return RetrievalScores(
        micro={k: recall_at(result, k) for k in ks},
        macro={k: recall_at(result, k, average="macro") for k in ks},
        median_rank=result.median_rank,
        mean_rank=result.mean_rank,
        queries=result.queries,
        index_size=result.index_size,
        distinct_texts=distinct_texts,
        tied_queries=result.tied_queries,
        missed_queries=int(np.count_nonzero(result.missed)),
    )


def max_over_texts(
    similarity: ArrayLike, owner: ArrayLike, *, videos: int | None = None
) -> NDArray[np.float64]:
    """Returns the similarity to each video: the maximum over its texts.

    Args:
        similarity: (Q, T) to each text of the index.
        owner: (T,) integers, the video of each text.
        videos: how many videos N there are; None for the largest owner plus one.

    Returns:
        (Q, N). A video without any text gets −inf and belongs in `missing` of `ranks`.

    Raises:
        ValueError: shapes or owners that do not fit.
    """
    scores = np.asarray(similarity, dtype=np.float64)
    owners = np.asarray(owner)
    if scores.ndim != 2 or owners.shape != scores.shape[1:] or owners.size == 0:
        raise ValueError(f"similarity {scores.shape} and owner {owners.shape} do not fit")
    if not np.issubdtype(owners.dtype, np.integer):
        raise ValueError(f"owners are video numbers, not {owners.dtype}")
    size = int(owners.max()) + 1 if videos is None else videos
    if owners.min() < 0 or owners.max() >= size:
        raise ValueError(f"an owner lies outside the {size} videos")
    order = np.argsort(owners, kind="stable")
    present, starts = np.unique(owners[order], return_index=True)
    best = np.full((len(scores), size), -np.inf)
    best[:, present] = np.maximum.reduceat(scores[:, order], starts, axis=1)
    return best


def _mean(hits: NDArray[np.float64], target: NDArray[np.int64], average: str) -> float:
    if average == "micro":
        return float(hits.mean())
    if average != "macro":
        raise ValueError(f"average is micro or macro, not {average!r}")
    _, video = np.unique(target, return_inverse=True)
    return float(np.mean(np.bincount(video, weights=hits) / np.bincount(video)))
