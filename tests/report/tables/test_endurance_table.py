"""The table of long sessions, from records whose figures are known."""

import json

from machines import OLD

from atom_repro.records.provenance import file_hash
from atom_repro.records.record import Record
from atom_repro.report.tables.endurance import endurance


def record(tmp_path, name, clips, rise, **changes):
    return Record(
        tmp_path / name,
        {
            "stage": "endurance", "status": "ok", "scale": "tiny", "git": {"clean": True},
            "machine": OLD.to_dict(),
            "device": "cpu", "config": {"model": {"name": "m"}}, "samples": None, "detail": "",
            "values": {
                "arm": "resident/parallel", "precision": "fp32", "clips": clips,
                "captioned": clips - 2, "broken_named": ["a", "b"], "clips_per_s": 12.5,
                "slope_bytes_per_clip": {"mean": rise, "low": rise - 10, "high": rise + 10},
                "samples_after_warmup": 90,
            },
        }
        | changes,
    )  # fmt: skip


def test_the_longest_run_of_an_arm_is_shown(tmp_path):
    long = record(tmp_path, "long", 6000, 150.0)
    rows = endurance(
        [
            record(tmp_path, "older", 6000, 900.0),
            long,
            record(tmp_path, "short", 1000, 1500.0),
            record(tmp_path, "smoke", 9000, 1.0, scale="smoke"),
            record(tmp_path, "failed", 9000, 1.0, status="failed"),
        ]
    )
    cells = {r.column: r for r in rows}
    assert {r.row for r in rows} == {"host/m/resident/parallel/fp32"}
    assert {r.records for r in rows} == {long.run_id}
    slope = cells["toy/memory a clip, bytes"]
    assert (slope.ours, slope.low, slope.high) == (150.0, 140.0, 160.0)
    assert slope.spread == "95 % block bootstrap"
    assert cells["toy/broken clips named"].ours == 2
    assert endurance([]) == []


def test_growth_that_flattens_shows_in_its_thirds(tmp_path):
    made = record(tmp_path, "r1", 900, 150.0)
    lines = [{"clips": n, "anonymous_bytes": min(n, 600) * 1000} for n in range(100, 1000, 100)]
    path = made.folder / "samples.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made.data["samples"] = {"sha256": file_hash(path), "lines": len(lines)}
    cells = {r.column: r.ours for r in endurance([made])}
    assert cells["toy/clips 100 to 300, bytes a clip"] == 1000
    assert cells["toy/clips 700 to 900, bytes a clip"] == 0
