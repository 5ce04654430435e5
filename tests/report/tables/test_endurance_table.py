"""The table of long sessions, from records whose figures are known."""

from machines import OLD

from atom_repro.records.record import Record
from atom_repro.report.tables.endurance import endurance


def record(tmp_path, name, clips, rise, **changes):
    return Record(
        tmp_path / name,
        {
            "stage": "endurance", "status": "ok", "scale": "tiny", "git": {"clean": True},
            "machine": OLD.to_dict(),
            "device": "cpu", "config": {"model": {"name": "m"}},
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
    assert cells["toy/memory a clip, bytes"].ours == 150.0
    assert cells["toy/memory a clip, bytes"].spread == "95 % block bootstrap +140 to +160"
    assert cells["toy/broken clips named"].ours == 2
    assert endurance([]) == []
