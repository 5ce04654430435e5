"""Tables are pure: same records, same bytes; smoke, failed and mixed records stay out."""

import csv
import io
import json

import pytest
from machines import FIRST, OLD, SECOND

from atom_repro.records.record import Record
from atom_repro.report.identity import newest
from atom_repro.report.paper import Cell
from atom_repro.report.render import to_csv, to_markdown
from atom_repro.report.tables import latency as latency_tables
from atom_repro.report.tables.quality import build_all

SCORES = {"bleu_4": 50.0, "rouge_l": 70.0, "meteor": 40.0, "cider": 250.0}
PAPER = [
    Cell("table01", row, "MSR-VTT/CIDEr", value, "point", "higher", "5.2", "")
    for row, value in (("mPLUG2+/fp32", "83.1"), ("mPLUG2+/int8", "82.5"))
]


def record(tmp_path, run_id, *, stage="caption", precision="fp32", samples=(), clean=True, **data):
    folder = tmp_path / stage / run_id
    folder.mkdir(parents=True)
    body = {
        "stage": stage,
        "status": "ok",
        "scale": "tiny",
        "device": "cpu",
        "git": {"clean": clean},
        "machine": OLD.to_dict(),
        "config": {"model": {"name": "m", "_target_": "atom_repro.models.mplug2plus.build"}},
        "samples": None,
        "values": {"precision": precision, **SCORES, "videos": 300,
                   "floor_constant_sentence": SCORES, "floor_next_video": SCORES,
                   "people_leave_one_out": SCORES},
    }  # fmt: skip
    body["values"] |= data.pop("values", {})
    body |= data
    if samples:
        from atom_repro.records.provenance import file_hash

        path = folder / "samples.jsonl"
        path.write_text("".join(json.dumps(s) + "\n" for s in samples))
        body["samples"] = {"sha256": file_hash(path), "lines": len(samples)}
    return Record(folder, body)


def rows(built, table):
    return list(csv.DictReader(io.StringIO(to_csv(built[table]))))


def test_ours_and_the_papers_never_share_a_column(tmp_path):
    found = rows(build_all([record(tmp_path, "r1")], PAPER), "table01")
    for row in found:
        assert bool(row["ours"]) != bool(row["paper"])
        assert row["column"].startswith("toy/") == bool(row["ours"])
        assert row["records"] == ("r1" if row["ours"] else "")
    assert {r["row"] for r in found if r["ours"]} >= {"mPLUG2+/fp32", "floor/constant sentence"}
    assert all("needs weights and videos" in r["note"] for r in found if r["paper"])


def test_smoke_and_failed_records_stay_out_and_the_newest_wins(tmp_path):
    records = [
        record(tmp_path, "r1"),
        record(tmp_path, "r2", values={"cider": 260.0}),
        record(tmp_path, "r3", scale="smoke", values={"cider": 1.0}),
        record(tmp_path, "r4", status="failed", values={"cider": 2.0}),
        record(tmp_path, "r5", config={"from_predictions": "p.jsonl"}, values={"cider": 3.0}),
    ]
    assert [r.run_id for r in newest(records, "caption").values()] == ["r2"]
    assert build_all(records[2:], PAPER)["table01"] == build_all([], PAPER)["table01"]


def test_an_uncommitted_tree_is_said(tmp_path):
    found = rows(build_all([record(tmp_path, "r1", clean=False)], PAPER), "table01")
    assert all("uncommitted tree" in r["note"] for r in found if r["ours"])


def test_the_papers_int8_drop_comes_from_its_cells(tmp_path):
    found = rows(build_all([], PAPER), "int8_cost")
    (drop,) = [r for r in found if r["column"] == "MSR-VTT/CIDEr"]
    assert float(drop["paper"]) == pytest.approx(-0.6)


def prompts(arm, seconds):
    return [
        {"kind": "prompt", "arm": arm, "repeat": i, "warmup": i == 0, "prompt": 0,
         "end_to_end_s": s, "overlap_s": 0.0, "residual_s": 0.1,
         "stages_s": {"load": s / 2, "encode": 0.5, "caption": 1.0, "embed": 0.2, "rank": 0.1}}
        for i, s in enumerate(seconds)
    ]  # fmt: skip


def latency(tmp_path, run_id, pipeline, arms, samples):
    model = {"name": "m", "_target_": "atom_repro.models.mplug2plus.build"}
    return record(
        tmp_path, run_id, stage="latency", samples=samples,
        config={"model": model, "pipeline": {"name": pipeline}},
        values={"clips": 5, "prompts": 1, "arms": arms},
    )  # fmt: skip


def test_table3_takes_medians_without_the_warmup(tmp_path):
    arms = ["reload_stage/sequential", "resident/parallel"]
    searched = latency(
        tmp_path,
        "r1",
        "retrieval",
        arms,
        prompts(arms[0], [99, 4, 6, 5]) + prompts(arms[1], [99, 3, 2, 4]),
    )
    written = prompts(arms[1], [99, 8, 7, 9])
    for prompt in written:
        prompt["stages_s"]["script"] = 0.5
    assembled = latency(tmp_path, "r2", "assembly", arms[1:], written)
    built = latency_tables.build([searched, assembled], [])
    found = {(r["row"], r["column"]): r for r in rows(built, "table03")}
    assert float(found["host/m/fp32/baseline", "tiny/retrieval"]["ours"]) == 5
    assert float(found["host/m/fp32/atom", "tiny/retrieval"]["ours"]) == 3
    assert float(found["host/m/fp32/atom", "tiny/encode"]["ours"]) == pytest.approx(0.1)
    assert found["host/m/fp32/atom", "tiny/retrieval"]["n"] == "3"
    assert float(found["host/m/fp32/atom", "tiny/assembly"]["ours"]) == 8
    assert found["host/m/fp32/atom", "tiny/assembly"]["records"] == "r2"
    assert ("host/m/fp32/baseline", "tiny/assembly") not in found


def test_models_and_data_sets_have_rows_and_columns_of_their_own(tmp_path):
    other = {"name": "m", "_target_": "atom_repro.models.mplug2.build"}
    records = [
        record(tmp_path, "r1"),
        record(tmp_path, "r2", config={"model": other}),
        record(tmp_path, "r3", protocol="msrvtt/caption-full", scale="paper"),
        record(tmp_path, "r4", protocol="msvd/caption", values={"label": "reduced gallery 9/10"}),
    ]
    found = [r for r in rows(build_all(records, PAPER), "table01") if r["ours"]]
    by_record = {
        r["records"]: (r["row"], r["column"])
        for r in found
        if (r["column"].endswith("CIDEr") and r["row"].endswith("PLUG2/fp32"))
        or (r["column"].endswith("CIDEr") and r["row"].endswith("PLUG2+/fp32"))
    }
    assert by_record == {
        "r1": ("mPLUG2+/fp32", "toy/CIDEr"),
        "r2": ("mPLUG2/fp32", "toy/CIDEr"),
        "r3": ("mPLUG2+/fp32", "MSR-VTT/CIDEr"),
        "r4": ("mPLUG2+/fp32", "msvd/caption (reduced gallery 9/10)/CIDEr"),
    }


def test_same_records_same_bytes(tmp_path):
    records = [record(tmp_path, "r1")]
    for name, built in build_all(records, PAPER).items():
        again = build_all(list(records), list(PAPER))[name]
        assert to_csv(built) == to_csv(again)
        assert to_markdown(name, built) == to_markdown(name, again)


def test_a_gallery_is_counted_in_videos_and_n_in_queries(tmp_path):
    scores = {"r1": 50.0, "r5": 70.0, "r10": 80.0, "median_rank": 1.0,
              "queries": 1000, "index_size": 670}  # fmt: skip
    values = {"precision": "fp32", "model": scores, "ceiling_true_caption": scores,
              "floor_next_video": scores}  # fmt: skip
    found = [
        r
        for r in build_all([record(tmp_path, "r1", stage="retrieval", values=values)], [])[
            "table02"
        ]
        if r.ours is not None
    ]
    assert {r.note for r in found} == {"gallery of 670"}
    assert {r.n for r in found} == {1000}


def test_two_machines_have_a_section_each(tmp_path):
    records = [
        record(tmp_path, "r1", machine=FIRST.to_dict()),
        record(tmp_path, "r2", precision="int8", machine=SECOND.to_dict()),
    ]
    text = to_markdown("table01", build_all(records, [])["table01"])
    first, second = text.split("\n## ")[1:]
    assert first.startswith(f"Scale tiny, {FIRST}\n") and second.startswith(
        f"Scale tiny, {SECOND}\n"
    )
    assert "mPLUG2+/fp32" in first and "mPLUG2+/int8" not in first
    assert "mPLUG2+/int8" in second and "Records: r2." in second
