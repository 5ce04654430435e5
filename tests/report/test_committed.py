"""What is committed holds together: records load and are whole, tables follow from them."""

import json
import subprocess
from pathlib import Path

import pytest

from atom_repro.records.record import MEANINGS, MIGRATION, load_records
from atom_repro.records.reference import reference_machines
from atom_repro.report import catalogue
from atom_repro.report.paper import load_cells
from atom_repro.report.tables import family, load_words

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
REFERENCES = reference_machines(RESULTS)
OLD = "cee81488169f"


@pytest.fixture(scope="module")
def records():
    return load_records([RESULTS / "records" / name for name in REFERENCES])


def test_every_record_is_of_committed_code_and_its_samples_are_whole(records):
    assert records
    for record in records:
        assert record.clean, record.folder
        assert record.machine.fingerprint == record.folder.parents[1].name
        assert record.data["scale"] != "smoke"
        assert len(record.samples()) == (record.data["samples"] or {"lines": 0})["lines"]


def test_every_committed_record_is_read_and_belongs_to_a_reference(records):
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "results/records"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    committed = {Path(p).parent.name for p in done.stdout.split() if p.endswith("/record.json")}
    assert committed == {r.run_id for r in records}


def test_git_looks_at_the_records_of_references_alone():
    lines = (ROOT / ".gitignore").read_text().splitlines()
    assert "results/records/*" in lines
    kept = [line for line in lines if line.startswith("!results/records/")]
    assert kept == [f"!results/records/{name}/" for name in REFERENCES]


def test_records_of_before_the_family_was_recorded_stay_readable_and_apart(records):
    old = [r for r in records if r.folder.parents[1].name == OLD]
    assert len(old) == 84  # none joins them: no machine has their fingerprint any more
    for record in old:
        assert record.machine.processor == "AMD EPYC, family not recorded"
        assert load_words(record) == "not recorded"
    assert {family(r) for r in old if r.stage == "caption"} == {"mPLUG2+", "mPLUG2"}
    assert {r.component("pipeline") for r in old if r.stage == "latency"} == {
        "pipelines.clip_search", "pipelines.assembly",
    }  # fmt: skip


def test_the_migration_covers_every_older_record(records):
    migration = json.loads((RESULTS / "records" / OLD / MIGRATION).read_text())
    folders = sorted((RESULTS / "records" / OLD).glob("*/*"))
    written = {f.name: json.loads((f / "record.json").read_text()) for f in folders}
    assert migration["keys"].keys() == {d["key"] for d in written.values()}
    # Two runs of one key are runs of one key still, and no two keys became one.
    assert len(set(migration["keys"].values())) == len(migration["keys"])
    for record in records:
        if record.folder.parents[1].name == OLD:
            assert record.key == migration["keys"][written[record.run_id]["key"]]
    loading = {n for n, d in written.items() if d["stage"] in ("latency", "sessions", "endurance")}
    assert migration["definitions"].keys() == loading
    assert {d["load"] for d in migration["definitions"].values()} == set(MEANINGS["load"])


def test_tables_and_figures_are_what_the_records_give(records):
    paper = list(load_cells(RESULTS / "paper"))
    for name, text in catalogue.texts(records, paper).items():
        if name.startswith("tables/"):
            assert (RESULTS / name).read_text() == text, name
        else:
            assert (RESULTS / name).is_file(), name


def test_no_quality_figure_stands_for_random_weights(records):
    for record in records:
        if record.data["weights"] == "random":
            assert record.stage not in ("caption", "retrieval")
