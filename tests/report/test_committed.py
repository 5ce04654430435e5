"""What is committed holds together: records load and are whole, tables follow from them."""

from pathlib import Path

import pytest

from atom_repro.records.record import load_records
from atom_repro.report import oracle_tables
from atom_repro.report.files import to_csv
from atom_repro.report.paper import load_cells
from atom_repro.report.tables import build_all

RESULTS = Path(__file__).resolve().parents[2] / "results"
(REFERENCE,) = (RESULTS / "reference_machines.txt").read_text().split()


@pytest.fixture(scope="module")
def records():
    return load_records(RESULTS / "records" / REFERENCE)


def test_every_record_is_of_committed_code_and_its_samples_are_whole(records):
    assert records
    for record in records:
        assert record.data["git"]["clean"], record.folder
        assert record.data["machine"]["fingerprint"] == REFERENCE
        assert record.data["scale"] != "smoke"
        assert len(record.samples()) == (record.data["samples"] or {"lines": 0})["lines"]


def test_tables_are_what_the_records_give(records):
    paper = list(load_cells(RESULTS / "paper"))
    for name, rows in {**build_all(records, paper), **oracle_tables.build(records, paper)}.items():
        assert (RESULTS / f"tables/{name}.csv").read_text() == to_csv(rows), name


def test_no_quality_figure_stands_for_random_weights(records):
    for record in records:
        if record.data["weights"] == "random":
            assert record.stage not in ("caption", "retrieval")
