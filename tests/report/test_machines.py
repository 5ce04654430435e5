"""Two processors of one name: what each may write, and what never shares a section."""

import csv
import io
import json

import pytest
from machines import FIRST, SECOND

from atom_repro.records.record import recording
from atom_repro.report.figures import timeline
from atom_repro.report.render import to_csv, to_markdown
from atom_repro.report.tables import latency as latency_tables
from atom_repro.report.tables.endurance import endurance
from atom_repro.report.tables.latency import newest
from atom_repro.report.tables.sessions import build
from atom_repro.report.tables.training_step import training_step
from atom_repro.report.write import destinations, write

QUIET = {"end": {"others_share": 0.01, "steal_share": 0.0}}
BUSY = {"end": {"others_share": 0.2, "steal_share": 0.0}}
CONFIG = {
    "scale": {"name": "tiny"}, "model": {"name": "m"}, "pipeline": {"name": "retrieval"},
    "train": {"captions_per_clip": 1, "threads": 2}, "caption_tokens": 5,
}  # fmt: skip
ARM = "resident/parallel"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results whose one reference machine is FIRST."""
    (tmp_path / "reference_machines.txt").write_text(f"{FIRST.fingerprint}  # {FIRST}\n")
    state = {"commit": "c", "clean": True}
    monkeypatch.setattr("atom_repro.records.provenance.git_state", lambda: state)
    return tmp_path


def latency(results, machine, seconds, **data):
    """A latency record of one arm, as the command writes it."""
    folder = results / "records" / machine.fingerprint / "latency"
    there = set(folder.glob("*"))
    with recording(
        results, machine, stage="latency", key="k" * 64, config=CONFIG, inputs={},
        weights="random",
    ) as run:  # fmt: skip
        run.samples += [
            {"kind": "prompt", "arm": arm, "repeat": n, "warmup": n == 0, "prompt": 0,
             "end_to_end_s": seconds, "overlap_s": 0.0, "residual_s": 0.0,
             "stages_s": {"encode": seconds, "caption": 1.0, "embed": 0.1, "rank": 0.1}}
            for arm in (ARM, "resident/sequential")
            for n in range(3)
        ]  # fmt: skip
        run.values |= {"precision": "fp32", "clips": 2, "prompts": 1, "arms": [ARM]}
    (made,) = set(folder.glob("*")) - there
    path = made / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"load": QUIET} | data))


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def report(results, machine):
    for folder, records in destinations(results, machine):
        write(folder, records, [])


def shown(results, machine=FIRST):
    """Records that the machine's tables are made of."""
    return destinations(results, machine)[0][1]


def test_a_machine_that_is_no_reference_touches_no_committed_file(results):
    latency(results, FIRST, 1.0)
    report(results, FIRST)
    assert (results / "tables/table03.md").is_file()
    before = files(results)
    assert SECOND.cpu == FIRST.cpu
    latency(results, SECOND, 2.0)
    report(results, SECOND)
    after = files(results)
    assert {p: after[p] for p in before} == before
    new = {p.relative_to(results).parts[:2] for p in after.keys() - before.keys()}
    assert new == {("local", SECOND.fingerprint), ("records", SECOND.fingerprint)}
    local = (results / "local" / SECOND.fingerprint / "tables/table03.md").read_text()
    assert str(SECOND) in local
    assert str(FIRST) not in local


def test_a_reference_with_uncommitted_code_fills_local_tables_alone(results):
    latency(results, FIRST, 1.0)
    report(results, FIRST)
    committed = (results / "tables/table03.csv").read_bytes()
    latency(results, FIRST, 9.0, git={"commit": "c", "clean": False})
    report(results, FIRST)
    assert (results / "tables/table03.csv").read_bytes() == committed
    local = (results / "local" / FIRST.fingerprint / "tables/table03.csv").read_text()
    assert "uncommitted tree" in local


def test_two_processors_of_one_name_never_share_a_section(results):
    with (results / "reference_machines.txt").open("a") as listed:
        listed.write(f"{SECOND.fingerprint}  # {SECOND}\n")
    latency(results, FIRST, 1.0)
    latency(results, SECOND, 2.0)
    tables = latency_tables.build(shown(results), [])
    found = list(csv.DictReader(io.StringIO(to_csv(tables["table03"]))))
    encoded = {r["machine"]: (r["processor"], r["ours"]) for r in found
               if r["column"] == "tiny/encode"}  # fmt: skip
    assert encoded == {
        FIRST.fingerprint: ("Test CPU (family 23, model 49, stepping 0)", "0.5"),
        SECOND.fingerprint: ("Test CPU (family 25, model 49, stepping 0)", "1"),
    }
    text = to_markdown("table03", tables["table03"])
    first, second = text.split("\n## ")[1:]
    assert first.startswith(f"Scale tiny, {FIRST}") and "0.5 s" in first
    assert second.startswith(f"Scale tiny, {SECOND}") and "1.00 s" in second


def test_a_busy_timing_is_marked_and_never_replaces_a_quiet_one(results):
    latency(results, FIRST, 1.0, load=BUSY)
    (cell,) = [r for r in latency_tables.build(shown(results), [])["table03"]
               if r.column == "tiny/encode"]  # fmt: skip
    assert cell.load == "busy"
    text = to_markdown("table03", [cell])
    assert (
        "0.5 s (busy)" in text and "- busy: meanwhile other processes took more than 5% of" in text
    )

    latency(results, FIRST, 2.0)
    latency(results, FIRST, 3.0, load=BUSY)
    (record,) = newest(shown(results))
    assert (record.busy, record.samples()[0]["end_to_end_s"]) == (False, 2.0)
    latency(results, FIRST, 3.5, load=None)  # not recorded
    assert newest(shown(results))[0].samples()[0]["end_to_end_s"] == 2.0
    latency(results, FIRST, 4.0)
    assert newest(shown(results))[0].samples()[0]["end_to_end_s"] == 4.0


def test_a_busy_figure_says_so(results):
    for load, said in ((BUSY, True), (QUIET, False)):
        latency(results, FIRST, 1.0, load=load, config=CONFIG | {
            "model": {"name": "tiny_mplug2plus"}})  # fmt: skip
        assert (", busy" in (timeline(shown(results), "fp32") or "")) is said


def test_a_busy_training_step_never_replaces_a_quiet_one(results):
    def trial(seconds, load):
        with recording(
            results, FIRST, stage="training_step", key="k" * 64, config=CONFIG, inputs={},
            weights="random",
        ) as run:  # fmt: skip
            run.samples += [{"step": n, "seconds": seconds, "warmup": n == 0} for n in range(2)]
            run.values |= {
                "precision": "fp32", "clips": 1, "step_memory_estimated_bytes": 1,
                "step_s": seconds, "tokens_per_s": 1.0, "share_of_limit": 0.5,
            }  # fmt: skip
        folder = results / "records" / FIRST.fingerprint / "training_step"
        path = sorted(folder.glob("*"), key=lambda p: p.stat().st_mtime_ns)[-1] / "record.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"load": load}))

    trial(1.0, QUIET)
    trial(2.0, BUSY)
    (step,) = [r for r in training_step(shown(results)) if r.column == "step"]
    assert (step.ours, step.load) == (1.0, "quiet")


def test_two_definitions_of_a_quantity_never_share_a_table(results):
    latency(results, FIRST, 1.0, definitions={"load": 1})
    (row,) = [r for r in latency_tables.build(shown(results), [])["table03"]
              if r.column == "tiny/retrieval"]  # fmt: skip
    assert "a load ends with a first forward (definition 1)" in row.note
    # A record under the newer meaning, of another model: the older row leaves.
    model = {"config": CONFIG | {"model": {"name": "other"}}}
    latency(results, FIRST, 2.0, definitions={"load": 2}, **model)
    tables = latency_tables.build(shown(results), [])
    assert {r.row for r in tables["table03"] if r.ours} == {"host/other/fp32/atom"}
    said = "1 records under an older definition of a load are left out"
    assert said in to_markdown("table03", tables["table03"])


ENDURANCE = {
    "arm": ARM, "precision": "fp32", "captioned": 8, "broken_named": [], "clips_per_s": 1.0,
    "slope_bytes_per_clip": {"mean": 1.0, "low": 0.0, "high": 2.0}, "samples_after_warmup": 9,
}  # fmt: skip
SESSIONS = {
    "precision": "fp32", "pipeline": "retrieval", "clips": 5, "prompt_counts": [1],
    "sessions": ["fresh/resident/sequential"], "out_of_memory": [],
}  # fmt: skip


def session_prompt(seconds):
    return {
        "kind": "prompt", "session": "fresh", "residency": "resident", "schedule": "sequential",
        "repeat": 1, "warmup": False, "prompt": 1, "loads": {}, "bytes_read": 0,
        "end_to_end_s": seconds,
    }  # fmt: skip


def made(results, machine, stage, values, samples=(), **data):
    """A record of any stage."""
    folder = results / "records" / machine.fingerprint / stage
    there = set(folder.glob("*"))
    with recording(
        results, machine, stage=stage, key="k" * 64, config=CONFIG, inputs={}, weights="random"
    ) as run:  # fmt: skip
        run.samples += samples
        run.values |= values
    (new,) = set(folder.glob("*")) - there
    path = new / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"load": QUIET} | data))


@pytest.mark.parametrize("stage", ["endurance", "sessions"])
def test_other_tables_of_speed_keep_machines_loads_and_definitions_apart(results, stage):
    with (results / "reference_machines.txt").open("a") as listed:
        listed.write(f"{SECOND.fingerprint}  # {SECOND}\n")

    def run(machine, speed, **data):
        if stage == "endurance":
            # A busy run that is longer is no better.
            clips = 9000 if data.get("load") == BUSY else 10
            made(
                results, machine, stage, ENDURANCE | {"clips": clips, "clips_per_s": speed}, **data
            )
        else:
            made(results, machine, stage, SESSIONS, [session_prompt(speed)], **data)

    def cells():
        rows = endurance(shown(results)) if stage == "endurance" else build(shown(results))[stage]
        column = "toy/clips/s" if stage == "endurance" else "tiny/prompt 1"
        return {r.machine.fingerprint: (r.ours, r.load) for r in rows if r.column == column}, rows

    run(FIRST, 1.0, definitions={"load": 1})
    assert cells()[0] == {FIRST.fingerprint: (1.0, "quiet")}
    run(FIRST, 2.0)
    run(FIRST, 3.0, load=BUSY)
    run(SECOND, 4.0, load=BUSY)
    found, rows = cells()
    assert found == {FIRST.fingerprint: (2.0, "quiet"), SECOND.fingerprint: (4.0, "busy")}
    assert any("1 records under an older definition" in r.note for r in rows)
