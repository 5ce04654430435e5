"""The waterfall's arithmetic on spans worked out by hand."""

import pytest

from atom_repro.datatypes import Span
from atom_repro.runtime.timeline import ModuleLoads, Timeline, module_loads, waterfall


def span(stage, lane, start, end):
    return Span(stage, "", "", lane, start, end)


def test_stages_less_overlap_plus_residual_is_end_to_end():
    spans = [
        span("load", "main", 1.0, 3.0),
        span("encode", "encoder", 2.0, 5.0),  # one second beside the load
        span("caption", "main", 6.0, 8.0),  # after a second in which nothing ran
        span("encode", "encoder", 6.5, 7.0),  # half a second beside it
        span("load", "main", 11.0, 12.0),  # outside
    ]
    fall = waterfall(spans, 0.5, 9.0)
    assert fall.stages == pytest.approx({"load": 2.0, "encode": 3.5, "caption": 2.0})
    assert fall.overlap_s == pytest.approx(1.5)
    assert fall.residual_s == pytest.approx(8.5 - 6.0)
    total = sum(fall.stages.values()) - fall.overlap_s + fall.residual_s
    assert total == pytest.approx(fall.end_to_end_s) == pytest.approx(8.5)


def test_a_span_within_another_does_not_shorten_it():
    spans = [
        span("caption", "main", 0.0, 10.0),
        span("encode", "encoder", 1.0, 2.0),  # ends long before the caption does
        span("encode", "encoder", 4.0, 6.0),
    ]
    fall = waterfall(spans, 0.0, 12.0)
    assert fall.overlap_s == pytest.approx(3.0)
    assert fall.residual_s == pytest.approx(2.0)


def test_a_span_is_kept_when_its_work_fails():
    timeline = Timeline()
    with pytest.raises(ValueError, match="broken"), timeline.span("encode", "encoder", "clip"):
        raise ValueError("broken")
    (kept,) = timeline.spans()
    assert (kept.stage, kept.item, kept.lane) == ("encode", "clip", "MainThread")
    assert 0 <= kept.start_s <= kept.end_s <= timeline.now()


def test_drained_spans_are_given_once():
    timeline = Timeline()
    with timeline.span("encode", "encoder", "a"):
        pass
    assert [s.item for s in timeline.drain()] == ["a"]
    with timeline.span("encode", "encoder", "b"):
        pass
    assert [s.item for s in timeline.drain()] == ["b"]
    assert timeline.spans() == []


def test_reads_are_those_of_the_prompt():
    spans = [
        Span("load", "decoder", "a", "main", 1.0, 2.0, 100),
        Span("load", "decoder", "b", "main", 2.0, 3.0, 100),
        Span("load", "encoder", "b", "encoder", 2.0, 3.0, 7),
        Span("caption", "decoder", "b", "main", 3.0, 4.0),
        Span("load", "embedder", "p", "main", 5.0, 6.0, 1),  # the next prompt's
    ]
    assert module_loads(spans, 0.5, 4.5) == ModuleLoads({"decoder": 2, "encoder": 1}, 207)
