"""What a command prints of its own record: the tables that it fills, whatever its scale."""

import json

from machines import FIRST

from atom_repro.records.record import load_records
from atom_repro.report.cells import Row
from atom_repro.report.console import as_text, summary
from atom_repro.report.tables.latency import arms

ARMS = ("resident/parallel", "reload_stage/sequential")


def recorded(folder, *, scale):
    """A latency record of two arms."""
    folder = folder / "latency/20260101T000000Z-abc"
    folder.mkdir(parents=True)
    samples = [
        {"kind": "prompt", "arm": arm, "repeat": repeat, "warmup": repeat == 0, "prompt": 0,
         "end_to_end_s": 2.5 + repeat, "overlap_s": 0.0, "residual_s": 0.0,
         "stages_s": {"encode": 1.0, "caption": 1.5 + repeat}}
        for arm in ARMS for repeat in (0, 1)
    ]  # fmt: skip
    lines = "".join(json.dumps(sample) + "\n" for sample in samples)
    (folder / "samples.jsonl").write_text(lines)
    from atom_repro.records.provenance import file_hash

    record = {
        "schema": 1, "stage": "latency", "scale": scale, "status": "ok", "device": "cpu",
        "started_utc": "2026-01-01T00:00:00", "git": {"clean": True}, "machine": FIRST.to_dict(),
        "key": "k", "weights": "random", "definitions": {"load": 2},
        "config": {"model": {"name": "m"}, "pipeline": {"name": "retrieval"}},
        "samples": {"sha256": file_hash(folder / "samples.jsonl"), "lines": 4},
        "values": {"precision": "fp32", "clips": 2, "prompts": 1, "arms": list(ARMS)},
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_smoke_run_is_shown_to_whoever_made_it_and_stands_in_no_table(tmp_path):
    folder = recorded(tmp_path, scale="smoke")
    text = summary(folder)
    assert text.splitlines()[0] == "host/m/retrieval/fp32/smoke"
    assert all(arm in text for arm in ARMS)
    assert "3.50 s" in text and "in no table" in text and text.endswith(f"record: {folder}")
    assert arms(load_records([tmp_path])) == []


def test_names_stand_once_where_all_share_them():
    rows = [
        Row("t", f"host/m/{row}", f"toy/{column}", value, None, "1")
        for row, column, value in (("a", "x", 1.0), ("a", "y", 0.12345), ("b", "x", 2.0))
    ]
    title, head, first, second = as_text(rows).splitlines()
    assert title == "host/m/toy"
    assert head.split() == ["x", "y"]
    assert first.split() == ["a", "1", "0.1235"]
    assert second.split() == ["b", "2"]
