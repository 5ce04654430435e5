"""Timeline of a session: spans on one clock, latency waterfall and module loads."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from atom_repro.datatypes import Span


@dataclass
class SpanCounts:
    """What the work inside a span counts while it runs: `tokens` as in `Span`."""

    tokens: int = 0


class Timeline:
    """Spans of one session, in seconds since it began. Lanes are threads, by name."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spans: list[Span] = []  # list.append is atomic; order is sorted out on reading

    def now(self) -> float:
        return time.perf_counter() - self._start

    @contextmanager
    def span(
        self, stage: str, module: str, item: str = "", bytes_read: int = 0
    ) -> Iterator[SpanCounts]:
        """Record the time inside, also when it ends in an error."""
        start, counts = self.now(), SpanCounts()
        try:
            yield counts
        finally:
            lane = threading.current_thread().name
            end = self.now()
            self._spans.append(
                Span(stage, module, item, lane, start, end, bytes_read, counts.tokens)
            )

    def spans(self) -> list[Span]:
        return sorted(self._spans, key=lambda s: (s.start_s, s.end_s))

    def drain(self) -> list[Span]:
        """Return and remove the spans that have ended: for sessions so long that keeping them would
        dominate the growth of memory."""
        ended = len(self._spans)  # another lane may append meanwhile
        drained = sorted(self._spans[:ended], key=lambda s: (s.start_s, s.end_s))
        del self._spans[:ended]
        return drained


@dataclass(frozen=True)
class Waterfall:
    """Latency breakdown in seconds: stages − overlap + residual = end to end.

    `overlap` is time that lanes worked at once, counted once for each lane beyond the first;
    `residual` is time in which no lane had a span open.
    """

    stages: dict[str, float]
    overlap_s: float
    residual_s: float
    end_to_end_s: float

    def to_dict(self) -> dict[str, Any]:
        """The breakdown as a sample of a record."""
        return {
            "end_to_end_s": self.end_to_end_s,
            "stages_s": self.stages,
            "overlap_s": self.overlap_s,
            "residual_s": self.residual_s,
        }


def waterfall(spans: Sequence[Span], start_s: float, end_s: float) -> Waterfall:
    """Latency breakdown between two points of a session. Spans may not nest in a lane."""
    spans_within = [s for s in spans if s.start_s >= start_s and s.end_s <= end_s]
    stages: dict[str, float] = {}
    for span in spans_within:
        stages[span.stage] = stages.get(span.stage, 0.0) + span.duration_s
    busy = _covered((s.start_s, s.end_s) for s in spans_within)
    total = sum(stages.values())
    return Waterfall(stages, total - busy, (end_s - start_s) - busy, end_s - start_s)


@dataclass(frozen=True)
class ModuleLoads:
    """Number of loads of each module between two points of a session, and the bytes read."""

    loads: dict[str, int]
    bytes_read: int


def module_loads(spans: Sequence[Span], start_s: float, end_s: float) -> ModuleLoads:
    """Count the module loads that began and ended between two points of a session."""
    loads_within = [
        s for s in spans if s.stage == "load" and s.start_s >= start_s and s.end_s <= end_s
    ]
    loads = Counter(s.module for s in loads_within)
    return ModuleLoads(dict(sorted(loads.items())), sum(s.bytes_read for s in loads_within))


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
