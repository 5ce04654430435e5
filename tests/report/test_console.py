"""What a command prints of its own record: the tables that it fills, whatever its scale."""

import json

from machines import FIRST

from atom_repro.records.record import load_records
from atom_repro.report import console
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


def test_cells_of_one_name_in_two_grids_are_both_shown(tmp_path, monkeypatch):
    rows = [
        Row("t", f"host/m/{row}", "step", value, None, unit, grid=grid)
        for grid, unit, value in (("", "s", 2.0), ("times ours", "1", 3.0))
        for row in ("a", "b")
    ]
    monkeypatch.setitem(console._TABLES, "latency", (lambda _: rows,))
    shown = summary(recorded(tmp_path, scale="tiny")).split("\n\n")
    assert shown[0].startswith("host/m\n") and shown[0].count("2.00 s") == 2
    assert shown[1].startswith("times ours: host/m\n") and "2.00 s" not in shown[1]
