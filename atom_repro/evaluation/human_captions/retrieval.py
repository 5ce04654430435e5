"""The human oracle for retrieval: every index of human captions, under one protocol.

Makes the values and samples of a record: numbers and ids, never a caption's text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import Clip
from atom_repro.evaluation.human_captions.captioner import HumanCaptioner, Study
from atom_repro.evaluation.human_captions.text_index import (
    NOTHING,
    Choice,
    Embed,
    Gallery,
    How,
    Questions,
    at_random,
    index_texts,
    most_central,
    paragraph_questions,
    search_people,
)
from atom_repro.metrics.bootstrap import clustered_interval
from atom_repro.metrics.gallery import recall_by_size
from atom_repro.metrics.retrieval import RankResult

KS = (1, 5, 10)
SIZES = (50, 100, 200, 500, 670, 1000, 1004, 1500, 2000, 2990)

# Appendix B: a clip's latent is 2048 x 1024 numbers, "up to 8MB" in fp32.
PAPER_LATENT_BYTES = 2048 * 1024 * 4


def retrieval_study(
    clips: Sequence[Clip], people: HumanCaptioner, embed: Embed, *, draws: int, seed: int
) -> Study:
    """Try every index of human captions on the clips' queries.

    Rows that are drawn (`one at random`) are averaged over their draws query by query; the
    interval is a bootstrap over videos, which the spread over draws stands beside.

    Args:
        clips: of a retrieval protocol, with references.
        people: how captions become an index.
        embed: the text embedder.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """
    gallery = Gallery.of(clips, embed)
    paragraphs = any(q.kind == "paragraph" for c in clips for q in c.queries)
    found = (
        _paragraph_rows(gallery, people, embed)
        if paragraphs
        else _sentence_rows(clips, gallery, people, embed)
    )
    resample = {"draws": draws, "seed": seed}
    random = found["one at random"]
    values = {
        "videos": len(clips),
        "captions": len(gallery.texts),
        "queries": sum(len(c.queries) for c in clips),
        "draws": people.draws,
        "chance_r1": 100 / len(clips),
        "rows": {name: _row(results, resample) for name, results in found.items()},
        "curve": _curve(random, resample),
        "bytes": _bytes(gallery, people),
    }
    return Study(values, _samples(gallery, found), "r1")


def _sentence_rows(
    clips: Sequence[Clip], gallery: Gallery, people: HumanCaptioner, embed: Embed
) -> dict[str, list[RankResult]]:
    questions = Questions.of(clips, gallery, embed)
    found: dict[str, list[RankResult]] = {}
    for name, choice, how, own in people.indexes(gallery):
        result = search_people(gallery, questions, choice, how, embed, own=own)
        found.setdefault(name.split("/")[0], []).append(result)
    return found | {
        "floor: next video's caption": [
            search_people(gallery, questions, next_video(gallery, people.seed), "mean", embed)
        ]
    }


def _paragraph_rows(
    gallery: Gallery, people: HumanCaptioner, embed: Embed
) -> dict[str, list[RankResult]]:
    """Indexes of one or two sentences; the query is the rest of the paragraph.

    The most central sentence is the one most like the rest, so it is chosen by the query.
    """

    def ask(choice: Choice, how: How, own: Choice | None = None) -> RankResult:
        return search_people(
            gallery, paragraph_questions(gallery, own or choice, embed), choice, how, embed
        )

    drawn = [at_random(gallery, 1, people.seed + d) for d in range(people.draws)]
    one = [ask(choice, "mean") for choice in drawn]
    return {
        "one at random": one,
        "most central, query known": [ask(most_central(gallery), "mean")],
        "2 joined": [ask(at_random(gallery, 2, people.seed), "joined")],
        f"best of {people.draws} draws, query known": [_best(one)],
        "floor: next video's caption": [ask(next_video(gallery, people.seed), "mean", drawn[0])],
    }


def next_video(gallery: Gallery, seed: int) -> Choice:
    """A random caption of the video that follows: the floor."""
    random = at_random(gallery, 1, seed)
    return lambda video, excluded: random((video + 1) % len(gallery.rows), NOTHING)


def _best(results: Sequence[RankResult]) -> RankResult:
    """For each query the draw that ranked its video best; all draws asked for the same videos."""
    place = np.array([r.rank + r.ties / 2 for r in results])
    chosen = place.argmin(axis=0)
    at = (chosen, np.arange(place.shape[1]))
    first = results[0]
    return RankResult(
        np.array([r.rank for r in results])[at],
        np.array([r.ties for r in results])[at],
        first.missed,
        first.target,
        first.index_size,
    )


def _hits(results: Sequence[RankResult], k: int) -> NDArray[np.float64]:
    """(Q,) per cent, averaged over draws."""
    return np.asarray(100 * np.mean([r.hits(k) for r in results], axis=0))


def _row(results: Sequence[RankResult], resample: Mapping[str, int]) -> dict[str, Any]:
    first = results[0]
    row: dict[str, Any] = {
        f"r{k}": clustered_interval(_hits(results, k), first.target, **resample).to_dict()
        for k in KS
    }
    each = [float(_hits([r], 1).mean()) for r in results]
    return row | {
        "median_rank": float(np.mean([r.median_rank for r in results])),
        "mean_rank": float(np.mean([r.mean_rank for r in results])),
        "queries": first.queries,
        "missed_queries": int(first.missed.sum()),
        "tied_queries": first.tied_queries,
        "index_size": first.index_size,
        "r1_draws": [min(each), max(each)],
        # A video with many queries weighs no more than another.
        "r1_macro": _macro(_hits(results, 1), first.target),
    }


def _macro(hits: NDArray[np.float64], target: NDArray[np.int64]) -> float:
    _, member = np.unique(target, return_inverse=True)
    return float(np.mean(np.bincount(member, weights=hits) / np.bincount(member)))


def _curve(results: Sequence[RankResult], resample: Mapping[str, int]) -> dict[str, Any]:
    """Recall by gallery size, for the index of one caption at random."""
    whole = results[0].index_size
    sizes = sorted({s for s in SIZES if s < whole} | {whole})
    curve: dict[str, Any] = {str(size): {} for size in sizes}
    for k in KS:
        by_draw = [recall_by_size(r, sizes, k=k) for r in results]
        for size in sizes:
            hits = np.mean([each[size] for each in by_draw], axis=0)
            interval = clustered_interval(hits, results[0].target, **resample)
            curve[str(size)][f"r{k}"] = interval.to_dict()
    return curve


def _bytes(gallery: Gallery, people: HumanCaptioner) -> dict[str, Any]:
    """Appendix B, its text half: what a video's entry takes in UTF-8 and as a vector."""
    sizes: dict[str, Any] = {}
    for name, count in (("one caption", 1), (f"{people.several} captions joined", people.several)):
        texts = index_texts(gallery, at_random(gallery, count, people.seed), "joined")
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


def _samples(gallery: Gallery, found: Mapping[str, Sequence[RankResult]]) -> list[dict[str, Any]]:
    """For each video its recall at 1, averaged over its queries and the draws, a row each."""
    lines: list[dict[str, Any]] = [{"video_id": v, "r1": {}} for v in gallery.video_ids]
    for name, results in found.items():
        target = results[0].target
        total = np.bincount(target, weights=_hits(results, 1), minlength=len(lines))
        count = np.bincount(target, minlength=len(lines))
        for v in np.flatnonzero(count):
            lines[v]["r1"][name] = round(float(total[v] / count[v]), 3)
            lines[v]["queries"] = int(count[v])
    return lines
