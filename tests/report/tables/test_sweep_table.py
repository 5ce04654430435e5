"""The grid of appendix G from made-up records: what each column is, and what stays out."""

import csv
import io
import json

import pytest
from machines import OLD

from atom_repro.records.provenance import file_hash
from atom_repro.records.record import Record
from atom_repro.report.render import to_csv, to_markdown
from atom_repro.report.tables import sweep

# A score that rises to epoch 3 and falls again, validated twice an epoch of 10 steps.
RISE = [(5, 10.0), (10, 40.0), (20, 70.0), (30, 90.0), (40, 84.0)]


@pytest.fixture
def made(tmp_path):
    def make(run, *, rate=2e-5, batch=128, seed=0, curve=RISE, sweep="appendix_g", **data):
        folder = tmp_path / run
        folder.mkdir()
        lines = [{"step": step, "caption_loss": 1.0} for step, _ in curve]
        lines += [{"step": step, "validation_cider": cider} for step, cider in curve]
        path = folder / "samples.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        settings = data.pop("settings", {})
        body = {
            "stage": "finetune",
            "status": "ok",
            "scale": "tiny",
            "git": {"clean": True},
            "machine": OLD.to_dict(),
            "samples": {"sha256": file_hash(path), "lines": len(lines)},
            "values": {"epoch_steps": 10, "train_s": 60.0, "validation_s": 5.0},
            "config": {
                "sweep": sweep, "seed": seed, "model": {"name": "m"},
                "dataset": {"_target_": "atom_repro.data.toy.dataset.build"},
                "checkpoint": {"folder": run},
                "train": {"learning_rate": rate, "batch_size": batch, **settings},
            },
        }  # fmt: skip
        return Record(folder, body | data)

    return make


def cells(records):
    rows = sweep.build(records)
    texts = {"tables/appendix_g.md": to_markdown(sweep.NAME, rows)}
    return list(csv.DictReader(io.StringIO(to_csv([r for r in rows if r.column])))), texts


def by_column(rows, row):
    return {r["column"]: r for r in rows if r["row"] == row}


def test_a_point_says_its_best_epoch_and_what_was_lost_after_it(made):
    rows, _ = cells([made("r1")])
    point = by_column(rows, "learning rate 2e-05, batch 128")
    assert {c: float(r["ours"]) for c, r in point.items()} == {
        "toy/best CIDEr": 90, "toy/epoch of the best": 3, "toy/final CIDEr": 84,
        "toy/final epoch": 4, "toy/over-fitting (best - final)": 6, "toy/training": 60,
    }  # fmt: skip
    assert all(r["paper"] == "" and r["n"] == "1" and r["records"] == "r1" for r in rows)


def test_seeds_are_averaged_and_a_later_run_replaces_its_own_seed(made):
    low = [(step, cider - 20) for step, cider in RISE]
    rows, texts = cells([made("r1", curve=low), made("r2"), made("r3", seed=1, curve=low)])
    best = by_column(rows, "learning rate 2e-05, batch 128")["toy/best CIDEr"]
    assert (float(best["ours"]), best["n"], best["spread"]) == (80, "2", "min 70, max 90")
    assert "Records: r2, r3." in texts["tables/appendix_g.md"]


def test_what_is_no_point_of_this_grid_stays_out(made):
    out = [
        made("smoke", scale="smoke"),
        made("ordinary", sweep=""),
        made("other", sweep="mine"),
        made("failed", status="failed"),
    ]
    assert sweep.build(out) == []
    assert sweep.curves(out) is None
    # Points that ran with other settings are of an earlier grid.
    rows, _ = cells([made("old", batch=32, settings={"epochs": 2}), made("r1"), *out])
    assert {r["row"] for r in rows} == {"learning rate 2e-05, batch 128"}


def test_points_are_in_order_and_the_best_is_named(made):
    worse = [(step, cider / 2) for step, cider in RISE]
    records = [made("r1", rate=1e-3, batch=64), made("r2", rate=1e-6, curve=worse),
               made("r3", rate=1e-3, batch=32, curve=worse)]  # fmt: skip
    rows, texts = cells(records)
    assert list(dict.fromkeys(r["row"] for r in rows)) == [
        "learning rate 1e-06, batch 128", "learning rate 0.001, batch 32",
        "learning rate 0.001, batch 64",
    ]  # fmt: skip
    assert "Best validation CIDEr: learning rate 0.001, batch 64." in texts["tables/appendix_g.md"]


def test_an_uncommitted_tree_is_said(made):
    rows, texts = cells([made("r1"), made("r2", seed=1, git={"clean": False})])
    assert all("uncommitted tree" in r["note"] for r in rows)
    assert "uncommitted tree" in texts["tables/appendix_g.md"]


def test_the_figure_is_the_same_for_the_same_records(made):
    records = [made("r1"), made("r2", rate=1e-3), made("r3", batch=32)]
    figure = sweep.curves(records)
    assert figure == sweep.curves(records)
    for text in ("batch 32", "batch 128", "2e-05", "0.001", "validation CIDEr"):
        assert text in figure
