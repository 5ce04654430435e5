"""What is committed holds together: records load and are whole, tables follow from them."""

from pathlib import Path

import pytest

from atom_repro.records.record import load_records
from atom_repro.report import catalogue
from atom_repro.report.paper import load_cells

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


def test_tables_and_figures_are_what_the_records_give(records):
    machine = records[0].data["machine"]
    said = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
    paper = list(load_cells(RESULTS / "paper"))
    for name, text in catalogue.texts(records, paper, said + machine["os_release"]).items():
        if name.startswith("tables/"):
            assert (RESULTS / name).read_text() == text, name
        else:
            assert (RESULTS / name).is_file(), name


def test_no_quality_figure_stands_for_random_weights(records):
    for record in records:
        if record.data["weights"] == "random":
            assert record.stage not in ("caption", "retrieval")
