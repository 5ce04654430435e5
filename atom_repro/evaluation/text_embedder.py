"""Comparison of text embedder quantisation on STS-B and retrieval (paper F.3, Table 7)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atom_repro.data.stsb import Pair
from atom_repro.datatypes import Clip
from atom_repro.evaluation.human_captions.text_index import (
    CachedEmbedder,
    Gallery,
    Queries,
    all_captions,
    search_human_index,
    with_one_caption,
)
from atom_repro.metrics.bootstrap import clustered_interval
from atom_repro.metrics.correlation import bootstrap_pearson, pearson, spearman
from atom_repro.metrics.retrieval import RECALL_AT
from atom_repro.models.text_embedder import TextEmbedder, saved_bytes


class RecipeComparison:
    """Scores of each quantisation recipe, and differences to the one named `fp32`.

    Args:
        pairs: sentence pairs with human similarity scores.
        clips: a gallery with queries, each video indexed by one human caption; empty to leave
            retrieval out.
        galleries: number of random galleries to average over.
        gallery_seed: seed of the galleries.
        resamples: of the bootstrap over pairs and over videos.
        seed: seed of the bootstrap.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        clips: Sequence[Clip],
        *,
        galleries: int,
        gallery_seed: int,
        resamples: int,
        seed: int,
    ) -> None:
        self._texts = [p.first for p in pairs] + [p.second for p in pairs]
        self._human_scores = np.array([p.score for p in pairs])
        self._clips = clips
        drawn = [with_one_caption(clips, gallery_seed + d) for d in range(galleries)]
        self._galleries = drawn if clips else []
        self._resample: dict[str, Any] = {"resamples": resamples, "seed": seed}
        self.rows: dict[str, dict[str, Any]] = {}
        self._cosines: dict[str, NDArray[Any]] = {}
        self._resampled: dict[str, NDArray[Any]] = {}
        self._hits: dict[tuple[str, int], NDArray[Any]] = {}

    def add(self, name: str, precision: str, embedder: TextEmbedder) -> None:
        """Score an embedder and add its row to `rows`."""
        vectors = np.asarray(embedder(self._texts).numpy())
        count = len(self._human_scores)
        cosines = (vectors[:count] * vectors[count:]).sum(axis=1)
        resampled = bootstrap_pearson(cosines, self._human_scores, **self._resample)
        low, high = np.quantile(resampled, (0.025, 0.975))
        row: dict[str, Any] = {
            "precision": precision,
            "pearson": pearson(cosines, self._human_scores),
            "pearson_low": float(low),
            "pearson_high": float(high),
            "spearman": spearman(cosines, self._human_scores),
            "weights_bytes": embedder.parameter_bytes(),
            "saved_bytes": saved_bytes(embedder.module),
        }
        if "fp32" in self._resampled:
            low, high = np.quantile(resampled - self._resampled["fp32"], (0.025, 0.975))
            row["pearson_minus_fp32"] = {
                "mean": row["pearson"] - self.rows["fp32"]["pearson"],
                "low": float(low),
                "high": float(high),
            }
        self._cosines[name], self._resampled[name] = cosines, resampled
        self.rows[name] = row | self._retrieval(name, embedder)

    def _retrieval(self, name: str, embedder: TextEmbedder) -> dict[str, Any]:
        """R@k in per cent, averaged over the random galleries."""
        embed = CachedEmbedder(embedder)
        results = []
        for clips in self._galleries:
            gallery = Gallery.of(clips, embed)
            queries = Queries.of(self._clips, gallery, embed)
            results.append(
                search_human_index(gallery, queries, all_captions(gallery), "mean", embed)
            )
        row: dict[str, Any] = {}
        for k in RECALL_AT if results else ():
            hits = np.mean([100 * result.hits(k) for result in results], axis=0)
            row[f"r{k}"] = clustered_interval(hits, results[0].target, **self._resample).to_dict()
            if ("fp32", k) in self._hits:
                difference = hits - self._hits["fp32", k]
                interval = clustered_interval(difference, results[0].target, **self._resample)
                row[f"r{k}_minus_fp32"] = interval.to_dict()
            self._hits[name, k] = hits
        return row

    def samples(self) -> list[Mapping[str, Any]]:
        """One sample per pair: human score and each recipe's cosine. Numbers only, as the sentences
        may not be redistributed."""
        return [
            {
                "pair": i,
                "score": score,
                "cosine": {n: round(float(c[i]), 6) for n, c in self._cosines.items()},
            }
            for i, score in enumerate(self._human_scores)
        ]
