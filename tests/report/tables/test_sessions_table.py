"""The table of sessions, from prompts whose sums are known."""

import json

import pytest
from machines import OLD

from atom_repro.records.provenance import file_hash
from atom_repro.records.record import Record
from atom_repro.report.render import to_markdown
from atom_repro.report.tables.sessions import NAME, build, curves, figures, newest

LOADS = {"fresh": [{"encoder": 1, "decoder": 1}] * 3, "indexed": [{"encoder": 1}, {}, {}]}


def prompts(session, residency, seconds):
    """Repeat 0 is the warm-up, and absurd."""
    return [
        {"kind": "prompt", "session": session, "residency": residency, "schedule": "sequential",
         "repeat": repeat, "warmup": repeat == 0, "prompt": n + 1, "loads": LOADS[session][n],
         "bytes_read": 100 * len(LOADS[session][n]),
         "end_to_end_s": 99.0 if repeat == 0 else s + repeat / 10}
        for repeat in range(3) for n, s in enumerate(seconds)
    ]  # fmt: skip


def record(tmp_path, samples, **values):
    folder = tmp_path / "r1"
    folder.mkdir(exist_ok=True)
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in samples))
    body = {
        "stage": "sessions", "status": "ok", "scale": "tiny", "git": {"clean": True},
        "machine": OLD.to_dict(), "definitions": {"load": 2},
        "device": "cpu", "config": {"model": {"name": "tiny_mplug2plus"}},
        "samples": {"sha256": file_hash(path), "lines": len(samples)},
        "values": {
            "precision": "fp32", "pipeline": "retrieval", "clips": 5, "prompt_counts": [1, 3],
            "sessions": ["fresh/resident/sequential", "indexed/resident/sequential"],
            "out_of_memory": [],
        } | values,
    }  # fmt: skip
    return Record(folder, body)


@pytest.fixture
def made(tmp_path):
    return record(
        tmp_path,
        prompts("fresh", "resident", [4, 3, 3]) + prompts("indexed", "resident", [4, 1, 1]),
    )


def cells(made):
    return {(r.row, r.column): r for r in build([made])[NAME]}


def test_loads_bytes_and_seconds_of_the_nth_prompt(made):
    found = cells(made)
    fresh = "host/tiny_mplug2plus/retrieval/fp32/fresh/resident/sequential"
    indexed = "host/tiny_mplug2plus/retrieval/fp32/indexed/resident/sequential"
    assert [found[fresh, f"tiny/loads in prompt {n}"].ours for n in (1, 2, 3)] == [2, 2, 2]
    assert [found[indexed, f"tiny/loads in prompt {n}"].ours for n in (1, 2, 3)] == [1, 0, 0]
    assert found[fresh, "tiny/bytes read in prompt 3"].ours == 200
    # medians of repeats 1 and 2, which are 0.1 and 0.2 s a prompt slower than written
    assert found[fresh, "tiny/prompt 2"].ours == pytest.approx(3.15)
    assert found[fresh, "tiny/prompts 1-3"].ours == pytest.approx(10.45)
    assert found[indexed, "tiny/prompts 1-3"].ours == pytest.approx(6.45)
    saved = found[indexed, "tiny/saved by the index in prompts 1-3"]
    assert (saved.ours, saved.n) == (pytest.approx(4), 2)
    assert (fresh, "tiny/saved by the index in prompts 1-3") not in found


def test_a_session_without_memory_says_so(tmp_path):
    ended = "indexed/resident/sequential"
    made = record(tmp_path, prompts("fresh", "resident", [4, 3, 3]), out_of_memory=[ended])
    found = cells(made)[f"host/tiny_mplug2plus/retrieval/fp32/{ended}", "tiny/prompt 1"]
    assert (found.ours, found.note) == (None, "out of memory")


def test_loads_that_differ_between_repeats_are_refused(tmp_path):
    samples = prompts("fresh", "resident", [4, 3, 3])
    samples[-1] = samples[-1] | {"bytes_read": 1}
    made = record(tmp_path, samples, sessions=["fresh/resident/sequential"])
    with pytest.raises(AssertionError, match="loads differ"):
        build([made])


def test_curves_are_the_same_for_the_same_records_and_smoke_has_none(made, tmp_path):
    texts = figures([made])
    assert texts == figures([made])
    assert set(texts) == {"figures/sessions_retrieval_fp32.svg"}
    assert "fresh, resident" in curves(made)
    made.data["device"] = "cuda: NVIDIA H100"
    assert set(figures([made])) == {
        "figures/sessions_retrieval_fp32_cuda-NVIDIA-H100-tiny_mplug2plus.svg"
    }
    made.data["scale"] = "smoke"
    assert newest([made]) == []
    assert "No record of ours yet" in to_markdown(NAME, build([made])[NAME])


def test_loads_and_seconds_have_a_grid_each(tmp_path):
    ended = "indexed/resident/sequential"
    made = record(tmp_path, prompts("fresh", "resident", [4, 3, 3]), out_of_memory=[ended])
    text = to_markdown(NAME, build([made])[NAME])
    loads, seconds = text.split("### ")[1:]
    assert loads.startswith("loads and bytes\n") and seconds.startswith("seconds\n")
    (row,) = [line for line in seconds.splitlines() if ended in line]
    assert "| out of memory |" in row.replace("  ", "")
