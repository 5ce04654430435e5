"""Text-to-video search over a text index: embed captions and queries, rank by cosine.

Paper section 5.1 and appendix B. A video without a caption stays in the index and cannot be
found; the empty string is never embedded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atom_repro.datatypes import Clip
from atom_repro.metrics.retrieval import RankResult, RetrievalScores, ranks, retrieval_scores
from atom_repro.models.text_embedder import TextEmbedder


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
