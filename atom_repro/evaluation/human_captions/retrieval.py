"""Retrieval metrics of indexes of human captions, under one protocol.

The values and samples of a record: numbers and ids, never a caption's text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import Clip
from atom_repro.evaluation.human_captions.captioner import HumanCaptioner, Study
from atom_repro.evaluation.human_captions.text_index import (
    NO_GROUP,
    CaptionSelector,
    Embed,
    Gallery,
    Pooling,
    Queries,
    at_random,
    index_texts,
    most_central,
    paragraph_queries,
    search_human_index,
)
from atom_repro.metrics.bootstrap import clustered_interval
from atom_repro.metrics.gallery import recall_by_size
from atom_repro.metrics.retrieval import RECALL_AT, RankResult

GALLERY_SIZES = (50, 100, 200, 500, 670, 1000, 1004, 1500, 2000, 2990)

# Appendix B: a clip's latent is 2048 x 1024 numbers, "up to 8MB" in fp32.
PAPER_LATENT_BYTES = 2048 * 1024 * 4


def retrieval_study(
    clips: Sequence[Clip], captioner: HumanCaptioner, embed: Embed, *, resamples: int, seed: int
) -> Study:
    """Evaluate every index of human captions on the clips' queries.

    Random rows (`one at random`) are averaged over their draws query by query. The interval is a
    bootstrap over videos; the spread over draws is recorded beside it.

    Args:
        clips: of a retrieval protocol, with references.
        captioner: settings of the indexes.
        embed: the text embedder.
        resamples: of the bootstrap.
        seed: seed of the bootstrap.
    """
    gallery = Gallery.of(clips, embed)
    paragraphs = any(q.kind == "paragraph" for c in clips for q in c.queries)
    results_by_row = (
        _paragraph_rows(gallery, captioner, embed)
        if paragraphs
        else _sentence_rows(clips, gallery, captioner, embed)
    )
    resample = {"resamples": resamples, "seed": seed}
    random = results_by_row["one at random"]
    values = {
        "videos": len(clips),
        "captions": len(gallery.texts),
        "queries": sum(len(c.queries) for c in clips),
        "draws": captioner.draws,
        "chance_r1": 100 / len(clips),
        "rows": {name: _row(results, resample) for name, results in results_by_row.items()},
        "curve": _curve(random, resample),
        "bytes": _index_bytes(gallery, captioner),
    }
    return Study(values, _samples(gallery, results_by_row))


def _sentence_rows(
    clips: Sequence[Clip], gallery: Gallery, captioner: HumanCaptioner, embed: Embed
) -> dict[str, list[RankResult]]:
    queries = Queries.of(clips, gallery, embed)
    results_by_row: dict[str, list[RankResult]] = {}
    for name, selector, pooling, own_selector in captioner.indexes(gallery):
        result = search_human_index(
            gallery, queries, selector, pooling, embed, own_selector=own_selector
        )
        results_by_row.setdefault(name.split("/")[0], []).append(result)
    return results_by_row | {
        "floor: next video's caption": [
            search_human_index(gallery, queries, next_video(gallery, captioner.seed), "mean", embed)
        ]
    }


def _paragraph_rows(
    gallery: Gallery, captioner: HumanCaptioner, embed: Embed
) -> dict[str, list[RankResult]]:
    """Indexes of one or two sentences; the query is the rest of the paragraph.

    The most central sentence is the one most similar to the rest, which is the query.
    """

    def search(
        selector: CaptionSelector, pooling: Pooling, own_selector: CaptionSelector | None = None
    ) -> RankResult:
        return search_human_index(
            gallery,
            paragraph_queries(gallery, own_selector or selector, embed),
            selector,
            pooling,
            embed,
        )

    drawn = [at_random(gallery, 1, captioner.seed + d) for d in range(captioner.draws)]
    random_results = [search(selector, "mean") for selector in drawn]
    return {
        "one at random": random_results,
        "most central, query known": [search(most_central(gallery), "mean")],
        "2 joined": [search(at_random(gallery, 2, captioner.seed), "joined")],
        f"best of {captioner.draws} draws, query known": [_best_draw(random_results)],
        "floor: next video's caption": [
            search(next_video(gallery, captioner.seed), "mean", drawn[0])
        ],
    }


def next_video(gallery: Gallery, seed: int) -> CaptionSelector:
    """Select a random caption of the next video: the floor."""
    random = at_random(gallery, 1, seed)
    return lambda video, excluded: random((video + 1) % len(gallery.rows), NO_GROUP)


def _best_draw(results: Sequence[RankResult]) -> RankResult:
    """Best draw of each query by the rank of its video; all draws have the same queries."""
    expected_rank = np.array([r.rank + r.ties / 2 for r in results])
    best_draw = expected_rank.argmin(axis=0)
    index = (best_draw, np.arange(expected_rank.shape[1]))
    first = results[0]
    return RankResult(
        np.array([r.rank for r in results])[index],
        np.array([r.ties for r in results])[index],
        first.missed,
        first.target,
        first.index_size,
    )


def _hits(results: Sequence[RankResult], k: int) -> NDArray[np.float64]:
    """(Q,) R@k of each query in per cent, averaged over draws."""
    return np.asarray(100 * np.mean([r.hits(k) for r in results], axis=0))


def _row(results: Sequence[RankResult], resample: Mapping[str, int]) -> dict[str, Any]:
    first = results[0]
    row: dict[str, Any] = {
        f"r{k}": clustered_interval(_hits(results, k), first.target, **resample).to_dict()
        for k in RECALL_AT
    }
    r1_by_draw = [float(_hits([r], 1).mean()) for r in results]
    return row | {
        "median_rank": float(np.mean([r.median_rank for r in results])),
        "mean_rank": float(np.mean([r.mean_rank for r in results])),
        "queries": first.queries,
        "missed_queries": int(first.missed.sum()),
        "tied_queries": first.tied_queries,
        "index_size": first.index_size,
        "r1_draws": [min(r1_by_draw), max(r1_by_draw)],
        # Mean over videos of the mean over their queries.
        "r1_macro": _macro_mean(_hits(results, 1), first.target),
    }


def _macro_mean(hits: NDArray[np.float64], target: NDArray[np.int64]) -> float:
    _, video = np.unique(target, return_inverse=True)
    return float(np.mean(np.bincount(video, weights=hits) / np.bincount(video)))


def _curve(results: Sequence[RankResult], resample: Mapping[str, int]) -> dict[str, Any]:
    """Recall by gallery size, for the index of one random caption per video."""
    whole = results[0].index_size
    sizes = sorted({s for s in GALLERY_SIZES if s < whole} | {whole})
    curve: dict[str, Any] = {str(size): {} for size in sizes}
    for k in RECALL_AT:
        by_draw = [recall_by_size(r, sizes, k=k) for r in results]
        for size in sizes:
            hits = np.mean([each[size] for each in by_draw], axis=0)
            interval = clustered_interval(hits, results[0].target, **resample)
            curve[str(size)][f"r{k}"] = interval.to_dict()
    return curve


def _index_bytes(gallery: Gallery, captioner: HumanCaptioner) -> dict[str, Any]:
    """Size of a video's index entry (appendix B): bytes of UTF-8 text and of the embedding."""
    sizes: dict[str, Any] = {}
    for name, count in (
        ("one caption", 1),
        (f"{captioner.several} captions joined", captioner.several),
    ):
        texts = index_texts(gallery, at_random(gallery, count, captioner.seed), "joined")
        lengths = [len(t.encode()) for t in texts]
        sizes[name] = {
            "mean_bytes": float(np.mean(lengths)),
            "p95_bytes": float(np.quantile(lengths, 0.95)),
            "total_bytes": sum(lengths),
        }
    width = gallery.vectors.shape[1]
    return {
        "text": sizes,
        "embedding_fp32_bytes": 4 * width,
        "paper_latent_bytes": PAPER_LATENT_BYTES,
    }


def _samples(
    gallery: Gallery, results_by_row: Mapping[str, Sequence[RankResult]]
) -> list[dict[str, Any]]:
    """One sample per video: its R@1 in each row, averaged over its queries and the draws."""
    lines: list[dict[str, Any]] = [{"video_id": v, "r1": {}} for v in gallery.video_ids]
    for name, results in results_by_row.items():
        target = results[0].target
        total = np.bincount(target, weights=_hits(results, 1), minlength=len(lines))
        count = np.bincount(target, minlength=len(lines))
        for v in np.flatnonzero(count):
            lines[v]["r1"][name] = round(float(total[v] / count[v]), 3)
            lines[v]["queries"] = int(count[v])
    return lines
