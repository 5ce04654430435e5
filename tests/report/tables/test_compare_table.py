"""Comparisons: pairs of one round, bounds from the run's own rates, memory, agreement."""

import json

import pytest
from machines import OLD

from atom_repro.datatypes import CaptionWork
from atom_repro.records.provenance import file_hash
from atom_repro.records.record import Record
from atom_repro.report.identity import Identity
from atom_repro.report.tables.compare import compare

SLOW, FAST = "eager_fp32", "executorch_int8"
RATES = {"read_bytes_per_s": 10e9, "fp32_operations_per_s": 50e9, "int8_operations_per_s": 100e9}
# 2 s of int8 and 1 s of fp32 products, 0.5 s of prefill; a step reads 0.1 s, or computes 0.05 s.
WORK = {
    "encode_operations": int(250e9), "encode_fp32_operations": int(50e9),
    "prefill_operations": int(50e9), "prefill_fp32_operations": 0,
    "step_bytes": int(1e9), "step_operations": int(5e9), "steps": 10,
}  # fmt: skip


def samples(name, seconds, memory):
    for repeat in range(7):
        taken = seconds * (1 + repeat / 100)
        yield {"kind": "prompt", "variant": name, "repeat": repeat, "warmup": repeat == 0,
               "prompt": 0, "end_to_end_s": taken,
               "stages_s": {"load": 1.0, "encode": taken / 2, "caption": taken / 4},
               "session_memory_peak_bytes": memory}  # fmt: skip
        for stage, end, read, tokens in (
            ("load", 1.0, int(2e9), 0), ("caption", 3.0, 0, 11), ("script", 5.0, 0, 6),
            ("script", seconds + 99, 0, 500),  # of the next prompt
        ):  # fmt: skip
            yield {"kind": "span", "variant": name, "repeat": repeat, "warmup": repeat == 0,
                   "stage": stage, "end_s": end, "bytes_read": read, "tokens": tokens}  # fmt: skip


def by_variant(rows):
    """Cells by variant and column."""
    return {(r.row.rpartition("/")[2].split(" ")[0], r.column.partition("/")[2]): r for r in rows}


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "samples.jsonl"
    memory = {"anonymous": 3 * 2**30, "file": 2**30}
    lines = [*samples(SLOW, 60.0, memory), *samples(FAST, 20.0, memory)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    variant = {
        "arm": "resident/parallel", "module_bytes": {"encoder": 2**20, "decoder": 2**21},
        "least_work_per_clip": WORK, "captions": 5, "decode_batch": 1, "weights": "trained:1",
    }  # fmt: skip
    return Record(
        tmp_path,
        {
            "stage": "compare", "status": "ok", "scale": "systems", "git": {"clean": True},
            "device": "cpu", "weights": "random", "machine": OLD.to_dict(),
            "definitions": {"load": 2},
            "config": {"model": {"name": "mplug2plus"}, "pipeline": {"name": "retrieval"}},
            "samples": {"sha256": file_hash(path), "lines": len(lines)},
            "values": {
                "clips": 2,
                "limits_before": RATES | {"read_bytes_per_s": 8e9}, "limits_after": RATES,
                "variants": {
                    SLOW: variant | {
                        "overrides": ["engine=eager"], "arithmetic": "fp32", "captions_of_first": 5
                    },
                    FAST: variant | {
                        "overrides": ["engine=executorch"], "arithmetic": "int8",
                        "captions_of_first": 4,
                    },
                },
            },
        },
    )  # fmt: skip


def test_a_variant_stands_beside_the_first_by_pairs_of_a_round(record):
    rows = by_variant(compare([record]))
    prompt = rows[FAST, "prompt 1"]
    assert (prompt.ours, prompt.n) == (pytest.approx(20.0 * 1.035), 6)  # the warm-up is not counted
    ratio = rows[FAST, "prompt 1, times as fast"]
    assert (ratio.ours, ratio.low, ratio.high) == pytest.approx((3.0, 3.0, 3.0))
    assert ratio.spread == "95 % interval of the median"
    assert rows[FAST, "same captions"].ours == 80
    assert (SLOW, "same captions") not in rows
    assert rows[FAST, "anonymous, MiB"].ours == 3 * 1024
    assert rows[FAST, "files of its modules, MiB"].ours == 3
    assert (FAST, "script") not in rows  # a stage that took no time has no cell


def test_the_bound_is_of_each_operation_at_its_own_rate(record):
    rows = by_variant(compare([record]))
    # Two clips of 2 + 1 + 0.5 + 1 s; 0.2 s to read the modules, 5 steps of a script at 0.1 s.
    assert rows[FAST, "least"].ours == pytest.approx(2 * 4.5 + 0.2 + 0.5)
    # In fp32 products take twice as long: 4 + 1 and 1 s.
    assert rows[SLOW, "least"].ours == pytest.approx(2 * (5 + 1 + 1) + 0.2 + 0.5)
    assert rows[FAST, "measured / least"].ours == pytest.approx(20.7 / 9.7)


def test_clips_that_share_a_step_share_what_it_reads_and_not_what_it_computes():
    work = CaptionWork(**WORK)
    alone, two, many = (work.lower_bound_s(RATES, "int8", n)["caption"] for n in (1, 2, 8))
    assert (alone, two, many) == pytest.approx((1.5, 1.0, 1.0))


def test_texts_of_random_weights_are_not_compared(record):
    for variant in record.values["variants"].values():
        variant["weights"] = "random"
    assert not [r for r in compare([record]) if "captions" in r.column]


def test_other_variants_are_another_measurement(record):
    other = {**record.data, "values": dict(record.values)}
    other["values"]["variants"] = {SLOW: record.values["variants"][SLOW]}
    assert Identity.of(Record(record.folder, other)) != Identity.of(record)


def test_of_two_records_with_a_variant_the_quieter_has_its_row(record):
    def loaded(share):
        load = {"seconds": 9.0, "others_share": share, "steal_share": 0.0}
        return {"load": {"start": load, "end": load}}

    only_slow = {**record.values, "variants": {SLOW: record.values["variants"][SLOW]}}
    quiet = Record(record.folder, {**record.data, **loaded(0.0)})
    noisy = Record(record.folder, {**record.data, **loaded(0.5), "values": only_slow})
    for both in ([quiet, noisy], [noisy, quiet]):
        rows = compare(both)
        assert len({(r.row, r.column) for r in rows}) == len(rows)  # a cell stands once
        assert {r.load for r in rows} == {"quiet"}
        assert {name for name, _ in by_variant(rows)} == {SLOW, FAST}
