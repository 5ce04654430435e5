"""What is committed holds together: records load and are whole, tables follow from them."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from atom_repro.records import provenance
from atom_repro.records.record import MIGRATION, QUANTITY_DEFINITIONS, load_records, stage_key
from atom_repro.records.reference import reference_machines
from atom_repro.report import catalogue
from atom_repro.report.identity import family
from atom_repro.report.paper import load_cells
from atom_repro.report.select import system_load_label

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
REFERENCES = reference_machines(RESULTS)
OLD = "cee81488169f"


@pytest.fixture(scope="module")
def committed():
    """Run ids of the records that git knows."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "results/records"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {Path(p).parent.name for p in done.stdout.split() if p.endswith("/record.json")}


@pytest.fixture(scope="module")
def records(committed):
    found = load_records([RESULTS / "records" / name for name in REFERENCES])
    return [r for r in found if r.run_id in committed]


def test_every_record_is_of_committed_code_and_its_samples_are_whole(records):
    assert records
    for record in records:
        assert record.clean, record.folder
        assert record.machine.fingerprint == record.folder.parents[1].name
        assert record.data["scale"] != "smoke"
        assert len(record.samples()) == (record.data["samples"] or {"lines": 0})["lines"]


def test_every_committed_record_is_read_and_belongs_to_a_reference(records, committed):
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
        assert system_load_label(record) == "not recorded"
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
    assert {d["load"] for d in migration["definitions"].values()} == set(
        QUANTITY_DEFINITIONS["load"]
    )


def test_tables_and_figures_are_what_the_records_give(records):
    paper = list(load_cells(RESULTS / "paper"))
    for name, text in catalogue.render_all(records, paper).items():
        if name.startswith("tables/"):
            assert (RESULTS / name).read_text() == text, name
        else:
            assert (RESULTS / name).is_file(), name


def test_no_grid_is_half_empty_and_every_one_says_what_a_row_is():
    grids = 0
    for path in (RESULTS / "tables").glob("*.md"):
        for block in path.read_text().split("\n\n"):
            lines = [line for line in block.splitlines() if line.startswith("|")]
            if not lines:
                continue
            grids += 1
            head, _, *rows = ([c.strip() for c in line.strip("|").split("|")] for line in lines)
            assert head[0], path
            texts = [text for row in rows for text in row[1:]]
            assert texts.count("") <= len(texts) / 2, (path.name, head)
    assert grids > 30


def test_no_quality_figure_stands_for_random_weights(records):
    for record in records:
        if record.data["weights"] == "random":
            assert record.stage not in ("caption", "retrieval")


def test_a_key_of_the_migration_is_that_of_the_records_own_commit(records, tmp_path, monkeypatch):
    record = next(r for r in records if r.stage == "caption")
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", record.data["git"]["commit"]],
        capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        pytest.skip("this clone does not have the commit of the oldest records")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
        tree.extractall(tmp_path, filter="data")
    versions = record.data["versions"]
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "atom_repro")
    monkeypatch.setattr(provenance, "versions", lambda: versions)
    entry, config = tmp_path / "eval/caption.py", record.data["config"]
    assert stage_key("caption", entry, config, record.data["inputs"]) == record.key
