"""Tables of what a runtime costs on a device: Tables 5 and 8, energy, and sessions without rest.

Pure functions of latency records. Cells that a phone would fill stay empty until one has been
measured, and say which command fills them; a stand-in's rows say that they are a stand-in's.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured, paper_rows
from atom_repro.report.identity import device_and_model, precision_label
from atom_repro.report.paper import Cell
from atom_repro.report.select import is_reportable, validity_note
from atom_repro.report.tables.latency import ATOM, BASELINE, newest

SUSTAINED = "sustained"
FILL = "`make device-bench HOST=auto` fills it on a phone"
_ALONE = "resident/sequential"
_GIGA = 1e9
# The paper's row of each of our settings.
_TABLE5_NOTE = (
    "the paper's latency of its default is Table 3's captioning; a batch of 4 is none of our "
    "runner's"
)


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """Rows by file stem; of sessions without rest only where there are records."""
    latest = newest(records)
    tables = {
        "table05": [*table5(latest), *paper_rows(paper, "table05", _paper_note("table05"))],
        "table08": [*table8(latest), *paper_rows(paper, "table08", _paper_note("table08"))],
        "energy": [*energy(latest), *_paper_energy(paper)],
    }
    if rows := sustained(records):
        tables[SUSTAINED] = rows
    return tables


def _paper_note(table: str) -> str:
    command = {
        "table05": "`make device-bench HOST=auto ARGS=settings=table05` measures a phone, "
        "HOST=standin this machine; " + _TABLE5_NOTE,
        "table08": "`make device-bench HOST=auto` measures a phone, HOST=standin this machine",
    }
    return command[table]


def table5(records: Iterable[Record]) -> list[Row]:
    """What an input size or a setting of generation costs: seconds of a clip, modules alone, and of
    the whole prompt under Atom's arm."""
    rows = []
    for record in records:
        setting = record.config("setting")
        if not setting:
            continue
        row = f"{device_and_model(record)}/{precision_label(record)}/{setting}"
        encoder, generation = record.config("model.encoder"), record.config("generation")
        note = (
            f"{validity_note(record)}; {setting}: {encoder['frames']} frames of "
            f"{encoder['image_size']} px, {generation['beams']} beams, "
            f"{generation['max_new_tokens']} tokens"
        )
        clips = record.values["clips"]
        alone, atom = _first_prompts(record, _ALONE), _first_prompts(record, ATOM)
        columns = {
            "encode": [p["stages_s"].get("encode", 0.0) / clips for p in alone],
            "caption": [p["stages_s"].get("caption", 0.0) / clips for p in alone],
            str(record.config("pipeline.name")): [p["end_to_end_s"] for p in atom],
        }
        rows += [
            _median("table05", row, column, numbers, "s", record, note)
            for column, numbers in columns.items()
            if numbers
        ]
    return rows


def table8(records: Iterable[Record]) -> list[Row]:
    """Memory of an assembly: weights, the largest activations and the largest temporary memory of a
    load, and the peak, for the baseline's arm and Atom's.

    The parts are of samples every 20 ms: the most that memory rose in a computation over what it
    was before, and in a load over what it was after. They need not add up to the peak, as the
    paper's do.
    """
    rows = []
    for record in records:
        if record.config("pipeline.name") != "assembly" or "device" not in record.values:
            continue
        name = f"{device_and_model(record)}/{precision_label(record)}"
        weights = sum(size for size in record.values["module_bytes"].values())
        for column, arm in (("baseline", BASELINE), ("atom", ATOM)):
            prompts = _first_prompts(record, arm)
            parts = [p.get("session_measured", {}).get("memory", {}) for p in prompts]
            cells: dict[str, list[float]] = {"weights": [weights]}
            for part in ("activations", "temporary", "peak"):
                cells[part] = [of[part] for of in parts if of.get(part) is not None]
            stages = [of.get("peak_resident_by_stage", {}).values() for of in parts]
            cells["peak (VmHWM)"] = [max(by_stage) for by_stage in stages if by_stage]
            rows += [
                _median("table08", f"{name}/{part}", column, [n / _GIGA for n in numbers], "GB",
                        record, _memory_note(record, part))
                for part, numbers in cells.items()
                if numbers and prompts
            ]  # fmt: skip
    return rows


def _memory_note(record: Record, part: str) -> str:
    told = {
        "weights": "weights are the files of encoder, decoder and text embedder",
        "activations": "activations are the largest rise while a module computes",
        "temporary": "temporary memory is the largest rise of a load over what it leaves",
    }
    return "; ".join(filter(None, (validity_note(record), told.get(part, ""))))


def energy(records: Iterable[Record]) -> list[Row]:
    """Joules of a session above the device at rest, for the baseline's arm and Atom's; where the
    device gives no figure, the reason."""
    rows = []
    for record in records:
        if "device" not in record.values:
            continue
        pipeline = record.config("pipeline.name")
        name = f"{device_and_model(record)}/{pipeline}/{precision_label(record)}"
        for variant, arm in (("baseline", BASELINE), ("atom", ATOM)):
            figures = [
                p["session_measured"]["energy"]
                for p in _first_prompts(record, arm)
                if "energy" in p.get("session_measured", {})
            ]
            joules = [f["joules"] for f in figures if f["joules"] is not None]
            row, column = f"{name}/{variant}", f"{record.data['scale']}/energy"
            if joules:
                sources = "; ".join(dict.fromkeys(f["source"] for f in figures))
                note = f"from {sources}, the device at rest subtracted"
                rows.append(_median("energy", row, "energy", joules, "J", record, note))
            elif figures:
                rows.append(
                    Row(
                        "energy", row, column, None, None, "J", scale=str(record.data["scale"]),
                        machine=record.machine, records=record.run_id,
                        note=f"empty: {figures[0]['reason']}",
                    )
                )  # fmt: skip
    return rows


_ENERGY_ROWS = {"baseline energy": "baseline", "new energy": "atom", "energy saving": "atom"}


def _paper_energy(paper: Iterable[Cell]) -> Iterator[Row]:
    """The result of appendix F.7, which is computed from assumptions and not measured."""
    for cell in paper:
        if (cell.table, cell.row) != ("energy", "calculation") or cell.column not in _ENERGY_ROWS:
            continue
        column = "energy_saving" if cell.unit == "percent" else "energy"
        yield Row(
            "energy", f"pixel5a/{_ENERGY_ROWS[cell.column]}", column, None, cell.value, cell.unit,
            note=f"computed from assumed power, not measured; {FILL}",
        )  # fmt: skip


def sustained(records: Iterable[Record]) -> list[Row]:
    """Seconds of the first prompt by the minute in which its session began, of sessions that follow
    each other without rest."""
    rows = []
    for record in records:
        if not (is_reportable(record, "latency") and record.config("minutes")):
            continue
        by_minute: dict[tuple[str, int], list[float]] = {}
        for arm in record.values["arms"]:
            for prompt in _first_prompts(record, arm):
                key = arm, int(prompt["at_s"] // 60)
                by_minute.setdefault(key, []).append(prompt["end_to_end_s"])
        for (arm, minute), seconds in by_minute.items():
            row = (
                f"{device_and_model(record)}/{record.config('pipeline.name')}/"
                f"{precision_label(record)}/{arm}"
            )
            note = validity_note(record)
            rows.append(_median(SUSTAINED, row, f"minute {minute + 1}", seconds, "s", record, note))
    return rows


def _median(
    table: str,
    row: str,
    column: str,
    numbers: Sequence[float],
    unit: str,
    record: Record,
    note: str,
) -> Row:
    return measured(
        table, row, f"{record.data['scale']}/{column}", median(numbers), unit, record,
        n=len(numbers), spread=extremes(numbers), note=note,
    )  # fmt: skip


def _first_prompts(record: Record, arm: str) -> list[dict[str, Any]]:
    """The first prompt of each counted session of an arm."""
    return [
        sample
        for sample in record.samples()
        if sample["kind"] == "prompt"
        and (sample["arm"], sample["prompt"], sample["warmup"]) == (arm, 0, False)
    ]
