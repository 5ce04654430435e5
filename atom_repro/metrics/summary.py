"""Precision, recall and F1 of summaries and accuracy of answers, with their baselines.

Pure counting, as in `attributes`: what a sentence states arrives as sets of values. An exact match
would be too strict for a summary, so here every value counts by itself.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from atom_repro.metrics.attributes import ALL, Accuracy

Attributes = Mapping[str, Set[str]]

_ARTICLES = {"a", "an", "the"}
_NUMBERS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six"}


@dataclass(frozen=True)
class Overlap:
    """Overlap of stated and true values as counts; `right` values are both."""

    right: int
    stated: int
    true: int

    @property
    def precision(self) -> float:
        """Share of the stated values that are true; 0 where nothing is stated."""
        return self.right / self.stated if self.stated else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        total = self.stated + self.true
        return 2 * self.right / total if total else 0.0


def attribute_overlap(
    stated: Sequence[Attributes], truth: Sequence[Attributes]
) -> dict[str, Overlap]:
    """Returns overlap counts by attribute, summed over all summaries (micro average).

    Args:
        stated: for each summary, attribute to the values that it states.
        truth: for each summary, attribute to its true values.

    Returns:
        Attribute to its overlap, sorted; "all" at the end. Attributes that are neither stated
        nor true anywhere are absent.

    Raises:
        ValueError: the two are not of one length.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for stated_values, true_values in zip(stated, truth, strict=True):
        for kind in {*stated_values, *true_values}:
            stated_set, true_set = stated_values.get(kind, set()), true_values.get(kind, set())
            for name in (kind, ALL):
                counts[name][0] += len(stated_set & true_set)
                counts[name][1] += len(stated_set)
                counts[name][2] += len(true_set)
    names = [*sorted(set(counts) - {ALL}), ALL]
    return {name: Overlap(*counts[name]) for name in names if any(counts[name][1:])}


def normalised(answer: str) -> str:
    """An answer without case, punctuation and articles, with digits as words."""
    words = re.findall(r"[a-z0-9]+", answer.lower())
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)


def answer_accuracy(
    answers: Sequence[str], accepted: Sequence[Collection[str]], kind: Sequence[str]
) -> dict[str, Accuracy]:
    """Returns the accuracy of answers by kind: exact match with an accepted one, normalised.

    Args:
        accepted: for each question its right answers.
        kind: of each question, such as "colour".

    Returns:
        Kind to its accuracy, in order of first appearance; "all" at the end.

    Raises:
        ValueError: the three are not of one length, or a question without accepted answers.
    """
    counts: dict[str, list[int]] = {}
    for text, right, name in zip(answers, accepted, kind, strict=True):
        if not right:
            raise ValueError(f"a question about {name} accepts no answer")
        correct = normalised(text) in {normalised(one) for one in right}
        for part in dict.fromkeys((name, ALL)):
            tally = counts.setdefault(part, [0, 0])
            tally[0] += correct
            tally[1] += 1
    if ALL in counts:
        counts[ALL] = counts.pop(ALL)
    return {part: Accuracy(*tally) for part, tally in counts.items()}


def first_caption(captions: Sequence[str]) -> str:
    """Baseline for a scene summary: its first caption.

    Raises:
        ValueError: no captions.
    """
    if not captions:
        raise ValueError("no captions to summarise")
    return captions[0]


def joined_captions(scenes: Sequence[str]) -> str:
    """Baseline for a video summary: all scenes, concatenated."""
    return ", then ".join(scenes)


def most_frequent_answers(answers: Sequence[str], kind: Sequence[str]) -> dict[str, str]:
    """Majority baseline: each kind's most frequent answer; ties go to the first one seen.

    Args:
        answers: of training questions.
        kind: of each.

    Raises:
        ValueError: the two are not of one length.
    """
    counts: dict[str, Counter[str]] = {}
    for text, name in zip(answers, kind, strict=True):
        counts.setdefault(name, Counter())[text] += 1
    return {name: counter.most_common(1)[0][0] for name, counter in counts.items()}
