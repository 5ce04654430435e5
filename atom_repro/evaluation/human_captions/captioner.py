"""Human captions in the place of a model's: random draws, a consensus, and retrieval indexes.

They measure the text side of the system without a video. They are a reference level and not an
upper bound: models can come closer to the consensus than any one person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError, Clip
from atom_repro.evaluation.human_captions.text_index import (
    CaptionSelector,
    Gallery,
    Pooling,
    all_captions,
    at_random,
    most_central,
    normalised_text,
)


@dataclass(frozen=True)
class Study:
    """Result of a study of human captions: its record values, and a sample per clip or video."""

    values: dict[str, Any]
    samples: list[dict[str, Any]]


@dataclass(frozen=True)
class HumanCaptions:
    """One human caption of each clip as prediction and the others as references; `position` (N,) is
    the prediction's index among the clip's captions."""

    predictions: dict[str, str]
    references: dict[str, tuple[str, ...]]
    position: NDArray[np.int64]

    @classmethod
    def of(
        cls, clips: Sequence[Clip], position: Sequence[int], *, keep_duplicates: bool = True
    ) -> "HumanCaptions":
        """Take the captions at `position` as predictions.

        Args:
            clips: N clips.
            position: N indexes into the clips' captions.
            keep_duplicates: whether references equal to the prediction stay. They are evidence of
                agreement, but score a caption against itself.

        Raises:
            AtomError: a clip without another caption.
        """
        predictions, references = {}, {}
        for clip, index in zip(clips, position, strict=True):
            caption = clip.references[index]
            others = clip.references[:index] + clip.references[index + 1 :]
            if not keep_duplicates:
                others = tuple(t for t in others if normalised_text(t) != normalised_text(caption))
            if not others:
                raise AtomError(f"{clip.video_id} has no other caption to compare its caption with")
            predictions[clip.video_id], references[clip.video_id] = caption, others
        return cls(predictions, references, np.array(position, dtype=np.int64))

    def without_duplicates(self, clips: Sequence[Clip]) -> "HumanCaptions":
        """The same predictions, without the references equal to them."""
        return self.of(clips, self.position.tolist(), keep_duplicates=False)


def draw_captions(clips: Sequence[Clip], draws: int, seed: int) -> list[HumanCaptions]:
    """Draw one caption of each clip at random, `draws` times without replacement.

    Raises:
        AtomError: a clip has fewer captions than draws.
    """
    fewest = min(clips, key=lambda c: len(c.references))
    if len(fewest.references) < draws:
        raise AtomError(
            f"captioner.draws={draws}: {fewest.video_id} has {len(fewest.references)} captions; "
            "lower captioner.draws"
        )
    orders = [
        np.random.default_rng((seed, i)).permutation(len(c.references)) for i, c in enumerate(clips)
    ]
    return [HumanCaptions.of(clips, [int(o[d]) for o in orders]) for d in range(draws)]


def consensus(clips: Sequence[Clip]) -> HumanCaptions:
    """Caption of each clip with the highest mean word overlap (Dice) with its other captions.

    The choice uses the references, which no captioner could.
    """
    positions = []
    for clip in clips:
        word_sets = [_word_set(t) for t in clip.references]
        overlap = [
            sum(2 * len(a & b) / (len(a) + len(b)) for j, b in enumerate(word_sets) if j != i)
            for i, a in enumerate(word_sets)
        ]
        positions.append(int(np.argmax(overlap)))
    return HumanCaptions.of(clips, positions)


def _word_set(text: str) -> frozenset[str]:
    return frozenset(normalised_text(word) for word in text.split())


@dataclass(frozen=True)
class HumanCaptioner:
    """Settings of `captioner=human`; see `build`."""

    draws: int
    several: int
    seed: int

    def indexes(
        self, gallery: Gallery
    ) -> list[tuple[str, CaptionSelector, Pooling, CaptionSelector | None]]:
        """(row name, selector, pooling, own selector) of every index of the study."""
        drawn: list[tuple[str, CaptionSelector, Pooling, CaptionSelector | None]] = [
            (f"one at random/{d}", at_random(gallery, 1, self.seed + d), "mean", None)
            for d in range(self.draws)
        ]
        several = at_random(gallery, self.several, self.seed)
        all_selector = all_captions(gallery)
        return [
            *drawn,
            ("most central", most_central(gallery), "mean", None),
            (f"{self.several} joined", several, "joined", None),
            (f"mean of {self.several}", several, "mean", None),
            ("mean of all", all_selector, "mean", None),
            (f"maximum over {self.several}", several, "max", None),
            ("maximum over all", all_selector, "max", None),
            ("best of N, query known", at_random(gallery, 1, self.seed), "max", all_selector),
        ]


def build(*, draws: int, several: int, seed: int) -> HumanCaptioner:
    """Build the captioner of `conf/captioner/human.yaml`.

    Args:
        draws: number of random draws of one caption per video.
        several: captions per video of an index of several.
        seed: seed of the draws.

    Raises:
        AtomError: a count below 1.
    """
    for key, value in (("draws", draws), ("several", several)):
        if value < 1:
            raise AtomError(f"captioner.{key}={value}: must be at least 1")
    return HumanCaptioner(draws, several, seed)
