"""Quantisation recipes of the text embedder on STS-B and retrieval (paper F.3, Table 7)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atom_repro.data.stsb import Pair
from atom_repro.datatypes import Clip
from atom_repro.evaluation.human_captions.text_index import (
    CachedEmbedder,
    Gallery,
    Questions,
    everything,
    search_people,
    without_queries,
)
from atom_repro.metrics.bootstrap import clustered_interval
from atom_repro.metrics.correlation import bootstrap_pearson, pearson, spearman
from atom_repro.models.text_embedder import TextEmbedder, saved_bytes


class RecipeComparison:
    """Scores of each recipe, and what it loses against the one that is named `fp32`.

    Args:
        pairs: sentence pairs with people's scores.
        clips: a gallery with queries, each video indexed by one human caption; empty for none.
        galleries: how many such captions are drawn, and averaged over.
        gallery_seed: of these draws.
        draws: of the bootstrap over pairs and over videos.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        clips: Sequence[Clip],
        *,
        galleries: int,
        gallery_seed: int,
        draws: int,
        seed: int,
    ) -> None:
        self._texts = [p.first for p in pairs] + [p.second for p in pairs]
        self._truth = np.array([p.score for p in pairs])
        self._clips = clips
        drawn = [without_queries(clips, gallery_seed + d) for d in range(galleries)]
        self._galleries = drawn if clips else []
        self._resample: dict[str, Any] = {"draws": draws, "seed": seed}
        self.rows: dict[str, dict[str, Any]] = {}
        self._cosines: dict[str, NDArray[Any]] = {}
        self._resampled: dict[str, NDArray[Any]] = {}
        self._hits: dict[tuple[str, int], NDArray[Any]] = {}

    def add(self, name: str, precision: str, embedder: TextEmbedder) -> None:
        """Score an embedder; its figures are in `rows` then."""
        vectors = np.asarray(embedder(self._texts).numpy())
        count = len(self._truth)
        cosines = (vectors[:count] * vectors[count:]).sum(axis=1)
        resampled = bootstrap_pearson(cosines, self._truth, **self._resample)
        low, high = np.quantile(resampled, (0.025, 0.975))
        row: dict[str, Any] = {
            "precision": precision,
            "pearson": pearson(cosines, self._truth),
            "pearson_low": float(low),
            "pearson_high": float(high),
            "spearman": spearman(cosines, self._truth),
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
        """R@k in per cent, means over every drawn index."""
        embed = CachedEmbedder(embedder)
        found = []
        for drawn in self._galleries:
            gallery = Gallery.of(drawn, embed)
            asked = Questions.of(self._clips, gallery, embed)
            found.append(search_people(gallery, asked, everything(gallery), "mean", embed))
        row: dict[str, Any] = {}
        for k in (1, 5, 10) if found else ():
            hits = np.mean([100 * f.hits(k) for f in found], axis=0)
            row[f"r{k}"] = clustered_interval(hits, found[0].target, **self._resample).to_dict()
            if ("fp32", k) in self._hits:
                lost = hits - self._hits["fp32", k]
                sure = clustered_interval(lost, found[0].target, **self._resample)
                row[f"r{k}_minus_fp32"] = sure.to_dict()
            self._hits[name, k] = hits
        return row

    def samples(self) -> list[Mapping[str, Any]]:
        """A line a pair: people's score and each recipe's cosine. Numbers only, as the sentences
        are not ours to pass on."""
        return [
            {
                "pair": i,
                "score": score,
                "cosine": {n: round(float(c[i]), 6) for n, c in self._cosines.items()},
            }
            for i, score in enumerate(self._truth)
        ]
