"""Temporal localisation metrics: IoU and recall of predicted time spans."""

from collections.abc import Sequence

THRESHOLDS = (0.3, 0.5, 0.7)

TimeSpan = tuple[float, float]


def temporal_iou(a: TimeSpan, b: TimeSpan) -> float:
    """Intersection over union of two (start, end) in seconds; 0 where they do not overlap.

    Raises:
        ValueError: a span that ends before it starts, or has no length.
    """
    for start, end in (a, b):
        if not end > start:
            raise ValueError(f"a span from {start} s to {end} s has no length")
    shared = min(a[1], b[1]) - max(a[0], b[0])
    if shared <= 0:
        return 0.0
    return shared / ((a[1] - a[0]) + (b[1] - b[0]) - shared)


def mean_iou(ious: Sequence[float]) -> float:
    """Returns the mean over all events, a miss counting 0.

    Raises:
        ValueError: no events.
    """
    if not ious:
        raise ValueError("no events to localise")
    return sum(ious) / len(ious)


def recall_at_iou(
    ious: Sequence[float], thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, float]:
    """R@IoU: share of the events, 0 to 1, whose span overlaps the truth by a threshold or more.

    Args:
        ious: of each event's first prediction; 0 for an event without one.

    Raises:
        ValueError: no events.
    """
    if not ious:
        raise ValueError("no events to localise")
    return {t: sum(iou >= t for iou in ious) / len(ious) for t in thresholds}
