"""Tables of devices: settings, memory, energy, minutes; phones and stand-ins never share a row."""

import json

import pytest
from machines import FIRST, SECOND

from atom_repro.records.provenance import file_hash
from atom_repro.records.record import Record, recording
from atom_repro.report.identity import device_and_model
from atom_repro.report.paper import Cell
from atom_repro.report.render import to_markdown
from atom_repro.report.tables.device import build
from atom_repro.report.tables.latency import table3
from atom_repro.report.tables.storage import table6
from atom_repro.report.write import records_made_on

ARMS = ("reload_stage/sequential", "resident/sequential", "resident/parallel")
STANDIN = {"standin": True, "model": "stand-in"}
PIXEL = {"standin": False, "model": "Pixel 8a"}
NO_ENERGY = {"joules": None, "source": "", "reason": "the device lets adb read nothing"}
PAPER = [
    Cell("table05", "beam1", "latency", "3.07", "s", "lower", "F.1, Table 5", ""),
    Cell("table08", "peak", "atom", "5.317", "GB", "lower", "F.4, Table 8", ""),
    Cell("energy", "calculation", "baseline energy", "22", "J", "", "F.7", ""),
    Cell("energy", "calculation", "energy saving", "46", "percent", "", "F.7", ""),
    Cell("energy", "assumption", "CPU power", "2", "W", "", "F.7", "exact; an assumption"),
]


def latency(folder, device=STANDIN, *, setting="", energy=NO_ENERGY, minutes=0.0, number=1,
            machine=FIRST, **values):  # fmt: skip
    """A record of an assembly on a device: three rounds, the first a warm-up."""
    samples = [
        {"kind": "prompt", "arm": arm, "repeat": n, "warmup": n == 0, "prompt": 0,
         "at_s": 50.0 * n, "end_to_end_s": 10.0 * (place + 1) + n, "overlap_s": 0.0,
         "residual_s": 0.0,
         "stages_s": {"load": 1.0, "encode": 4.0, "caption": 2.0 * n, "embed": 0.2, "rank": 0.1,
                      "script": 0.5},
         "session_measured": {
             "energy": energy,
             "memory": {"peak": 3e9 + 1e8 * place, "temporary": 1e8, "activations": None,
                        "peak_resident_by_stage": {"captions": 4e9, "embed": 2e9}}}}
        for n in range(3) for place, arm in enumerate(ARMS)
    ]  # fmt: skip
    samples += [
        {"kind": "span", "stage": "load", "arm": arm, "repeat": n, "start_s": 0.0, "end_s": 1.0}
        for n in range(3) for arm in ARMS
    ]  # fmt: skip
    folder.mkdir(parents=True)
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in samples))
    body = {
        "stage": "latency", "status": "ok", "scale": "tiny", "git": {"clean": True},
        "device": "cpu", "weights": "random", "machine": machine.to_dict(),
        "argv": ["latency.py", f"host.number={number}"], "definitions": {"load": 2},
        "started_utc": folder.name,
        "config": {
            "model": {"name": "m", "encoder": {"frames": 6, "image_size": 48}}, "repeats": 2,
            "generation": {"beams": 4, "max_new_tokens": 23}, "pipeline": {"name": "assembly"},
            "setting": setting, "minutes": minutes, "host": {"number": number},
        },
        "values": {
            "host": "standin" if device["standin"] else "phone", "device": device, "clips": 2,
            "prompts": 1, "recipe": "8da8w", "arms": list(ARMS),
            "module_bytes": {"encoder": 10**9, "decoder": 2 * 10**9, "embedder": 10**8}, **values,
        },
        "samples": {"sha256": file_hash(path), "lines": len(samples)},
    }  # fmt: skip
    return Record(folder, body)


def cells(rows):
    return {(r.row, r.column): r.ours for r in rows if r.ours is not None}


def test_a_phone_a_stand_in_and_a_throttled_run_have_rows_of_their_own(tmp_path):
    names = [
        device_and_model(latency(tmp_path / "a")),
        device_and_model(latency(tmp_path / "b", PIXEL)),
        device_and_model(latency(tmp_path / "c", PIXEL, throttled=True)),
    ]
    assert names == ["host/m, host standin", "Pixel 8a/m", "Pixel 8a/m, throttled"]


def test_two_stand_ins_are_repeats_of_one_row(tmp_path):
    records = [latency(tmp_path / "a"), latency(tmp_path / "b", number=2)]
    assert {r.records for r in table3(records)} == {"b"}


def test_settings_stand_in_table_5_and_not_in_table_3(tmp_path):
    records = [latency(tmp_path / "a", setting="default"), latency(tmp_path / "b", setting="beam1")]
    # As the sweep runs it: the setting's own override tells the records apart.
    records[1].data["argv"].append("generation.beams=1")
    records[1].data["config"]["generation"]["beams"] = 1
    found = cells(build(records, [])["table05"])
    row = "host/m, host standin/8da8w/default"
    assert found[row, "tiny/encode"] == 2.0  # of each of two clips
    assert found[row, "tiny/caption"] == 1.5
    assert found[row, "tiny/assembly"] == 31.5  # Atom's arm
    assert ("host/m, host standin, generation.beams=1/8da8w/beam1", "tiny/caption") in found
    assert {r.records for r in table3(records)} == {"a"}


def test_a_setting_that_is_equal_to_the_default_hides_no_row_of_table_3(tmp_path):
    records = [latency(tmp_path / "a", setting="default"), latency(tmp_path / "b", setting="beam1")]
    assert {r.records for r in table3(records)} == {"a"}


def test_memory_is_told_apart_and_what_was_not_sampled_has_no_cell(tmp_path):
    found = cells(build([latency(tmp_path / "a", PIXEL)], [])["table08"])
    assert found == {
        (f"Pixel 8a/m/8da8w/{part}", f"tiny/{column}"): pytest.approx(value)
        for part, by_column in {
            "weights": {"baseline": 3.1, "atom": 3.1},
            "temporary": {"baseline": 0.1, "atom": 0.1},
            "peak": {"baseline": 3.0, "atom": 3.2},
            "peak (VmHWM)": {"baseline": 4.0, "atom": 4.0},
        }.items()
        for column, value in by_column.items()
    }


def test_an_empty_cell_of_energy_says_why(tmp_path):
    rows = build([latency(tmp_path / "a")], [])["energy"]
    assert cells(rows) == {}
    assert "empty: the device lets adb read nothing" in to_markdown("energy", rows)
    known = {"joules": 12.5, "source": "power rails", "reason": ""}
    rows = build([latency(tmp_path / "b", PIXEL, energy=known)], [])["energy"]
    assert cells(rows) == {
        (f"Pixel 8a/m/assembly/8da8w/{v}", "tiny/energy"): 12.5 for v in ("baseline", "atom")
    }
    assert "power rails" in rows[0].note


def test_the_papers_cells_stand_beside_ours_and_say_what_fills_them():
    tables = build([], PAPER)
    assert {name: [r.paper for r in rows] for name, rows in tables.items()} == {
        "table05": [3.07], "table08": [5.317], "energy": [22.0, 46.0],
    }  # fmt: skip
    for name, rows in tables.items():
        assert all("make device-bench HOST=auto" in r.note for r in rows), name
        assert "make device-bench HOST=auto" in to_markdown(name, rows)


def test_what_was_sent_to_a_device_is_in_table_6(tmp_path):
    found = cells(table6([latency(tmp_path / "a", PIXEL)], []))
    row = "Pixel 8a/m/8da8w, exported"
    assert found[row, "storage/decoder, MB"] == 2000.0
    assert found[row, "storage/all, MB"] == 3100.0


def test_sessions_without_rest_stand_by_minute(tmp_path):
    record = latency(tmp_path / "a", PIXEL, minutes=2.0)
    found = cells(build([record], [])["sustained"])
    row = "Pixel 8a/m/assembly/8da8w/resident/parallel"
    assert {k[1]: v for k, v in found.items() if k[0] == row} == {
        "tiny/minute 1": 31.0, "tiny/minute 2": 32.0,
    }  # fmt: skip
    assert "sustained" not in build([latency(tmp_path / "b")], [])


def test_a_record_of_a_device_is_found_by_the_computer_that_made_it(tmp_path):
    def record(machine, computer):
        with recording(
            tmp_path, machine, stage="latency", key="k" * 64, config={"scale": {"name": "tiny"}},
            inputs={}, weights="w", computer=computer,
        ) as run:  # fmt: skip
            run.values["of"] = machine.fingerprint

    record(FIRST, FIRST)
    record(SECOND, FIRST)  # a phone
    made = records_made_on(tmp_path, FIRST)
    assert {r.machine.fingerprint for r in made} == {FIRST.fingerprint, SECOND.fingerprint}
    (phone,) = [r for r in made if r.machine.fingerprint == SECOND.fingerprint]
    assert phone.computer == FIRST
    assert phone.busy is None  # the computer's load is none of the phone's
    assert records_made_on(tmp_path, SECOND) == []
