"""Parts of the runner's memory, from its samples: what Table 8 tells apart.

A sample is all of the process that is in memory or was swapped out. What a load takes on top of
what it leaves is temporary; what a module takes on top while it computes are activations.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from atom_repro.datatypes import Span

_COMPUTING = ("encode", "caption", "embed", "script")


def runner_memory(
    spans: Sequence[Span],
    samples: Sequence[Mapping[str, Any]],
    peaks: Sequence[Mapping[str, Any]],
    proportional: int,
) -> dict[str, Any]:
    """Bytes of a session, as values of a record; None where nothing was sampled or read.

    Args:
        samples: of the runner, every 20 ms; of a load or stage that is shorter there may be none.
        peaks: VmHWM of each stage, set back when it began.
        proportional: PSS at the end, with all that was loaded; -1 where it cannot be read.
    """
    totals = [(s["at_s"], s["anonymous"] + s["swapped"] + s["file"]) for s in samples]
    return {
        "peak": max((total for _, total in totals), default=None),
        "temporary": _largest_rise(totals, [s for s in spans if s.stage == "load"], over_end=True),
        "activations": _largest_rise(totals, [s for s in spans if s.stage in _COMPUTING]),
        "peak_resident_by_stage": {
            stage: max(p["resident"] for p in peaks if p["stage"] == stage)
            for stage in dict.fromkeys(p["stage"] for p in peaks if p["resident"] >= 0)
        },
        "major_faults": sum(p["major_faults"] for p in peaks),
        "proportional_at_end": proportional if proportional >= 0 else None,
    }


def _largest_rise(
    totals: Sequence[tuple[float, int]], spans: Sequence[Span], *, over_end: bool = False
) -> int | None:
    """The most that memory rose within a span over the sample before it, or over the one after."""
    rises = []
    for span in spans:
        inside = [total for at_s, total in totals if span.start_s <= at_s <= span.end_s]
        before = [total for at_s, total in totals if at_s < span.start_s]
        after = [total for at_s, total in totals if at_s > span.end_s]
        base = after[:1] if over_end else before[-1:]
        if inside and base:
            rises.append(max(0, max(inside) - base[0]))
    return max(rises, default=None)
