"""Text-to-video retrieval over a caption index: embed captions and queries, rank by cosine.

Paper section 5.1 and appendix B. A video without a caption stays in the gallery and cannot be
retrieved; the empty string is never embedded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atom_repro.datatypes import AtomError, Clip
from atom_repro.evaluation.caption_scores import groups_of, require_references
from atom_repro.metrics.bootstrap import paired_difference
from atom_repro.metrics.retrieval import (
    RECALL_AT,
    RankResult,
    RetrievalScores,
    ranks,
    retrieval_scores,
)
from atom_repro.models.text_embedder import TextEmbedder
from atom_repro.records.record import Record


@dataclass(frozen=True)
class SearchResult:
    """Retrieval result of a set of queries: the rank of each query's video, and overall scores."""

    query_ids: tuple[str, ...]
    ranks: RankResult
    scores: RetrievalScores

    def to_dict(self) -> dict[str, Any]:
        """Values of a record; recalls in per cent."""
        s = self.scores
        values: dict[str, Any] = {
            "median_rank": s.median_rank,
            "mean_rank": s.mean_rank,
            "queries": s.queries,
            "index_size": s.index_size,
            "distinct_texts": s.distinct_texts,
            "tied_queries": s.tied_queries,
            "missed_queries": s.missed_queries,
        }
        for k, recall in s.micro.items():
            values[f"r{k}"] = recall.expected
            if recall.bounds:
                values[f"r{k}_pessimistic"], values[f"r{k}_optimistic"] = recall.bounds
        return values


def require_gallery(clips: Sequence[Clip]) -> None:
    """Check, before any clip is captioned, that clips can be searched among and compared.

    Raises:
        AtomError: fewer than two, no query, or one without a reference, of which the ceiling of
            true captions is made.
    """
    if len(clips) < 2:
        raise AtomError(
            f"retrieval needs at least two clips to choose from, there are {len(clips)}"
        )
    if not any(clip.queries for clip in clips):
        raise AtomError('no clip has a query; give some of them "queries": ["…"]')
    require_references(clips)


def search(
    embedder: TextEmbedder, captions: Mapping[str, str], clips: Sequence[Clip]
) -> SearchResult:
    """Rank the gallery of `clips`, indexed by `captions`, for each clip's queries."""
    missing = np.array([not captions[c.video_id].strip() for c in clips])
    present = [captions[c.video_id] for c, absent in zip(clips, missing, strict=True) if not absent]
    queries = [(q, i) for i, clip in enumerate(clips) for q in clip.queries]
    query_vectors = embedder([q.text for q, _ in queries]).numpy()
    index = np.zeros((len(clips), query_vectors.shape[1]), np.float32)
    index[~missing] = embedder(present).numpy()
    ranked = ranks(query_vectors @ index.T, np.array([i for _, i in queries]), missing=missing)
    scores = retrieval_scores(ranked, distinct_texts=len(set(present)))
    return SearchResult(tuple(q.query_id for q, _ in queries), ranked, scores)


def recalls_by_group(result: SearchResult, clips: Sequence[Clip]) -> dict[str, dict[str, float]]:
    """R@k in per cent by group of queries, each against the whole gallery."""
    groups = [group for clip, group in zip(clips, groups_of(clips), strict=True)
              for _ in clip.queries]  # fmt: skip
    recalls = {}
    for group in sorted(set(groups) - {"all"}):
        in_group = [g == group for g in groups]
        recalls[group] = {
            f"r{k}": 100 * float(result.ranks.hits(k)[in_group].mean()) for k in RECALL_AT
        }
    return recalls


def samples(result: SearchResult) -> list[dict[str, Any]]:
    """One sample per query: its video's rank (0 is first), ties, and R@k in per cent."""
    hits = {k: result.ranks.hits(k) for k in RECALL_AT}
    return [
        {
            "query_id": query_id,
            "rank": int(rank),
            "ties": int(ties),
            **{f"r{k}": float(100 * h[i]) for k, h in hits.items()},
        }
        for i, (query_id, rank, ties) in enumerate(
            zip(result.query_ids, result.ranks.rank, result.ranks.ties, strict=True)
        )
    ]


def minus_fp32(
    lines: Sequence[Mapping[str, Any]], fp32: Record, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Paired difference of R@k to the fp32 record, with 95 % intervals.

    Args:
        lines: the `samples` of this run.
    """
    fp32_samples = {line["query_id"]: line for line in fp32.samples()}
    differences: dict[str, Any] = {"record": fp32.run_id}
    for k in RECALL_AT:
        interval = paired_difference(
            [line[f"r{k}"] for line in lines],
            [fp32_samples[line["query_id"]][f"r{k}"] for line in lines],
            resamples=resamples,
            seed=seed,
        )
        differences[f"r{k}"] = interval.to_dict()
    return differences
