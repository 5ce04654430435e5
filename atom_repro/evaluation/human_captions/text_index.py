"""Retrieval index of human captions, and its search.

A query's text is never in the index entry of its own video, nor is a duplicate of it (equal up to
case, punctuation and spaces). So the entry of a query's own video is selected anew for each query,
without that sentence; the entries of the other videos are the same for all queries.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError, Clip
from atom_repro.metrics.retrieval import RankResult, ranks
from atom_repro.models.text_embedder import TextEmbedder

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]  # texts to (B, D) unit vectors
# Maps (video, excluded group of texts) to the gallery rows that index the video; best first, and
# empty where no caption remains.
CaptionSelector = Callable[[int, int], tuple[int, ...]]
Pooling = Literal["mean", "max", "joined"]

NO_GROUP = -1  # no group is excluded
_QUERIES_PER_BLOCK = 2048
_MAX_BLOCK_ELEMENTS = 8_000_000  # bounds the memory of a block of similarities
_TEXTS_PER_BLOCK = 4096
_SEPARATOR = ". "


def normalised_text(text: str) -> str:
    """Normalise a sentence for comparison: its letters, digits and marks, case-folded.

    Spaces are dropped, as one release of a caption has "wrestler's" and the other "wrestler s".
    """
    return "".join(c for c in text.casefold() if unicodedata.category(c)[0] in "LNM") or text


class CachedEmbedder:
    """Text embedder with a cache of all texts, as the galleries of a data set overlap."""

    def __init__(self, embedder: TextEmbedder, progress: Callable[[int], object] | None = None):
        self._embedder = embedder
        self._progress = progress
        self._row: dict[str, int] = {}
        self._vectors: list[Vectors] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """(B, D) unit vectors; `progress` is called with the number of texts newly embedded."""
        new = [t for t in dict.fromkeys(texts) if t not in self._row]
        for first in range(0, len(new), _TEXTS_PER_BLOCK):
            block = new[first : first + _TEXTS_PER_BLOCK]
            vectors = self._embedder(block).numpy()
            for text, vector in zip(block, vectors, strict=True):
                self._row[text] = len(self._vectors)
                self._vectors.append(vector)
            if self._progress is not None:
                self._progress(len(block))
        if not texts:
            return np.empty((0, self._embedder.dimensions), np.float32)
        return np.stack([self._vectors[self._row[t]] for t in texts])


@dataclass(frozen=True)
class Gallery:
    """All captions of N videos: T texts and their embeddings, one row each.

    `rows[v]` are the rows of video v; `group` (T,) is equal for duplicate captions of a video;
    `vectors` (T, D) are unit vectors.
    """

    video_ids: tuple[str, ...]
    texts: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]
    group: NDArray[np.int64]
    vectors: Vectors

    @classmethod
    def of(cls, clips: Sequence[Clip], embed: Embed) -> "Gallery":
        """Build the gallery of the references of clips.

        Raises:
            AtomError: a clip without references.
        """
        texts: list[str] = []
        rows = []
        groups: dict[tuple[int, str], int] = {}
        group = []
        for v, clip in enumerate(clips):
            if not clip.references:
                raise AtomError(f"{clip.dataset}/{clip.video_id} has no caption to index it by")
            rows.append(np.arange(len(texts), len(texts) + len(clip.references)))
            texts += clip.references
            group += [
                groups.setdefault((v, normalised_text(t)), len(groups)) for t in clip.references
            ]
        return cls(
            tuple(c.video_id for c in clips),
            tuple(texts),
            tuple(rows),
            np.array(group),
            embed(texts),
        )

    @cached_property
    def group_of(self) -> dict[tuple[int, str], int]:
        """Group by (video, normalised text)."""
        return {
            (v, normalised_text(self.texts[r])): int(self.group[r])
            for v, rows in enumerate(self.rows)
            for r in rows
        }


@dataclass(frozen=True)
class Queries:
    """Q queries: id, own video, group of captions excluded there (or `NO_GROUP`), unit vector."""

    ids: tuple[str, ...]
    video: NDArray[np.int64]
    group: NDArray[np.int64]
    vectors: Vectors

    @classmethod
    def of(cls, clips: Sequence[Clip], gallery: Gallery, embed: Embed) -> "Queries":
        """Build the queries of clips."""
        pairs = [(v, q) for v, clip in enumerate(clips) for q in clip.queries]
        return cls(
            tuple(q.query_id for _, q in pairs),
            np.array([v for v, _ in pairs]),
            np.array(
                [gallery.group_of.get((v, normalised_text(q.text)), NO_GROUP) for v, q in pairs]
            ),
            embed([q.text for _, q in pairs]),
        )


def with_one_caption(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """Reduce each clip to one random caption that is none of its queries.

    To compare embedders on one index with one query per video: only the texts in use are embedded.

    Raises:
        AtomError: a clip whose captions are all among its queries.
    """
    reduced = []
    for v, clip in enumerate(clips):
        query_texts = {normalised_text(q.text) for q in clip.queries}
        remaining = [t for t in clip.references if normalised_text(t) not in query_texts]
        if not remaining:
            raise AtomError(f"{clip.dataset}/{clip.video_id} has no caption besides its query's")
        chosen = np.random.default_rng((seed, v)).permutation(len(remaining))[0]
        reduced.append(replace(clip, references=(remaining[chosen],)))
    return reduced


def paragraph_queries(gallery: Gallery, selector: CaptionSelector, embed: Embed) -> Queries:
    """A video's sentences joined to one query, without those of its index entry.

    For data whose only texts are the sentences of the query (DiDeMo): with all sentences in the
    query it would contain its own index entry. A video without a remaining sentence has no query,
    but stays in the gallery.
    """
    ids, videos, texts = [], [], []
    for v, rows in enumerate(gallery.rows):
        indexed = set(gallery.group[list(selector(v, NO_GROUP))].tolist())
        remaining = [gallery.texts[r] for r in rows if gallery.group[r] not in indexed]
        if remaining:
            ids.append(gallery.video_ids[v])
            videos.append(v)
            texts.append(" ".join(remaining))
    no_groups = np.full(len(ids), NO_GROUP)
    return Queries(tuple(ids), np.array(videos), no_groups, embed(texts))


# --- Selection of the captions that index a video ---------------------------------------------


def at_random(gallery: Gallery, count: int, seed: int) -> CaptionSelector:
    """Select the first `count` allowed captions in a random order fixed per video."""
    orders = [
        np.random.default_rng((seed, v)).permutation(rows) for v, rows in enumerate(gallery.rows)
    ]

    def choose(video: int, excluded: int) -> tuple[int, ...]:
        order = orders[video]
        return tuple(order[gallery.group[order] != excluded][:count].tolist())

    return choose


def all_captions(gallery: Gallery) -> CaptionSelector:
    """Select all allowed captions."""

    def choose(video: int, excluded: int) -> tuple[int, ...]:
        rows = gallery.rows[video]
        return tuple(rows[gallery.group[rows] != excluded].tolist())

    return choose


def most_central(gallery: Gallery) -> CaptionSelector:
    """Select the caption with the highest mean cosine to the video's other allowed captions."""
    cosines = [gallery.vectors[rows] @ gallery.vectors[rows].T for rows in gallery.rows]

    def choose(video: int, excluded: int) -> tuple[int, ...]:
        rows = gallery.rows[video]
        allowed = gallery.group[rows] != excluded
        if not allowed.any():
            return ()
        centrality = cosines[video][np.ix_(allowed, allowed)].sum(axis=1)
        return (int(rows[allowed][int(np.argmax(centrality))]),)

    return choose


def search_human_index(
    gallery: Gallery,
    queries: Queries,
    selector: CaptionSelector,
    pooling: Pooling,
    embed: Embed,
    *,
    own_selector: CaptionSelector | None = None,
) -> RankResult:
    """Rank every video for every query, each video indexed by its selected captions.

    Args:
        gallery: N videos.
        queries: Q queries.
        selector: selects the captions that index a video.
        pooling: of several captions: mean vector (`mean`), one joined text (`joined`), or the
            maximum similarity (`max`). The three are equal for a single caption.
        embed: embeds joined texts.
        own_selector: another selector for the query's own video; with all captions and `max`, the
            best caption of N with the query known.

    Returns:
        Ranks among N. A query whose video has no allowed caption is missed.
    """
    selected = [selector(v, NO_GROUP) for v in range(len(gallery.rows))]
    own_rows = [
        (own_selector or selector)(int(v), int(g))
        for v, g in zip(queries.video, queries.group, strict=True)
    ]
    missed = np.array([not rows for rows in own_rows])
    vectors, starts = _index(gallery, selected, pooling, embed)
    queries_per_block = max(1, _MAX_BLOCK_ELEMENTS // len(vectors))
    scores = _own_scores(gallery, queries, own_rows, pooling, embed)
    parts = []
    for first in range(0, len(own_rows), queries_per_block):
        block = slice(first, first + queries_per_block)
        similarity = queries.vectors[block] @ vectors.T
        if len(starts) < similarity.shape[1]:
            similarity = np.maximum.reduceat(similarity, starts, axis=1)
        similarity[np.arange(len(similarity)), queries.video[block]] = scores[block]
        parts.append(ranks(similarity, queries.video[block]))
    rank = np.concatenate([p.rank for p in parts])
    ties = np.concatenate([p.ties for p in parts])
    rank[missed], ties[missed] = len(selected), 0
    return RankResult(rank, ties, missed, queries.video, len(selected))


def index_texts(gallery: Gallery, selector: CaptionSelector, pooling: Pooling) -> list[str]:
    """Texts of the index: one per video, or several with `max` pooling."""
    chosen = [selector(v, NO_GROUP) for v in range(len(gallery.rows))]
    if pooling == "joined":
        return [_joined_text(gallery, rows) for rows in chosen]
    return [gallery.texts[r] for rows in chosen for r in rows]


def _index(
    gallery: Gallery, chosen: Sequence[tuple[int, ...]], pooling: Pooling, embed: Embed
) -> tuple[Vectors, NDArray[np.int64]]:
    """Vectors of the index, and the first row of each video."""
    if pooling == "max":
        starts = np.cumsum([0, *(len(rows) for rows in chosen[:-1])])
        return gallery.vectors[[r for rows in chosen for r in rows]], starts
    return _pooled_vectors(gallery, chosen, pooling, embed), np.arange(len(chosen))


def _own_scores(
    gallery: Gallery,
    queries: Queries,
    own_rows: Sequence[tuple[int, ...]],
    pooling: Pooling,
    embed: Embed,
) -> NDArray[np.float32]:
    """(Q,) similarity of each query to its own video; -2, below every cosine, without captions."""
    scores = np.full(len(own_rows), -2.0, np.float32)
    if pooling == "max":
        for q, rows in enumerate(own_rows):
            if rows:
                scores[q] = (gallery.vectors[list(rows)] @ queries.vectors[q]).max()
        return scores
    distinct = {rows: i for i, rows in enumerate(dict.fromkeys(rows for rows in own_rows if rows))}
    vectors = _pooled_vectors(gallery, list(distinct), pooling, embed)
    answerable = np.array([q for q, rows in enumerate(own_rows) if rows], dtype=np.int64)
    vector_index = np.array([distinct[own_rows[q]] for q in answerable], dtype=np.int64)
    for first in range(0, len(answerable), _QUERIES_PER_BLOCK):
        block = slice(first, first + _QUERIES_PER_BLOCK)
        pair = queries.vectors[answerable[block]] * vectors[vector_index[block]]
        scores[answerable[block]] = pair.sum(axis=1)
    return scores


def _pooled_vectors(
    gallery: Gallery, chosen: Sequence[tuple[int, ...]], pooling: Pooling, embed: Embed
) -> Vectors:
    if pooling == "joined":
        return embed([_joined_text(gallery, rows) for rows in chosen])
    width = gallery.vectors.shape[1]
    means = np.empty((len(chosen), width), np.float32)
    for i, rows in enumerate(chosen):
        means[i] = gallery.vectors[list(rows)].mean(axis=0)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _joined_text(gallery: Gallery, rows: Sequence[int]) -> str:
    return _SEPARATOR.join(gallery.texts[r] for r in rows)
