"""A text index of human captions, and the search of it: each video by what people wrote of it.

Whatever a query says never stands in the index of its own video, nor does a copy of it (equal
but for case, punctuation and spaces). So the own video's entry is chosen anew for each query,
without that sentence, and the other videos' entries are the same for all.
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
# Rows of a gallery that stand for a video, given the group of texts that may not be among them;
# best first, and empty where nothing is left.
Choice = Callable[[int, int], tuple[int, ...]]
How = Literal["mean", "max", "joined"]

NOTHING = -1  # no group is excluded
_QUERIES_AT_ONCE = 2048
_CELLS_AT_ONCE = 8_000_000  # bounds the memory of a block of similarities
_TEXTS_AT_ONCE = 4096
_JOINT = ". "


def same_text(text: str) -> str:
    """What of a sentence counts for being the same: its letters, digits and marks, no case.

    Spaces do not count, as one release of a caption has "wrestler's" and the other "wrestler s".
    """
    return "".join(c for c in text.casefold() if unicodedata.category(c)[0] in "LNM") or text


class CachedEmbedder:
    """An embedder that embeds each text once in its life; galleries of one data set overlap."""

    def __init__(self, embedder: TextEmbedder, progress: Callable[[int], object] | None = None):
        self._embedder = embedder
        self._progress = progress
        self._row: dict[str, int] = {}
        self._vectors: list[Vectors] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """(B, D) unit vectors; `progress` is told how many texts were embedded."""
        new = [t for t in dict.fromkeys(texts) if t not in self._row]
        for first in range(0, len(new), _TEXTS_AT_ONCE):
            part = new[first : first + _TEXTS_AT_ONCE]
            vectors = self._embedder(part).numpy()
            for text, vector in zip(part, vectors, strict=True):
                self._row[text] = len(self._vectors)
                self._vectors.append(vector)
            if self._progress is not None:
                self._progress(len(part))
        if not texts:
            return np.empty((0, self._embedder.dimensions), np.float32)
        return np.stack([self._vectors[self._row[t]] for t in texts])


@dataclass(frozen=True)
class Gallery:
    """Every caption of every video: T texts in rows, and which rows are whose.

    `rows[v]` are the rows of video v; `group` (T,) is equal for two rows of a video that say the
    same; `vectors` (T, D) are unit vectors.
    """

    video_ids: tuple[str, ...]
    texts: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]
    group: NDArray[np.int64]
    vectors: Vectors

    @classmethod
    def of(cls, clips: Sequence[Clip], embed: Embed) -> "Gallery":
        """The references of these clips.

        Raises:
            AtomError: a clip without any.
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
            group += [groups.setdefault((v, same_text(t)), len(groups)) for t in clip.references]
        return cls(
            tuple(c.video_id for c in clips),
            tuple(texts),
            tuple(rows),
            np.array(group),
            embed(texts),
        )

    @cached_property
    def group_of(self) -> dict[tuple[int, str], int]:
        """The group of a text on a video."""
        return {
            (v, same_text(self.texts[r])): int(self.group[r])
            for v, rows in enumerate(self.rows)
            for r in rows
        }


@dataclass(frozen=True)
class Questions:
    """Q queries: each one's video, the group of captions that it excludes there, its vector."""

    ids: tuple[str, ...]
    video: NDArray[np.int64]
    group: NDArray[np.int64]
    vectors: Vectors

    @classmethod
    def of(cls, clips: Sequence[Clip], gallery: Gallery, embed: Embed) -> "Questions":
        """The clips' own queries."""
        asked = [(v, q) for v, clip in enumerate(clips) for q in clip.queries]
        return cls(
            tuple(q.query_id for _, q in asked),
            np.array([v for v, _ in asked]),
            np.array([gallery.group_of.get((v, same_text(q.text)), NOTHING) for v, q in asked]),
            embed([q.text for _, q in asked]),
        )


def without_queries(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """Each clip with one of its captions at random, none that its queries say.

    For several embedders over one index with a query a video: only what is used gets embedded.

    Raises:
        AtomError: a clip whose captions are all among its queries.
    """
    kept = []
    for v, clip in enumerate(clips):
        asked = {same_text(q.text) for q in clip.queries}
        left = [t for t in clip.references if same_text(t) not in asked]
        if not left:
            raise AtomError(f"{clip.dataset}/{clip.video_id} has no caption besides its query's")
        chosen = np.random.default_rng((seed, v)).permutation(len(left))[0]
        kept.append(replace(clip, references=(left[chosen],)))
    return kept


def paragraph_questions(gallery: Gallery, choice: Choice, embed: Embed) -> Questions:
    """A video's sentences as one query, less those that its index entry is made of.

    For data whose only texts are the sentences of the query (DiDeMo): an index of one of them and
    a query with all would find itself. Videos of which nothing would be left ask no question; they
    stay in the gallery.
    """
    ids, videos, texts = [], [], []
    for v, rows in enumerate(gallery.rows):
        indexed = set(gallery.group[list(choice(v, NOTHING))].tolist())
        left = [gallery.texts[r] for r in rows if gallery.group[r] not in indexed]
        if left:
            ids.append(gallery.video_ids[v])
            videos.append(v)
            texts.append(" ".join(left))
    none = np.full(len(ids), NOTHING)
    return Questions(tuple(ids), np.array(videos), none, embed(texts))


# --- What stands for a video ----------------------------------------------------------------


def at_random(gallery: Gallery, count: int, seed: int) -> Choice:
    """The first `count` allowed captions of an order drawn once for each video."""
    orders = [
        np.random.default_rng((seed, v)).permutation(rows) for v, rows in enumerate(gallery.rows)
    ]

    def choose(video: int, excluded: int) -> tuple[int, ...]:
        order = orders[video]
        return tuple(order[gallery.group[order] != excluded][:count].tolist())

    return choose


def everything(gallery: Gallery) -> Choice:
    """All allowed captions."""

    def choose(video: int, excluded: int) -> tuple[int, ...]:
        rows = gallery.rows[video]
        return tuple(rows[gallery.group[rows] != excluded].tolist())

    return choose


def most_central(gallery: Gallery) -> Choice:
    """The caption whose mean cosine with the video's others is highest, the excluded ones
    having no say in it."""
    cosines = [gallery.vectors[rows] @ gallery.vectors[rows].T for rows in gallery.rows]

    def choose(video: int, excluded: int) -> tuple[int, ...]:
        rows = gallery.rows[video]
        allowed = gallery.group[rows] != excluded
        if not allowed.any():
            return ()
        weight = cosines[video][np.ix_(allowed, allowed)].sum(axis=1)
        return (int(rows[allowed][int(np.argmax(weight))]),)

    return choose


def search_people(
    gallery: Gallery,
    questions: Questions,
    choice: Choice,
    how: How,
    embed: Embed,
    *,
    own: Choice | None = None,
) -> RankResult:
    """Rank every video for every query, each indexed by the rows that `choice` gives.

    Args:
        gallery: N videos.
        questions: Q queries.
        choice: what stands for a video.
        how: several rows make one vector (`mean`), one text (`joined`), or are tried each
            (`max`). The three are one for a single row.
        embed: for joined texts.
        own: another choice for the query's own video; with all rows and `max`, the best caption
            of N with the query known.

    Returns:
        Ranks among N. A query whose video has no allowed caption left is missed.
    """
    common = [choice(v, NOTHING) for v in range(len(gallery.rows))]
    mine = [
        (own or choice)(int(v), int(g))
        for v, g in zip(questions.video, questions.group, strict=True)
    ]
    lost = np.array([not rows for rows in mine])
    vectors, starts = _index(gallery, common, how, embed)
    at_once = max(1, _CELLS_AT_ONCE // len(vectors))
    scores = _own_scores(gallery, questions, mine, how, embed)
    parts = []
    for first in range(0, len(mine), at_once):
        block = slice(first, first + at_once)
        alike = questions.vectors[block] @ vectors.T
        if len(starts) < alike.shape[1]:
            alike = np.maximum.reduceat(alike, starts, axis=1)
        alike[np.arange(len(alike)), questions.video[block]] = scores[block]
        parts.append(ranks(alike, questions.video[block]))
    rank = np.concatenate([p.rank for p in parts])
    ties = np.concatenate([p.ties for p in parts])
    rank[lost], ties[lost] = len(common), 0
    return RankResult(rank, ties, lost, questions.video, len(common))


def index_texts(gallery: Gallery, choice: Choice, how: How) -> list[str]:
    """What the text index of a gallery holds: a text a video, or several under `max`."""
    chosen = [choice(v, NOTHING) for v in range(len(gallery.rows))]
    if how == "joined":
        return [_joined(gallery, rows) for rows in chosen]
    return [gallery.texts[r] for rows in chosen for r in rows]


def _index(
    gallery: Gallery, chosen: Sequence[tuple[int, ...]], how: How, embed: Embed
) -> tuple[Vectors, NDArray[np.int64]]:
    """Vectors of the index, and where each video's begin."""
    if how == "max":
        starts = np.cumsum([0, *(len(rows) for rows in chosen[:-1])])
        return gallery.vectors[[r for rows in chosen for r in rows]], starts
    return _one_vector_each(gallery, chosen, how, embed), np.arange(len(chosen))


def _own_scores(
    gallery: Gallery,
    questions: Questions,
    mine: Sequence[tuple[int, ...]],
    how: How,
    embed: Embed,
) -> NDArray[np.float32]:
    """(Q,) similarity of each query to its own video; below every cosine where nothing is left."""
    scores = np.full(len(mine), -2.0, np.float32)
    if how == "max":
        for q, rows in enumerate(mine):
            if rows:
                scores[q] = (gallery.vectors[list(rows)] @ questions.vectors[q]).max()
        return scores
    distinct = {rows: i for i, rows in enumerate(dict.fromkeys(rows for rows in mine if rows))}
    vectors = _one_vector_each(gallery, list(distinct), how, embed)
    asked = np.array([q for q, rows in enumerate(mine) if rows], dtype=np.int64)
    which = np.array([distinct[mine[q]] for q in asked], dtype=np.int64)
    for first in range(0, len(asked), _QUERIES_AT_ONCE):
        block = slice(first, first + _QUERIES_AT_ONCE)
        pair = questions.vectors[asked[block]] * vectors[which[block]]
        scores[asked[block]] = pair.sum(axis=1)
    return scores


def _one_vector_each(
    gallery: Gallery, chosen: Sequence[tuple[int, ...]], how: How, embed: Embed
) -> Vectors:
    if how == "joined":
        return embed([_joined(gallery, rows) for rows in chosen])
    width = gallery.vectors.shape[1]
    means = np.empty((len(chosen), width), np.float32)
    for i, rows in enumerate(chosen):
        means[i] = gallery.vectors[list(rows)].mean(axis=0)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _joined(gallery: Gallery, rows: Sequence[int]) -> str:
    return _JOINT.join(gallery.texts[r] for r in rows)


# --- People as captioners ---------------------------------------------------------------------
