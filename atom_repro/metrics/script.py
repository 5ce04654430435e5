"""How well an assembled video follows its request: order, coverage, repetition, precision.

Scenes are any hashable names: which scene a clip shows, and which scenes fulfil each part of a
request, is the data set's business. Stands in, where the truth is known, for three of the
questions of the paper's human study (Appendix E): adherence, progression and coherence.
"""

import math
import random
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass

Wanted = Sequence[Set[Hashable]]


@dataclass(frozen=True)
class ScriptScore:
    """`order` is None where fewer than two scenes of different parts are shown, or the request
    has no order; shares are from 0 to 1."""

    order: float | None
    coverage: float
    duplicates: float
    precision: float


def score_script(shown: Sequence[Hashable], wanted: Wanted, *, ordered: bool) -> ScriptScore:
    """Everything about one script.

    Args:
        shown: the scene of each clip, in the order of the script.
        wanted: for each part of the request, the scenes that fulfil it.
        ordered: whether the request gives the parts an order.
    """
    relevant: set[Hashable] = set().union(*wanted)
    return ScriptScore(
        order=order_of(shown, wanted) if ordered else None,
        coverage=coverage(shown, wanted),
        duplicates=duplicate_rate(shown),
        precision=precision_at(shown, relevant, len(shown)) if shown else 0.0,
    )


def order_of(shown: Sequence[Hashable], wanted: Wanted) -> float | None:
    """Kendall's tau-b between the places of scenes in a script and their parts' in the request.

    A scene counts once, where it is first shown, as the first part that it fulfils; scenes that
    nobody asked for have no place. None where nothing can be out of order.
    """
    parts: list[int] = []
    for scene in dict.fromkeys(shown):
        part = next((i for i, scenes in enumerate(wanted) if scene in scenes), None)
        if part is not None:
            parts.append(part)
    return kendall_tau_b(range(len(parts)), parts)


def kendall_tau_b(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two sequences of one length, −1 to 1, with its correction for ties.

    None where either has no two different values: there is no order to agree with.

    Raises:
        ValueError: different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"sequences of lengths {len(a)} and {len(b)} have no common order")
    agreeing = in_a = in_b = 0
    for i in range(len(a)):
        for j in range(i):
            left, right = _sign(a[i] - a[j]), _sign(b[i] - b[j])
            agreeing += left * right
            in_a += left != 0
            in_b += right != 0
    return agreeing / math.sqrt(in_a * in_b) if in_a and in_b else None


def coverage(shown: Sequence[Hashable], wanted: Wanted) -> float:
    """Share of the parts of a request of which at least one scene is shown.

    Raises:
        ValueError: a request without parts.
    """
    if not wanted:
        raise ValueError("a request without parts has no coverage")
    return sum(not scenes.isdisjoint(shown) for scenes in wanted) / len(wanted)


def duplicate_rate(shown: Sequence[Hashable]) -> float:
    """Share of the clips that show a scene again; 0 for no clips."""
    return (len(shown) - len(set(shown))) / len(shown) if shown else 0.0


def precision_at(shown: Sequence[Hashable], relevant: Set[Hashable], k: int) -> float:
    """Share of k places filled with relevant scenes, each counted once; empty places are misses.

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"precision at {k}")
    return len(relevant & set(shown[:k])) / k


def ranked_script(clips: int, most: int | None = None) -> list[int]:
    """The baseline that needs no decoder: clips as they were ranked, numbered from 1."""
    return list(range(1, min(clips, clips if most is None else most) + 1))


def shuffled_script(clips: int, rng: random.Random, most: int | None = None) -> list[int]:
    """The baseline that knows nothing: clips in random order."""
    order = list(range(1, clips + 1))
    rng.shuffle(order)
    return order[: clips if most is None else most]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
