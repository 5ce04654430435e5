"""Metrics of an assembled video against its request: order, coverage, duplicates, precision.

Scenes are any hashable names; which scene a clip shows, and which scenes fulfil each part of a
request, comes from the data set. A proxy, where the truth is known, for three of the
questions of the paper's human study (Appendix E): adherence, progression and coherence.
"""

import math
import random
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass

RequestParts = Sequence[Set[Hashable]]


@dataclass(frozen=True)
class ScriptScore:
    """`order` is None where fewer than two scenes of different parts are shown, or the request
    has no order; shares are from 0 to 1."""

    order: float | None
    coverage: float
    duplicates: float
    precision: float


def score_script(script: Sequence[Hashable], parts: RequestParts, *, ordered: bool) -> ScriptScore:
    """Returns order, coverage, duplicate rate and precision of one script.

    Args:
        script: the scene of each clip, in the order of the script.
        parts: for each part of the request, the scenes that fulfil it.
        ordered: whether the request gives the parts an order.
    """
    relevant: set[Hashable] = set().union(*parts)
    return ScriptScore(
        order=scene_order(script, parts) if ordered else None,
        coverage=coverage(script, parts),
        duplicates=duplicate_rate(script),
        precision=precision_at(script, relevant, len(script)) if script else 0.0,
    )


def scene_order(script: Sequence[Hashable], parts: RequestParts) -> float | None:
    """Kendall's tau-b between the order of scenes in a script and of their parts in the request.

    A scene counts once, where it is first shown, as the first part that it fulfils; scenes that
    fulfil no part are ignored. None with fewer than two different parts.
    """
    indices: list[int] = []
    for scene in dict.fromkeys(script):
        index = next((i for i, scenes in enumerate(parts) if scene in scenes), None)
        if index is not None:
            indices.append(index)
    return kendall_tau_b(range(len(indices)), indices)


def kendall_tau_b(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two sequences of one length, −1 to 1, with its correction for ties.

    None where either sequence is constant.

    Raises:
        ValueError: different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"tau-b needs one length, got sequences of lengths {len(a)} and {len(b)}")
    concordance = untied_a = untied_b = 0
    for i in range(len(a)):
        for j in range(i):
            left, right = _sign(a[i] - a[j]), _sign(b[i] - b[j])
            concordance += left * right
            untied_a += left != 0
            untied_b += right != 0
    return concordance / math.sqrt(untied_a * untied_b) if untied_a and untied_b else None


def coverage(script: Sequence[Hashable], parts: RequestParts) -> float:
    """Share of the parts of a request with at least one scene shown.

    Raises:
        ValueError: a request without parts.
    """
    if not parts:
        raise ValueError("coverage of a request without parts is undefined")
    return sum(not scenes.isdisjoint(script) for scenes in parts) / len(parts)


def duplicate_rate(script: Sequence[Hashable]) -> float:
    """Share of the clips that repeat an earlier scene; 0 for no clips."""
    return (len(script) - len(set(script))) / len(script) if script else 0.0


def precision_at(script: Sequence[Hashable], relevant: Set[Hashable], k: int) -> float:
    """Share of k places filled with relevant scenes, each counted once; empty places are misses.

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"precision at {k}: k must be at least 1")
    return len(relevant & set(script[:k])) / k


def ranked_script(clips: int, max_clips: int | None = None) -> list[int]:
    """Baseline without a decoder: clips in retrieval order, numbered from 1."""
    return list(range(1, min(clips, clips if max_clips is None else max_clips) + 1))


def shuffled_script(clips: int, rng: random.Random, max_clips: int | None = None) -> list[int]:
    """Random baseline: clips in random order, numbered from 1."""
    order = list(range(1, clips + 1))
    rng.shuffle(order)
    return order[: clips if max_clips is None else max_clips]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
