"""Latency and training tables: devices and models apart, savings and shares of the limit."""

import json

import pytest

from atom_repro.records.provenance import file_hash
from atom_repro.records.record import Record
from atom_repro.report.latency_table import build, newest
from atom_repro.report.training_table import training_step

ARMS = {"reload_stage/sequential": 10.0, "resident/sequential": 9.0, "resident/parallel": 6.0}
RATES = {"read_bytes_per_s": 10e9, "fp32_operations_per_s": 50e9}


def record(folder, stage, samples=(), **changes):
    folder.mkdir(parents=True)
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in samples))
    return Record(
        folder,
        {
            "stage": stage, "status": "ok", "scale": "systems", "git": {"clean": True},
            "device": "cpu", "weights": "random",
            "config": {"model": {"name": "mplug2plus"}, "pipeline": {"name": "retrieval"}},
            "samples": {"sha256": file_hash(path), "lines": len(samples)},
        }
        | changes,
    )  # fmt: skip


def latency(folder, **changes):
    samples = [
        {"kind": "prompt", "arm": arm, "repeat": repeat, "warmup": repeat == 0, "prompt": 0,
         "end_to_end_s": 99.0 if repeat == 0 else seconds, "overlap_s": 0.0, "residual_s": 0.0,
         "stages_s": {"load": seconds / 2, "encode": 4.0, "caption": 2.0, "embed": 0.2,
                      "rank": 0.1}}
        for arm, seconds in ARMS.items() for repeat in range(2)
    ]  # fmt: skip
    values = {
        "precision": "fp32", "clips": 2, "prompts": 1, "arms": list(ARMS),
        "limits_before": RATES, "limits_after": RATES | {"read_bytes_per_s": 12e9},
        "least_s_per_clip": {"encode": 1.0, "caption": 0.25},
    }  # fmt: skip
    return record(folder, "latency", samples, **({"values": values} | changes))


def cells(rows):
    return {(r.row, r.column): r for r in rows}


def test_a_saving_is_of_medians_and_stands_beside_its_seconds(tmp_path):
    found = cells(build([latency(tmp_path / "r1")], [])["table03"])
    atom = "host/mplug2plus/fp32/atom"
    assert found[atom, "systems/retrieval"].ours == 6.0
    assert found[atom, "systems/retrieval_saving"].ours == pytest.approx(40)
    assert found[atom, "systems/load_saving"].ours == pytest.approx(40)
    assert found[atom, "systems/retrieval"].note == "random weights; 2 clips"
    assert ("host/mplug2plus/fp32/baseline", "systems/retrieval_saving") not in found


def test_a_stage_is_held_against_the_higher_rate_of_the_module_alone(tmp_path):
    found = cells(build([latency(tmp_path / "r1")], [])["limits"])
    row = "host/mplug2plus/retrieval/fp32"
    assert found[row, "systems/read_bytes, 1e9/s"].ours == 12
    assert found[row, "systems/encode"].ours == 2.0  # a clip, of two
    assert found[row, "systems/encode, share of the limit"].ours == 50
    assert found[row, "systems/caption, share of the limit"].ours == 25


def test_a_run_without_limits_has_no_row_of_them(tmp_path):
    plain = latency(tmp_path / "r1")
    del plain.data["values"]["least_s_per_clip"]
    assert build([plain], [])["limits"] == []


def test_devices_models_and_scales_stand_apart_and_the_newest_wins(tmp_path):
    gpu = "cuda: NVIDIA H100"
    records = [
        latency(tmp_path / "r1"),
        latency(tmp_path / "r2"),
        latency(tmp_path / "r3", device=gpu),
        latency(tmp_path / "r4", scale="smoke"),
        latency(tmp_path / "r5", scale="tiny"),
        latency(tmp_path / "r6", status="oom"),
    ]
    assert [r.run_id for r in newest(records)] == ["r5", "r3", "r2"]
    rows = {r.row for r in build(records, [])["arms"]}
    assert f"{gpu}/mplug2plus/retrieval/fp32/resident/parallel" in rows


def trial(folder, clips, **changes):
    values = {
        "precision": "bf16", "clips": clips, "step_memory_estimated_bytes": 3 * 2**20,
        "step_memory_measured_bytes": 2**20, "step_s": 0.5, "tokens_per_s": 240.0 * clips,
        "share_of_limit": 0.4,
    }  # fmt: skip
    samples = [{"step": n, "seconds": s, "warmup": n == 0} for n, s in enumerate((9.0, 0.4, 0.6))]
    return record(folder, "training_step", samples, **({"values": values} | changes))


def test_steps_by_size_with_the_one_that_does_not_fit(tmp_path):
    lacking = {"precision": "bf16", "clips": 2, "step_memory_estimated_bytes": 6 * 2**20}
    rows = training_step(
        [
            trial(tmp_path / "r1", 1),
            trial(tmp_path / "r2", 2, status="oom", values=lacking),
            trial(tmp_path / "r3", 4, scale="smoke"),
            trial(tmp_path / "r4", 4, status="failed"),
        ]
    )
    found = cells(rows)
    one, two = (f"host/mplug2plus/bf16/{clips} clips" for clips in (1, 2))
    assert {r.row for r in rows} == {one, two}
    assert found[one, "tokens/s"].ours == 240
    assert found[one, "step"].spread == "min 0.4, max 0.6"
    assert found[one, "share of the multiply rate"].ours == 40
    assert found[two, "memory estimated, MiB"].ours == 6
    assert found[two, "memory estimated, MiB"].note == "random weights; no memory"
    assert (two, "step") not in found
