"""Spans of time compared by hand."""

import pytest

from atom_repro.metrics.localisation import mean_iou, recall_at_iou, temporal_iou


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 10), (0, 10), 1),
        ((0, 10), (5, 15), 5 / 15),
        ((0, 10), (2, 4), 0.2),
        ((0, 10), (10, 20), 0),
        ((0, 1), (5, 6), 0),
    ],
)
def test_iou(a, b, iou):
    assert temporal_iou(a, b) == temporal_iou(b, a) == pytest.approx(iou)


def test_a_span_needs_length():
    with pytest.raises(ValueError, match="from 3 s to 3 s"):
        temporal_iou((0, 1), (3, 3))
    with pytest.raises(ValueError, match="has no length"):
        temporal_iou((2, 1), (0, 3))


def test_means_over_events():
    ious = [0.0, 0.3, 0.5, 1.0]
    assert mean_iou(ious) == pytest.approx(0.45)
    assert recall_at_iou(ious) == {0.3: 0.75, 0.5: 0.5, 0.7: 0.25}
    assert recall_at_iou([0.2], [0.1]) == {0.1: 1.0}
    for function in (mean_iou, recall_at_iou):
        with pytest.raises(ValueError, match="no events"):
            function([])
