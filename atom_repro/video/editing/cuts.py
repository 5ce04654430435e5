"""Cuts (time ranges of source videos) that make up a movie, and removing overlap between them.

A pipeline chooses the cuts and their order; `writer` renders them into one file.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# A shorter overlap comes from rounding of timestamps, which some containers store to 1 ms.
_ROUNDING_S = 2e-3

TimeSpan = tuple[float, float]


@dataclass(frozen=True)
class Cut:
    """A time range of a source video, in seconds since its first frame.

    `end_s` None means up to the end. `caption` describes the content; `narration` is the text that
    becomes the subtitles.
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
            raise ValueError(
                f"{self.video_id}: the cut from {self.start_s} s to {self.end_s} s is empty "
                "or starts before 0"
            )


def without_overlap(cuts: Sequence[Cut], min_s: float) -> list[Cut]:
    """The cuts in their order, trimmed so that no part of a source is shown twice.

    Overlap between two cuts stays with the earlier one in the list, which is ranked higher. Of
    the later one, the longest remaining interval is kept if it has at least `min_s` seconds. A
    shorter one that starts where the previous cut in the list ends is merged into that cut, with
    both texts; any other is dropped. A cut without overlap is kept as it is, however short.
    """
    used_intervals: dict[Path, list[TimeSpan]] = defaultdict(list)
    kept: list[Cut] = []
    for cut in cuts:
        stop_s = math.inf if cut.end_s is None else cut.end_s
        source = cut.path.resolve()
        used = used_intervals[source]
        unused = _subtract((cut.start_s, stop_s), used)
        if not unused:
            continue
        start_s, end_s = max(unused, key=lambda interval: interval[1] - interval[0])
        new_end_s = None if end_s == math.inf else end_s
        unchanged = end_s - start_s >= stop_s - cut.start_s - _ROUNDING_S
        if unchanged or end_s - start_s >= min_s:
            kept.append(replace(cut, start_s=start_s, end_s=new_end_s))
        elif kept and kept[-1].path.resolve() == source and kept[-1].end_s == start_s:
            kept[-1] = _merge(kept[-1], cut, new_end_s)
        else:
            continue
        used.append((start_s, end_s))
    return kept


def _subtract(interval: TimeSpan, used: Iterable[TimeSpan]) -> list[TimeSpan]:
    """The parts of an interval that none of the others covers."""
    unused = [interval]
    for left_s, right_s in used:
        unused = [
            part
            for start_s, end_s in unused
            for part in ((start_s, min(end_s, left_s)), (max(start_s, right_s), end_s))
            if part[1] - part[0] > _ROUNDING_S
        ]
    return unused


def _merge(first: Cut, second: Cut, end_s: float | None) -> Cut:
    return replace(
        first,
        end_s=end_s,
        caption=_join_texts(first.caption, second.caption),
        narration=_join_texts(first.narration, second.narration),
    )


def _join_texts(first: str, second: str) -> str:
    return first if second == first or not second else f"{first} {second}".strip()
