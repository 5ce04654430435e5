"""Two records are repeats of one cell, or two rows, or refused: none stands in for another."""

from dataclasses import replace
from itertools import count

import pytest
from machines import FIRST, SECOND

from atom_repro.records.record import EMULATED, Record, load_records, recording
from atom_repro.report.identity import newest, refusal, superseded, variant
from atom_repro.report.tables.left_out import left_out
from atom_repro.report.tables.quality import table1

SCORES = {"bleu_4": 1.0, "rouge_l": 1.0, "meteor": 1.0}
MODEL = {"name": "m", "_target_": "atom_repro.models.mplug2.build"}
NUMBERS = count(1)


def caption(tmp_path, *argv, recipe="int8", scale="tiny", machine=FIRST, **changes):
    """A record whose CIDEr is its number."""
    number = next(NUMBERS)
    body = {
        "stage": "caption", "status": "ok", "scale": scale, "device": "cpu", "weights": "w",
        "git": {"clean": True}, "machine": machine.to_dict(), "samples": None,
        "argv": ["caption.py", *argv], "config": {"model": MODEL, "generation": {"beams": 1}},
        "values": {"recipe": recipe, "precision": "int8", **SCORES, "cider": float(number)},
    }  # fmt: skip
    body["values"] |= changes.pop("values", {})
    return Record(tmp_path / f"r{number}", body | changes)


def cells(records):
    """CIDEr by row, scale and machine."""
    rows = [r for r in table1(records, []) if r.column == "toy/CIDEr"]
    found = {(r.row, r.scale, r.machine.fingerprint): r.ours for r in rows}
    assert len(found) == len(rows)
    return found


def test_recipes_beam_widths_scales_and_processors_have_rows_of_their_own(tmp_path):
    records = [
        caption(tmp_path),
        caption(tmp_path, recipe="int8-linear_dynamic-embedding_none"),
        caption(tmp_path, "generation.beams=1", "quant=int8", "paths.work=/elsewhere"),
        caption(tmp_path, scale="small"),
        caption(tmp_path, machine=SECOND),
        caption(tmp_path, values={"engine": "executorch"}),
    ]
    assert cells(records) == {
        key: record.values["cider"]
        for key, record in zip(
            [
                ("mPLUG2/int8", "tiny", FIRST.fingerprint),
                ("mPLUG2/int8-linear_dynamic-embedding_none", "tiny", FIRST.fingerprint),
                ("mPLUG2, generation.beams=1/int8", "tiny", FIRST.fingerprint),
                ("mPLUG2/int8", "small", FIRST.fingerprint),
                ("mPLUG2/int8", "tiny", SECOND.fingerprint),
                ("mPLUG2, engine executorch/int8", "tiny", FIRST.fingerprint),
            ],
            records,
            strict=True,
        )
    }


def test_of_equal_records_the_newest_stands(tmp_path):
    older, newer = caption(tmp_path), caption(tmp_path, "force=true", "paths.results=/there")
    assert list(newest([older, newer], "caption").values()) == [newer]


def test_texts_of_an_older_training_share_no_table_with_those_of_a_newer(tmp_path):
    elsewhere = caption(tmp_path, machine=SECOND, weights="trained:a")
    brought = caption(tmp_path, "generation.beams=1", weights="released:b")
    newer = caption(tmp_path, weights="trained:c", definitions={"training": 2})

    def shown(*records):
        return {record.run_id for record in newest(records, "caption").values()}

    assert shown(elsewhere, brought, newer) == {brought.run_id, newer.run_id}
    assert shown(elsewhere, brought) == {elsewhere.run_id, brought.run_id}
    assert elsewhere.run_id in superseded([elsewhere, brought, newer])


def test_what_a_training_was_told_is_in_the_row_of_what_it_made(tmp_path):
    training = caption(tmp_path, "train.max_steps=200", "train.threads=1", "seed=1")
    short = replace(caption(tmp_path), training=training)
    assert variant(short) == ", seed=1, train.max_steps=200"
    assert len(cells([caption(tmp_path), short])) == 2


def test_a_record_knows_the_training_of_its_weights(tmp_path):
    config = {"scale": {"name": "tiny"}}
    for stage, weights in (("finetune", "trained:1"), ("caption", "trained:1"), ("caption", "x")):
        with recording(
            tmp_path, FIRST, stage=stage, key="k" * 64, config=config, inputs={}, weights=weights
        ):
            pass
    records = load_records([tmp_path / "records" / FIRST.fingerprint])
    found = {(r.stage, r.data["weights"]): r.training and r.training.stage for r in records}
    assert found == {
        ("finetune", "trained:1"): None, ("caption", "trained:1"): "finetune",
        ("caption", "x"): None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "failed", "detail": "ValueError: odd"}, "failed: ValueError: odd"),
        ({"config": {"from_predictions": "p.jsonl"}}, "whose model is unknown"),
        ({"weights": "random"}, "texts of random weights"),
        ({"values": {"host": f"standin aarch64 {EMULATED}"}}, "times of an emulated processor"),
    ],
)
def test_what_fits_no_row_is_refused_with_its_reason(tmp_path, changes, reason):
    stands, refused = caption(tmp_path), caption(tmp_path, **changes)
    assert reason in refusal(refused)
    assert list(newest([stands, refused], "caption").values()) == [stands]
    (row,) = left_out([stands, refused])
    assert (row.row, reason in row.note) == (f"caption/{refused.run_id}", True)


def test_a_smoke_run_is_in_no_table_and_not_counted(tmp_path):
    smoke = caption(tmp_path, scale="smoke")
    assert refusal(smoke) == "a smoke run"
    assert left_out([smoke]) == []
    assert refusal(replace(smoke, preview=True)) is None
