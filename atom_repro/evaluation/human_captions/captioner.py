"""People's captions in the model's place: one person's of each clip, a consensus, indexes of them.

With a captioner's videos out of reach, the text side can still be measured. A human caption is a
reference and not a bound, as models write the consensus sentence better than any one person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError, Clip
from atom_repro.evaluation.human_captions.text_index import (
    Choice,
    Gallery,
    How,
    at_random,
    everything,
    most_central,
    same_text,
)


@dataclass(frozen=True)
class Study:
    """What a study of human captions records: `values`, `samples` (a line a clip or a video), and
    which metric its rows are told by."""

    values: dict[str, Any]
    samples: list[dict[str, Any]]
    metric: str

    def lines(self) -> list[str]:
        """Each row's mean and interval, to print."""
        return [
            f"{row}: {self.metric} {v[self.metric]['mean']:.1f} "
            f"({v[self.metric]['low']:.1f} to {v[self.metric]['high']:.1f})"
            for row, v in self.values["rows"].items()
        ]


@dataclass(frozen=True)
class HumanCaptions:
    """One person's caption of each clip, with the others' as references; `position` (N,) is the
    place of the caption among the clip's references."""

    predictions: dict[str, str]
    references: dict[str, tuple[str, ...]]
    position: NDArray[np.int64]

    @classmethod
    def of(
        cls, clips: Sequence[Clip], position: Sequence[int], *, copies: bool = True
    ) -> "HumanCaptions":
        """The captions at these places.

        Args:
            clips: N clips.
            position: N places.
            copies: whether others who wrote the same sentence stay among the references. They
                are evidence of agreement, and also let a caption be scored against itself.

        Raises:
            AtomError: a clip without another caption.
        """
        predictions, references = {}, {}
        for clip, place in zip(clips, position, strict=True):
            said = clip.references[place]
            others = clip.references[:place] + clip.references[place + 1 :]
            if not copies:
                others = tuple(t for t in others if same_text(t) != same_text(said))
            if not others:
                raise AtomError(f"{clip.video_id} has no other caption to compare people by")
            predictions[clip.video_id], references[clip.video_id] = said, others
        return cls(predictions, references, np.array(position, dtype=np.int64))

    def without_copies(self, clips: Sequence[Clip]) -> "HumanCaptions":
        """The same captions, references that say the same left out."""
        return self.of(clips, self.position.tolist(), copies=False)


def drawn_people(clips: Sequence[Clip], draws: int, seed: int) -> list[HumanCaptions]:
    """One caption of each clip at random, `draws` times without taking one twice.

    Raises:
        AtomError: a clip has fewer captions than draws.
    """
    poorest = min(clips, key=lambda c: len(c.references))
    if len(poorest.references) < draws:
        raise AtomError(
            f"captioner.draws={draws}: {poorest.video_id} has {len(poorest.references)} captions"
        )
    orders = [
        np.random.default_rng((seed, i)).permutation(len(c.references)) for i, c in enumerate(clips)
    ]
    return [HumanCaptions.of(clips, [int(o[d]) for o in orders]) for d in range(draws)]


def consensus(clips: Sequence[Clip]) -> HumanCaptions:
    """The caption of each clip that shares most words with the others (mean Dice overlap).

    It is chosen with the references in view, as no captioner could.
    """
    places = []
    for clip in clips:
        words = [_words(t) for t in clip.references]
        weight = [
            sum(2 * len(a & b) / (len(a) + len(b)) for j, b in enumerate(words) if j != i)
            for i, a in enumerate(words)
        ]
        places.append(int(np.argmax(weight)))
    return HumanCaptions.of(clips, places)


def _words(text: str) -> frozenset[str]:
    return frozenset(same_text(word) for word in text.split())


@dataclass(frozen=True)
class HumanCaptioner:
    """`captioner=human`: how many draws, and how many captions `several` are."""

    draws: int
    several: int
    seed: int

    def indexes(self, gallery: Gallery) -> list[tuple[str, Choice, How, Choice | None]]:
        """(row name, choice, how, own choice) of every index that is tried, drawn ones first."""
        drawn: list[tuple[str, Choice, How, Choice | None]] = [
            (f"one at random/{d}", at_random(gallery, 1, self.seed + d), "mean", None)
            for d in range(self.draws)
        ]
        several = at_random(gallery, self.several, self.seed)
        whole = everything(gallery)
        return [
            *drawn,
            ("most central", most_central(gallery), "mean", None),
            (f"{self.several} joined", several, "joined", None),
            (f"mean of {self.several}", several, "mean", None),
            ("mean of all", whole, "mean", None),
            (f"maximum over {self.several}", several, "max", None),
            ("maximum over all", whole, "max", None),
            ("best of N, query known", at_random(gallery, 1, self.seed), "max", whole),
        ]


def build(*, draws: int, several: int, seed: int) -> HumanCaptioner:
    """The captioner of `conf/captioner/human.yaml`.

    Args:
        draws: how often one caption a video is drawn.
        several: how many captions an index of several has.
        seed: of the draws.

    Raises:
        AtomError: a count below 1.
    """
    for key, value in (("draws", draws), ("several", several)):
        if value < 1:
            raise AtomError(f"captioner.{key}={value}: at least 1")
    return HumanCaptioner(draws, several, seed)
