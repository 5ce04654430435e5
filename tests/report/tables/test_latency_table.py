"""Latency and training tables: devices and models apart, savings and shares of the limit."""

import json

import pytest
from machines import OLD

from atom_repro.records.provenance import file_hash
from atom_repro.records.record import Record
from atom_repro.report.cells import median_interval
from atom_repro.report.render import cell_text
from atom_repro.report.tables.latency import build, newest, table3
from atom_repro.report.tables.training_step import contention, training_step

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
            "device": "cpu", "weights": "random", "machine": OLD.to_dict(),
            "definitions": {"load": 2},
            "config": {"model": {"name": "mplug2plus"}, "pipeline": {"name": "retrieval"}},
            "samples": {"sha256": file_hash(path), "lines": len(samples)},
        }
        | changes,
    )  # fmt: skip


def spans(arm, repeat, *loads):
    return [
        {"kind": "span", "stage": "load", "arm": arm, "repeat": repeat, "warmup": repeat == 0,
         "start_s": start, "end_s": end}
        for start, end in loads
    ]  # fmt: skip


def latency(folder, pipeline="retrieval", **changes):
    samples = [
        {"kind": "prompt", "arm": arm, "repeat": repeat, "warmup": repeat == 0, "prompt": 0,
         "end_to_end_s": 99.0 if repeat == 0 else seconds + repeat / 10, "overlap_s": 0.0,
         "residual_s": 0.0,
         "stages_s": {"load": seconds / 2, "encode": 4.0, "caption": 2.0, "embed": 0.2,
                      "rank": 0.1, **({"script": 0.5} if pipeline == "assembly" else {})}}
        for arm, seconds in ARMS.items() for repeat in range(4)
    ]  # fmt: skip
    for repeat in range(4):
        # One after the other, and twice; both at once; and one of the next prompt.
        samples += spans("reload_stage/sequential", repeat, (0, 1), (1, 4), (5, 8))
        samples += spans("resident/parallel", repeat, (0, 1), (0.5, 3.5), (50, 60))
    values = {
        "precision": "fp32", "clips": 2, "prompts": 1, "arms": list(ARMS),
        "limits_before": RATES, "limits_after": RATES | {"read_bytes_per_s": 12e9},
        "least_work_per_clip": {
            "encode_operations": 50e9, "prefill_operations": 5e9, "step_bytes": 600e6, "steps": 10,
        },
    }  # fmt: skip
    config = {"model": {"name": "mplug2plus"}, "pipeline": {"name": pipeline}}
    return record(folder, "latency", samples, **({"values": values, "config": config} | changes))


def cells(rows):
    return {(r.row, r.column): r for r in rows}


BEFORE, AFTER = "host/mplug2plus/fp32/baseline", "host/mplug2plus/fp32/atom"


def test_a_saving_is_the_median_of_pairs_which_are_listed_where_they_are_few(tmp_path):
    found = cells(build([latency(tmp_path / "r1")], [])["table03"])
    assert found[AFTER, "systems/retrieval"].ours == pytest.approx(6.2)
    saving = found[AFTER, "systems/retrieval_saving"]
    assert saving.ours == pytest.approx(100 * (1 - 6.2 / 10.2))  # that of the second of three
    assert (saving.n, saving.low, saving.spread) == (3, None, "pairs +38.8, +39.2, +39.6")
    assert cell_text(saving, with_n=True) == "+39.2 (pairs +38.8, +39.2, +39.6), n 3"
    assert found[AFTER, "systems/retrieval"].note == (
        "random weights; 2 clips, encode and caption of one of them; medians over rounds, of one "
        "prompt; a load ends when the module can be called (definition 2)"
    )
    assert (BEFORE, "systems/retrieval_saving") not in found
    reuse = found[AFTER, "systems/retrieval_saving, reuse alone"]
    assert reuse.ours == pytest.approx(100 * (1 - 9.2 / 10.2))
    assert (AFTER, "systems/retrieval_saving, overlap alone") not in found  # no such arm is there
    found = cells(build([latency(tmp_path / "r9")], [])["arms"])
    note = found["host/mplug2plus/retrieval/fp32/resident/parallel", "systems/prompt 1"].note
    assert "in the warm-up round reload_stage/sequential came first and took 5.0 s" in note
    assert (AFTER, "systems/load") not in found  # nothing is read twice in a search


def test_loading_is_the_time_that_passes_in_an_assembly(tmp_path):
    found = cells(build([latency(tmp_path / "r1", "assembly")], [])["table03"])
    assert found[BEFORE, "systems/load"].ours == pytest.approx(7.0)
    assert found[AFTER, "systems/load"].ours == pytest.approx(3.5)
    assert found[AFTER, "systems/load_saving"].ours == pytest.approx(50)
    assert found[AFTER, "systems/encode"].ours == 2.0  # no search is on record
    both = [latency(tmp_path / "r2", "assembly"), latency(tmp_path / "r3")]
    both = cells(build(both, [])["table03"])
    assert both[AFTER, "systems/encode"].records == "r3"
    assert both[AFTER, "systems/load"].records == "r2"


def test_a_stage_is_held_against_the_rates_before_and_after(tmp_path):
    found = cells(build([latency(tmp_path / "r1")], [])["limits"])
    row = "host/mplug2plus/retrieval/fp32"
    assert found[row, "systems/encode, measured"].ours == 2.0  # a clip, of two
    for when, bytes_per_s, caption in (("before", 10, 0.7), ("after", 12, 0.6)):
        grid = found[row, f"systems/read bytes {when}"]
        assert (grid.ours, grid.unit, grid.grid) == (bytes_per_s, "GB/s", f"rates {when}")
        assert found[row, f"systems/encode, share of the limit {when}"].ours == 50
        share = found[row, f"systems/caption, share of the limit {when}"]
        assert share.ours == pytest.approx(100 * caption / 1.0)


def test_a_run_without_limits_has_no_row_of_them(tmp_path):
    plain = latency(tmp_path / "r1")
    del plain.data["values"]["least_work_per_clip"]
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
    held = [s | {"session_device_peak_bytes": 5 * 2**20} for s in records[0].samples()]
    (gpu_row,) = {
        (r.ours, r.unit)
        for r in build([latency_with(tmp_path / "r7", held)], [])["arms"]
        if r.column == "systems/device memory, MiB"
    }
    assert gpu_row == (5, "MiB")
    rows = {r.row for r in build(records, [])["arms"]}
    assert f"{gpu}/mplug2plus/retrieval/fp32/resident/parallel" in rows


def latency_with(folder, samples):
    made = latency(folder)
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in samples))
    made.data["samples"] = {"sha256": file_hash(path), "lines": len(samples)}
    return made


def trial(folder, clips, **changes):
    values = {
        "precision": "bf16", "clips": clips, "step_memory_estimated_bytes": 3 * 2**20,
        "step_memory_measured_bytes": 2**20, "step_s": 0.5, "tokens_per_s": 240.0 * clips,
        "share_of_limit": 0.4,
    }  # fmt: skip
    samples = [{"step": n, "seconds": s, "warmup": n == 0} for n, s in enumerate((9.0, 0.4, 0.6))]
    train = {"captions_per_clip": 1, "threads": 2, "gradient_checkpointing": False}
    config = {
        "model": {"name": "mplug2plus"}, "train": train, "caption_tokens": 23, "most_clips": 8,
    }  # fmt: skip
    made = {"values": values, "config": config}
    return record(folder, "training_step", samples, **(made | changes))


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
    kind = "host/mplug2plus/bf16, 1 x 23 tokens a clip, 2 threads"
    one, two = f"{kind}/1 clips", f"{kind}/2 clips, no memory"
    assert {r.row for r in rows} == {one, two}
    assert found[one, "tokens/s"].ours == 240
    assert found[one, "step"].spread == "min 0.4, max 0.6"
    assert found[one, "share of the multiply rate"].ours == 40
    assert found[two, "tensors, MiB"].ours == 6
    assert "memory did not end it" not in found[one, "step"].note
    found = cells(training_step([trial(tmp_path / "r5", 8)]))
    assert found[f"{kind}/8 clips", "step"].note.endswith("memory did not end it")
    assert (two, "step") not in found


def test_steps_beside_busy_processes_are_held_against_a_fair_share(tmp_path):
    samples = [
        {"workers": workers, "busy": busy, "round": 0, "step": step, "seconds": seconds,
         "warmup": step == 0}
        for workers, busy, times in ((1, 0, (9.0, 1.0, 1.0)), (1, 2, (9.0, 4.0, 4.0)),
                                     (2, 0, (9.0, 0.5, 0.5)), (2, 2, (9.0, 1.0, 1.0)))
        for step, seconds in enumerate(times)
    ]  # fmt: skip
    values = {"model": "tiny", "cores": 2}
    made = record(tmp_path / "r1", "contention", samples, values=values, config={}, scale="tiny")
    found = cells(contention([made]))
    assert found["host/tiny/1 workers/2 busy", "step"].ours == 4.0
    assert found["host/tiny/1 workers/2 busy", "speed"].ours == 25.0
    assert found["host/tiny/1 workers/2 busy", "of a fair share"].ours == 50.0
    assert found["host/tiny/2 workers/2 busy", "of a fair share"].ours == 100.0
    assert found["host/tiny/2 workers/0 busy", "of a fair share"].ours == 100.0


def test_another_kind_of_training_is_another_row(tmp_path):
    plain, adapted = trial(tmp_path / "r1", 1), trial(tmp_path / "r2", 1, device="cuda: H")
    adapted.data["config"]["train"] |= {
        "gradient_checkpointing": True, "components": {"decoder": "lora"},
    }  # fmt: skip
    rows = {r.row for r in training_step([plain, adapted])}
    assert (
        "cuda: H/mplug2plus/bf16, 1 x 23 tokens a clip, blocks recomputed, decoder lora/1 clips"
        in rows
    )
    assert len(rows) == 2


def test_a_saving_of_six_pairs_has_an_interval_and_may_be_none(tmp_path):
    samples = [
        {"kind": "prompt", "arm": arm, "repeat": repeat, "warmup": repeat == 0, "prompt": 0,
         "end_to_end_s": seconds, "overlap_s": 0.0, "residual_s": 0.0,
         "stages_s": {"encode": 4.0, "caption": 2.0, "embed": 0.2, "rank": 0.1}}
        for repeat, pair in enumerate([(99, 1), *((10, after) for after in (9, 8, 7, 9, 8, 11))])
        for arm, seconds in zip(("reload_stage/sequential", "resident/parallel"), pair, strict=True)
    ]  # fmt: skip
    found = cells(table3([latency_with(tmp_path / "r1", samples)]))
    saving = found[AFTER, "systems/retrieval_saving"]
    assert (saving.ours, saving.low, saving.high) == pytest.approx((15, -10, 30))
    assert cell_text(saving, with_n=True) == "no difference: +15.0 (-10.0 to +30.0), n 6"


def test_the_interval_of_a_median_follows_from_the_binomial_alone():
    assert median_interval([1, 2, 3, 4, 5]) is None  # 2 / 2**5 is above 5 %
    assert median_interval([6, 5, 4, 3, 2, 1]) == (1, 6)
    assert median_interval(range(1, 10)) == (2, 8)  # 2 * (1 + 9) / 2**9 is below 5 %
    assert median_interval(range(1, 21)) == (6, 15)
