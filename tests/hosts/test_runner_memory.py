"""Parts of a session's memory, of samples whose parts are known."""

from atom_repro.datatypes import Span
from atom_repro.hosts.runner_memory import runner_memory


def sample(at_s, anonymous, file=0, swapped=0):
    return {"at_s": at_s, "anonymous": anonymous, "file": file, "swapped": swapped}


def span(stage, start_s, end_s):
    return Span(stage, "decoder", "", "main", start_s, end_s)


def test_what_a_load_and_a_computation_take_on_top():
    samples = [
        sample(0.0, 10), sample(1.1, 90), sample(1.9, 120, swapped=5), sample(2.1, 60, file=10),
        sample(3.5, 60, file=30), sample(4.1, 70),
    ]  # fmt: skip
    spans = [span("load", 1.0, 2.0), span("caption", 3.0, 4.0), span("decode_video", 0.5, 4.5)]
    peaks = [
        {"stage": "captions", "resident": 150, "major_faults": 2},
        {"stage": "captions", "resident": 130, "major_faults": 0},
        {"stage": "embed", "resident": -1, "major_faults": 1},
    ]
    assert runner_memory(spans, samples, peaks, 77) == {
        "peak": 125,
        "temporary": 125 - 70,  # above what is left behind the load
        "activations": 90 - 70,  # above what was there before
        "peak_resident_by_stage": {"captions": 150},
        "major_faults": 3,
        "proportional_at_end": 77,
    }


def test_what_was_not_sampled_is_none():
    told = runner_memory([span("load", 1.0, 1.001)], [sample(0.0, 10)], [], -1)
    assert (told["peak"], told["temporary"], told["activations"]) == (10, None, None)
    assert told["proportional_at_end"] is None
