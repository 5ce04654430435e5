"""Text-to-video search over a text index: embed captions and queries, rank by cosine.

Paper section 5.1 and appendix B. A video without a caption stays in the index and cannot be
found; the empty string is never embedded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atom_repro.datatypes import Clip
from atom_repro.evaluation.caption_scores import groups_of
from atom_repro.metrics.bootstrap import paired_difference
from atom_repro.metrics.retrieval import RankResult, RetrievalScores, ranks, retrieval_scores
from atom_repro.models.text_embedder import TextEmbedder
from atom_repro.records.record import Record

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Search:
    """What a set of queries found: ranks a query, and the scores of a table."""

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


def search(embedder: TextEmbedder, captions: Mapping[str, str], clips: Sequence[Clip]) -> Search:
    """Rank the gallery of `clips`, indexed by `captions`, for each clip's queries."""
    missing = np.array([not captions[c.video_id].strip() for c in clips])
    present = [captions[c.video_id] for c, absent in zip(clips, missing, strict=True) if not absent]
    queries = [(q, i) for i, clip in enumerate(clips) for q in clip.queries]
    wanted = embedder([q.text for q, _ in queries]).numpy()
    index = np.zeros((len(clips), wanted.shape[1]), np.float32)
    index[~missing] = embedder(present).numpy()
    found = ranks(wanted @ index.T, np.array([i for _, i in queries]), missing=missing)
    scores = retrieval_scores(found, distinct_texts=len(set(present)))
    return Search(tuple(q.query_id for q, _ in queries), found, scores)


def recalls_by_group(found: Search, clips: Sequence[Clip]) -> dict[str, dict[str, float]]:
    """R@k in per cent of the queries of each part of the test set, in the same gallery."""
    groups = [group for clip, group in zip(clips, groups_of(clips), strict=True)
              for _ in clip.queries]  # fmt: skip
    recalls = {}
    for group in sorted(set(groups) - {"all"}):
        member = [g == group for g in groups]
        recalls[group] = {
            f"r{k}": 100 * float(found.ranks.hits(k)[member].mean()) for k in RECALL_AT
        }
    return recalls


def samples(found: Search) -> list[dict[str, Any]]:
    """A line a query: its video's rank (0 is first), ties, and R@k in per cent."""
    hits = {k: found.ranks.hits(k) for k in RECALL_AT}
    return [
        {
            "query_id": query_id,
            "rank": int(rank),
            "ties": int(ties),
            **{f"r{k}": float(100 * h[i]) for k, h in hits.items()},
        }
        for i, (query_id, rank, ties) in enumerate(
            zip(found.query_ids, found.ranks.rank, found.ranks.ties, strict=True)
        )
    ]


def minus_fp32(
    lines: Sequence[Mapping[str, Any]], fp32: Record, *, draws: int, seed: int
) -> dict[str, Any]:
    """R@k minus that of the fp32 record, query by query, with 95 % intervals.

    Args:
        lines: the `samples` of this run.
    """
    before = {line["query_id"]: line for line in fp32.samples()}
    differences: dict[str, Any] = {"record": fp32.run_id}
    for k in RECALL_AT:
        interval = paired_difference(
            [line[f"r{k}"] for line in lines],
            [before[line["query_id"]][f"r{k}"] for line in lines],
            draws=draws,
            seed=seed,
        )
        differences[f"r{k}"] = interval.to_dict()
    return differences
