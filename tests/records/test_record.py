"""Records: written once, whole or not at all, whatever becomes of the run."""

import errno
import json
import shutil
import subprocess

import pytest
from machines import FIRST as MACHINE
from machines import SECOND

from atom_repro.datatypes import AtomError, OutOfMemory
from atom_repro.records import provenance
from atom_repro.records.component import MOVED, with_component_names
from atom_repro.records.journal import Journal
from atom_repro.records.record import (
    MIGRATION,
    counterpart,
    find_record,
    load_records,
    recording,
    stage_key,
)
from atom_repro.records.reference import reference_machines

CONFIG = {"scale": {"name": "tiny"}, "seed": 3, "paths": {"work": "w"}, "model": {"width": 8}}


def record(results, *, key="k" * 64, error=None, samples=()):
    with recording(
        results, MACHINE, stage="caption", key=key, config=CONFIG, inputs={"dataset": "d"},
        weights="random",
    ) as run:  # fmt: skip
        run.values["cider"] = 1.5
        run.samples += samples
        if error:
            raise error


def test_a_record_holds_what_the_contract_asks(tmp_path):
    record(tmp_path, samples=[{"id": "a"}, {"id": "b é"}])
    (found,) = load_records([tmp_path / "records" / MACHINE.fingerprint])
    assert found.folder.parent == tmp_path / "records" / MACHINE.fingerprint / "caption"
    assert set(found.data) == {
        "schema", "stage", "scale", "protocol", "status", "detail", "started_utc", "ended_utc",
        "argv", "git", "git_at_end", "config", "config_sha256", "key", "inputs", "versions",
        "definitions", "machine", "load", "device", "weights", "seed", "values", "samples",
    }  # fmt: skip
    assert (found.data["status"], found.data["weights"], found.data["seed"]) == ("ok", "random", 3)
    assert "paths" not in found.data["config"]
    assert found.data["machine"]["cpu"] == "Test CPU"
    assert found.data["samples"]["lines"] == 2
    assert found.samples() == [{"id": "a"}, {"id": "b é"}]
    assert found.config("model.width") == 8
    assert found.config("model.height") is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "oom"),
        (OutOfMemory("a step needs 2 MiB and 1 MiB are available"), "oom"),
        (RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"), "oom"),
        (OSError(errno.ENOSPC, "full"), "disk_full"),
        (ValueError("x"), "failed"),
    ],
)
def test_a_failure_is_a_record_too_and_is_never_reused(tmp_path, error, status):
    with pytest.raises(type(error)):
        record(tmp_path, error=error)
    (found,) = load_records([tmp_path / "records" / MACHINE.fingerprint])
    assert found.data["status"] == status
    assert find_record(tmp_path, MACHINE, "caption", "k" * 64) is None
    # Where running out of memory is the answer, it is one that need not be asked for again.
    asked = find_record(tmp_path, MACHINE, "caption", "k" * 64, statuses=("ok", "oom"))
    assert (asked is not None) == (status == "oom")


def test_runs_of_one_second_keep_apart_and_the_newest_is_found(tmp_path):
    for _ in range(3):
        record(tmp_path)
    records = load_records([tmp_path / "records" / MACHINE.fingerprint])
    assert len({r.run_id for r in records}) == 3
    found = find_record(tmp_path, MACHINE, "caption", "k" * 64)
    assert found is not None
    assert found.run_id == records[-1].run_id
    assert find_record(tmp_path, MACHINE, "caption", "other") is None


def test_a_half_written_run_is_not_a_record_and_is_cleared(tmp_path):
    parent = tmp_path / "records" / MACHINE.fingerprint / "caption"
    left = parent / ".building-20260101T000000Z-kkkkkkkk-999999999"  # no such process
    left.mkdir(parents=True)
    (left / "record.json").write_text("{")
    assert load_records([tmp_path / "records" / MACHINE.fingerprint]) == []
    record(tmp_path)
    assert not left.exists()


def test_changed_samples_are_noticed(tmp_path):
    record(tmp_path, samples=[{"id": "a"}])
    (found,) = load_records([tmp_path / "records" / MACHINE.fingerprint])
    (found.folder / "samples.jsonl").write_text('{"id": "b"}\n')
    with pytest.raises(AtomError, match=r"samples\.jsonl is not what its record describes"):
        found.samples()


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), (json.dumps({"schema": 9}), "has schema 9")]
)
def test_a_foreign_record_is_named(tmp_path, text, said):
    folder = tmp_path / "caption/run"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(text)
    with pytest.raises(AtomError, match=rf"record\.json {said}"):
        load_records([tmp_path])


def test_a_value_that_is_not_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"), recording(
        tmp_path, MACHINE, stage="s", key="k" * 64, config=CONFIG, inputs={}, weights="none"
    ) as run:  # fmt: skip
        run.values["loss"] = float("nan")


def test_the_key_follows_configuration_inputs_and_code_that_runs(tmp_path):
    entry = provenance.ROOT / "eval/report.py"

    def key(config=CONFIG, inputs=None, entry=entry):
        return stage_key("report", entry, config, inputs or {"dataset": "d"})

    assert key() == key(config=CONFIG | {"paths": {"work": "elsewhere"}})
    assert key() != key(config=CONFIG | {"seed": 4})
    assert key() != key(inputs={"dataset": "e"})
    assert key() != key(entry=provenance.ROOT / "eval/caption.py")
    named = {"quant": {"_target_": "atom_repro.quant.int8.build"}}
    assert provenance.source(entry, {}) != provenance.source(entry, named)


def test_comments_and_docstrings_are_not_code(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    source = tmp_path / "stage.py"

    def hashed(text):
        source.write_text(text)
        return provenance.source(source, {}).sha256

    first = hashed('"""Doc."""\ndef f():\n    """Doc."""\n    return 1\n')
    assert hashed('"""Other."""\n# why\ndef f():\n    return 1\n') == first
    assert hashed('"""Doc."""\ndef f():\n    """Doc."""\n    return 2\n') != first


def test_a_journal_is_rewritten_whole_or_not_at_all(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add({"n": 1})
        journal.add({"n": 2})
        with pytest.raises(TypeError):
            journal.rewrite([{"n": 1}, {"n": object()}])
        journal.add({"n": 3})
    with Journal(path) as journal:
        assert [line["n"] for line in journal.done] == [1, 2, 3]
        journal.rewrite(journal.done[:1])
        journal.add({"n": 4})
    with Journal(path) as journal:
        assert [line["n"] for line in journal.done] == [1, 4]


def test_a_journal_drops_a_half_written_line_and_goes_on(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add({"n": 1})
        journal.add({"n": 2})
    for torn in (b'{"n": 3', b"\0" * 9 + b"\n", b'\0\n{"n": 5}\n'):  # a kill, a loss of power
        path.write_bytes(path.read_bytes() + torn)
        with Journal(path) as journal:
            assert journal.done == [{"n": 1}, {"n": 2}]
    with Journal(path) as journal:
        journal.add({"n": 4})
    with Journal(path) as journal:
        assert [line["n"] for line in journal.done] == [1, 2, 4]
        journal.rewrite(journal.done[:1])
    with Journal(path) as journal:
        assert journal.done == [{"n": 1}]


def test_a_counterpart_differs_in_the_named_node_alone(tmp_path):
    record(tmp_path, key="a" * 64)
    inputs = {"dataset": "d"}

    def found(config, **replaced):
        return counterpart(tmp_path, MACHINE, "caption", config=config, inputs=inputs, **replaced)

    assert found(CONFIG | {"model": {"width": 16}}, model={"width": 8}) is not None
    assert found(CONFIG | {"model": {"width": 16}}) is None
    assert found(CONFIG | {"seed": 4}, model={"width": 8}) is None
    inputs["dataset"] = "another"
    assert found(CONFIG) is None


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository of its own in the place of ours."""

    def git(*arguments):
        done = subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    for name in ("atom_repro/code.py", "README.md", "results/table.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path, git


@pytest.mark.parametrize(
    ("path", "clean"),
    [("atom_repro/code.py", False), ("README.md", False), ("new.py", False),
     ("results/table.md", True), ("results/new.md", True)],
)  # fmt: skip
def test_a_tree_with_changes_or_unknown_files_is_not_clean(tree, path, clean):
    folder, git = tree
    assert provenance.git_state() == {"commit": git("rev-parse", "HEAD"), "clean": True}
    (folder / path).write_text("2\n")
    assert provenance.git_state()["clean"] is clean


def commit(git, folder, name):
    (folder / name).write_text("3\n")
    git("add", ".")
    git("commit", "-qm", name)


@pytest.mark.parametrize(
    ("dirty", "committed", "clean"),
    [
        (None, None, True),
        ("atom_repro/code.py", "atom_repro/code.py", False),  # dirty, and committed while it ran
        (None, "atom_repro/code.py", False),
        (None, "README.md", True),
        (None, "results/table.md", True),
    ],
)
def test_a_record_is_of_committed_code_from_start_to_end(tree, dirty, committed, clean):
    folder, git = tree
    results = folder / "results"
    if dirty:
        (folder / dirty).write_text("2\n")
    with recording(
        results, MACHINE, stage="s", key="k" * 64, config=CONFIG, inputs={}, weights="none"
    ):  # fmt: skip
        if committed:
            commit(git, folder, committed)
    (found,) = load_records([results / "records" / MACHINE.fingerprint])
    assert found.clean is clean
    assert found.data["git_at_end"]["clean"]


def test_a_tree_that_is_dirty_at_the_end_alone_is_said(tree):
    folder, _ = tree
    with recording(
        folder / "results", MACHINE, stage="s", key="k" * 64, config=CONFIG, inputs={},
        weights="none",
    ):  # fmt: skip
        (folder / "atom_repro/code.py").write_text("2\n")
    (found,) = load_records([folder / "results/records" / MACHINE.fingerprint])
    assert found.data["git"]["clean"]
    assert not found.clean


def test_another_version_of_what_computes_is_another_run(monkeypatch):
    # By imports, and by what the configuration names: TorchAO computes in int8 alone.
    entry = provenance.ROOT / "eval/caption.py"
    int8 = CONFIG | {"quant": {"_target_": "atom_repro.quant.int8.build"}}
    before = {
        name: stage_key("caption", entry, c, {}) for name, c in (("", CONFIG), ("int8", int8))
    }
    installed = provenance.versions()
    for name, same, same_in_int8 in (
        ("torch", False, False), ("torchao", True, False), ("transformers", False, False),
        ("hydra-core", True, True), ("executorch", True, True), ("python", True, True),
    ):  # fmt: skip
        monkeypatch.setattr(provenance, "versions", lambda n=name: installed | {n: "0.0.1"})
        assert (stage_key("caption", entry, CONFIG, {}) == before[""]) is same, name
        assert (stage_key("caption", entry, int8, {}) == before["int8"]) is same_in_int8, name
    # What does not compute with a package does not follow its version.
    monkeypatch.setattr(provenance, "versions", lambda: installed | {"torch": "0.0.1"})
    report = provenance.ROOT / "eval/report.py"
    assert provenance.source(report, {}).packages == {}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of ours with an entry file; writes files and gives the hash of the entry's code."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "atom_repro")

    def hashed(files, config=None):
        shutil.rmtree(tmp_path / "atom_repro", ignore_errors=True)
        for name, text in {"atom_repro/__init__.py": "", **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return provenance.source(tmp_path / "entry.py", config or {}).sha256

    return hashed


@pytest.mark.parametrize(
    "line",
    ["from atom_repro.data.toy import f", "from atom_repro.data import toy",
     "import atom_repro.data.toy"],
)  # fmt: skip
def test_code_that_is_imported_in_any_way_counts(package, line):
    files = {"entry.py": f"{line}\n", "atom_repro/data/__init__.py": ""}
    one, other = (package({**files, "atom_repro/data/toy.py": f"x = {n}\n"}) for n in (1, 2))
    assert one != other


def test_a_file_that_moves_changes_nothing(package):
    config = {"dataset": {"_target_": "atom_repro.data.toy.build", "size": 3}}
    moved = {"dataset": {"_target_": "atom_repro.data.toys.dataset.build", "size": 3}}
    code = "def build():\n    return 1\n"
    before = package(
        {"entry.py": "from atom_repro.data.toy import build\nbuild()\n",
         "atom_repro/data/toy.py": code}, config,
    )  # fmt: skip
    after = package(
        {"entry.py": "from atom_repro.data.toys.dataset import build\nbuild()\n",
         "atom_repro/data/toys/dataset.py": code}, moved,
    )  # fmt: skip
    assert before == after


def test_a_component_that_moves_keeps_its_name(monkeypatch):
    old = {"pipeline": {"_target_": "atom_repro.pipelines.search_session.build", "name": "x"}}
    new = {"pipeline": {"_target_": "atom_repro.pipelines.clip_search.build", "name": "x"}}
    other = {"pipeline": {"_target_": "atom_repro.pipelines.assembly.build", "name": "x"}}
    assert provenance.config_hash(old) == provenance.config_hash(new)
    assert provenance.config_hash(new) != provenance.config_hash(other)
    moved = {"many": [{"_target_": "atom_repro.pipelines.search.build"}]}
    monkeypatch.setitem(MOVED, "atom_repro.pipelines.search.build", "pipelines.clip_search")
    assert with_component_names(moved) == {"many": [{"_target_": "pipelines.clip_search"}]}


def test_how_records_are_kept_decides_no_value(package):
    files = {"entry.py": "from atom_repro.records.record import f\n"}
    assert package({**files, "atom_repro/records/record.py": "f = 1\n"}) == package(
        {**files, "atom_repro/records/record.py": "f = 2\n"}
    )


def test_a_machine_finds_its_own_records_and_no_others(tmp_path):
    record(tmp_path)
    assert find_record(tmp_path, MACHINE, "caption", "k" * 64) is not None
    assert SECOND.cpu == MACHINE.cpu
    assert find_record(tmp_path, SECOND, "caption", "k" * 64) is None


def test_what_older_records_lack_comes_from_the_migration(tmp_path):
    record(tmp_path, key="a" * 64)
    folder = tmp_path / "records" / MACHINE.fingerprint
    (path,) = folder.glob("*/*/record.json")
    data = json.loads(path.read_text())
    del data["definitions"]
    path.write_text(json.dumps(data))
    migration = {"keys": {"a" * 64: "b" * 64}, "definitions": {path.parent.name: {"load": 1}}}
    (folder / MIGRATION).write_text(json.dumps(migration))
    (found,) = load_records([folder])
    assert (found.key, found.definition("load")) == ("b" * 64, 1)
    assert find_record(tmp_path, MACHINE, "caption", "b" * 64) is not None
    assert find_record(tmp_path, MACHINE, "caption", "a" * 64) is None


def test_references_are_lines_with_or_without_a_word(tmp_path):
    assert reference_machines(tmp_path) == []
    (tmp_path / "reference_machines.txt").write_text("# why\nabc  # a machine\n\ndef\n")
    assert reference_machines(tmp_path) == ["abc", "def"]


def test_what_a_name_is_bound_to_counts(package):
    both = {"atom_repro/quant/__init__.py": "", "atom_repro/quant/none.py": "x = 1\n",
            "atom_repro/quant/int8.py": "x = 2\n",
            "atom_repro/other.py": "from atom_repro.quant import int8, none\n"}  # fmt: skip

    def hashed(line):
        return package({**both, "entry.py": f"import atom_repro.other\n{line}\nprint(none.x)\n"})

    plain = hashed("from atom_repro.quant import none")
    assert hashed("from atom_repro.quant import int8 as none") != plain
    one = package({"entry.py": "from atom_repro.a import f\nimport atom_repro.b\nf()\n",
                   "atom_repro/a.py": "N = 1\ndef f():\n    return N\n",
                   "atom_repro/b.py": "N = 2\ndef g():\n    return -N\n"})  # fmt: skip
    swapped = package({"entry.py": "from atom_repro.a import f\nimport atom_repro.b\nf()\n",
                       "atom_repro/a.py": "N = 2\ndef f():\n    return N\n",
                       "atom_repro/b.py": "N = 1\ndef g():\n    return -N\n"})  # fmt: skip
    assert one != swapped


def test_in_a_clean_tree_only_a_clean_record_is_the_same_run(tree):
    folder, git = tree
    results = folder / "results"
    (folder / "atom_repro/code.py").write_text("2\n")
    record(results)
    assert find_record(results, MACHINE, "caption", "k" * 64) is not None
    git("checkout", "-q", "atom_repro/code.py")
    assert find_record(results, MACHINE, "caption", "k" * 64) is None
    record(results)
    assert find_record(results, MACHINE, "caption", "k" * 64).clean
