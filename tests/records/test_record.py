"""Records: written once, whole or not at all, whatever becomes of the run."""

import errno
import json

import pytest

from atom_repro.datatypes import AtomError, Machine, OutOfMemory
from atom_repro.records import provenance
from atom_repro.records.journal import Journal
from atom_repro.records.record import counterpart, find, load_records, recording, stage_key

MACHINE = Machine("cafe00000000", "Test CPU", 2, 24, "Test OS 1")
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
    (found,) = load_records(tmp_path / "records" / MACHINE.fingerprint)
    assert found.folder.parent == tmp_path / "records" / MACHINE.fingerprint / "caption"
    assert set(found.data) == {
        "schema", "stage", "scale", "protocol", "status", "detail", "started_utc", "ended_utc",
        "argv", "git", "config", "config_sha256", "key", "inputs", "versions", "machine",
        "device", "weights", "seed", "values", "samples",
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
    (found,) = load_records(tmp_path / "records" / MACHINE.fingerprint)
    assert found.data["status"] == status
    assert find(tmp_path, MACHINE, "caption", "k" * 64) is None
    # Where running out of memory is the answer, it is one that need not be asked for again.
    asked = find(tmp_path, MACHINE, "caption", "k" * 64, statuses=("ok", "oom"))
    assert (asked is not None) == (status == "oom")


def test_runs_of_one_second_keep_apart_and_the_newest_is_found(tmp_path):
    for _ in range(3):
        record(tmp_path)
    records = load_records(tmp_path / "records" / MACHINE.fingerprint)
    assert len({r.run_id for r in records}) == 3
    found = find(tmp_path, MACHINE, "caption", "k" * 64)
    assert found is not None
    assert found.run_id == records[-1].run_id
    assert find(tmp_path, MACHINE, "caption", "other") is None


def test_a_half_written_run_is_not_a_record_and_is_cleared(tmp_path):
    parent = tmp_path / "records" / MACHINE.fingerprint / "caption"
    left = parent / ".building-20260101T000000Z-kkkkkkkk-999999999"  # no such process
    left.mkdir(parents=True)
    (left / "record.json").write_text("{")
    assert load_records(tmp_path / "records" / MACHINE.fingerprint) == []
    record(tmp_path)
    assert not left.exists()


def test_changed_samples_are_noticed(tmp_path):
    record(tmp_path, samples=[{"id": "a"}])
    (found,) = load_records(tmp_path / "records" / MACHINE.fingerprint)
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
        load_records(tmp_path)


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
    assert provenance.source_hash(entry, {}) != provenance.source_hash(entry, named)


def test_comments_and_docstrings_are_not_code(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    source = tmp_path / "stage.py"

    def hashed(text):
        source.write_text(text)
        return provenance.source_hash(source, {})

    first = hashed('"""Doc."""\ndef f():\n    """Doc."""\n    return 1\n')
    assert hashed('"""Other."""\n# why\ndef f():\n    return 1\n') == first
    assert hashed('"""Doc."""\ndef f():\n    """Doc."""\n    return 2\n') != first


def test_a_journal_drops_a_half_written_line_and_goes_on(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add({"n": 1})
        journal.add({"n": 2})
    path.write_bytes(path.read_bytes() + b'{"n": 3')
    with Journal(path) as journal:
        assert journal.done == [{"n": 1}, {"n": 2}]
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
