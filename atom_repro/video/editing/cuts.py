"""Stretches of source videos in the order in which a movie shows them.

Which stretches are wanted, and in what order, is a pipeline's business; how they become one file
is `video_edit`'s.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# What overlaps by less than this is a rounding of timestamps, which containers keep to 1 ms.
_ROUNDING_S = 2e-3

Interval = tuple[float, float]


@dataclass(frozen=True)
class Cut:
    """A stretch of a source video, in seconds since its first frame.

    `end_s` None means up to the end. `caption` says what is seen; `narration` is what the movie
    says over it, and becomes its subtitles.
    """

    video_id: str
    path: Path
    start_s: float = 0.0
    end_s: float | None = None
    caption: str = ""
    narration: str = ""

    def __post_init__(self) -> None:
        stop_s = math.inf if self.end_s is None else self.end_s
        if not 0 <= self.start_s < stop_s:
            raise ValueError(f"{self.video_id}: no cut from {self.start_s} s to {self.end_s} s")


def without_overlap(cuts: Sequence[Cut], min_s: float) -> list[Cut]:
    """The cuts in their order, trimmed so that no second of a source is shown twice.

    What two cuts share stays with the earlier of them in the list, which is the one ranked
    higher. Of the rest of the later one its longest piece is kept, if it has `min_s` seconds. A
    shorter rest that goes on where the cut before it in the list ends is merged into that one,
    with both texts; any other is dropped. A cut that shares nothing stays as it is, however short.
    """
    shown: dict[Path, list[Interval]] = defaultdict(list)
    kept: list[Cut] = []
    for cut in cuts:
        stop_s = math.inf if cut.end_s is None else cut.end_s
        source = cut.path.resolve()
        taken = shown[source]
        pieces = _outside((cut.start_s, stop_s), taken)
        if not pieces:
            continue
        start_s, end_s = max(pieces, key=lambda piece: piece[1] - piece[0])
        until = None if end_s == math.inf else end_s
        untouched = end_s - start_s >= stop_s - cut.start_s - _ROUNDING_S
        if untouched or end_s - start_s >= min_s:
            kept.append(replace(cut, start_s=start_s, end_s=until))
        elif kept and kept[-1].path.resolve() == source and kept[-1].end_s == start_s:
            kept[-1] = _merged(kept[-1], cut, until)
        else:
            continue
        taken.append((start_s, end_s))
    return kept


def _outside(whole: Interval, taken: Iterable[Interval]) -> list[Interval]:
    """What of an interval lies in none of the others."""
    pieces = [whole]
    for left_s, right_s in taken:
        pieces = [
            part
            for start_s, end_s in pieces
            for part in ((start_s, min(end_s, left_s)), (max(start_s, right_s), end_s))
            if part[1] - part[0] > _ROUNDING_S
        ]
    return pieces


def _merged(first: Cut, second: Cut, end_s: float | None) -> Cut:
    return replace(
        first,
        end_s=end_s,
        caption=_joined(first.caption, second.caption),
        narration=_joined(first.narration, second.narration),
    )


def _joined(first: str, second: str) -> str:
    return first if second == first or not second else f"{first} {second}".strip()
