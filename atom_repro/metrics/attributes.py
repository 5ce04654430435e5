"""Per-attribute accuracy of captions: exact match of stated and true values.

Pure counting: what a caption states and what is true arrive as sets of values (colours,
objects, places …), which the data set parses out of a sentence.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

ALL = "all"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy as counts: `correct` of `total` clips; `total` is at least 1."""

    correct: int
    total: int

    @property
    def percent(self) -> float:
        return 100.0 * self.correct / self.total


def attribute_accuracy(
    stated: Sequence[Mapping[str, Set[str]]],
    truth: Sequence[Mapping[str, Set[str]]],
    group: Sequence[str],
) -> dict[str, dict[str, Accuracy]]:
    """Returns per-attribute accuracy by exact match of attribute sets.

    A clip is right on an attribute if its caption states exactly the true values, no fewer and
    no more. A clip whose truth has no value of an attribute is not counted for it.

    Args:
        stated: for each clip, attribute to the values that its caption states; an attribute
            that is absent states nothing.
        truth: for each clip, attribute to its true values.
        group: for each clip the part of the set that it belongs to, such as "seen".

    Returns:
        Group, then attribute, to its accuracy. Groups are in order of first appearance, with
        "all" (every clip once) at the end; attributes are sorted; what no clip has is absent.

    Raises:
        ValueError: the three are not of one length.
    """
    counts: dict[str, dict[str, list[int]]] = {}
    for caption_values, true_values, name in zip(stated, truth, group, strict=True):
        for part in dict.fromkeys((name, ALL)):
            tally = counts.setdefault(part, defaultdict(lambda: [0, 0]))
            for attribute, values in true_values.items():
                if values:
                    tally[attribute][0] += set(caption_values.get(attribute, ())) == set(values)
                    tally[attribute][1] += 1
    if ALL in counts:
        counts[ALL] = counts.pop(ALL)
    return {
        part: {attribute: Accuracy(*tally[attribute]) for attribute in sorted(tally)}
        for part, tally in counts.items()
    }
