"""Render tables as CSV with every column, and as Markdown."""

import csv
import io
from collections.abc import Sequence

from atom_repro.datatypes import Machine
from atom_repro.records.system_load import MAX_OTHERS_SHARE, MAX_STEAL_SHARE
from atom_repro.report.cells import PERFORMANCE_TABLES, Row

TITLES = {
    "table01": "Table 1: captioning",
    "table02": "Table 2: retrieval",
    "table10": "Table 10: retrieval on DiDeMo",
    "table03": "Table 3: latency",
    "table06": "Table 6: storage",
    "table09": "Table 9: parameters by layer type",
    "limits": "How close encoder and decoder come to what the device allows",
    "training_step": "What a training step costs",
    "arms": "Every arm of the runtime, and where its seconds went",
    "int8_cost": "What int8 costs",
    "attributes": "Caption accuracy by attribute",
    "endurance": "Many clips in one session, one in a hundred broken",
    "tasks": "Scripts, answers, summaries and moments, beside baselines",
    "table07": "Table 7: the text embedder in int8",
    "oracle": "The human oracle, beside Tables 1, 2 and 10",
    "oracle_gallery": "Recall by gallery size, one human caption a video",
    "oracle_bytes": "Appendix B: bytes of a text index",
}


COMMANDS = {
    "limits": "make systems",
    "training_step": "python -m device_bench.training_step",
    "endurance": "python -m device_bench.endurance",
    "table06": "python -m device_bench.storage model=mplug2plus",
    "table09": "python -m device_bench.storage model=mplug2plus",
}


COLUMNS = (
    "table", "row", "column", "ours", "paper", "unit", "n", "spread", "scale", "machine",
    "processor", "load", "records", "note",
)  # fmt: skip
_TIMING_UNITS = ("s", "1/s", "clips/s", "percent")
# Last note of a grid that contains a `busy_mark`.
BUSY_NOTE = (
    f"- busy: meanwhile other processes took more than {MAX_OTHERS_SHARE:.0%} of the processor, "
    f"or the hypervisor more than {MAX_STEAL_SHARE:.0%}."
)


def to_csv(rows: Sequence[Row]) -> str:
    """CSV with `COLUMNS`, empty where None; `machine` is the fingerprint, `processor` its name."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = {name: getattr(row, name) for name in COLUMNS if name != "processor"}
        if row.ours is not None:
            values["ours"] = f"{row.ours:.6g}"
        if row.machine is not None:
            values["machine"], values["processor"] = row.machine.fingerprint, row.machine.processor
        writer.writerow({k: "" if v is None else v for k, v in values.items()})
    return stream.getvalue()


def rows_by_machine(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group measured rows by machine description, the section headings of performance tables."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.machine is not None:
            groups.setdefault(str(row.machine), []).append(row)
    return groups


def busy_mark(row: Row | None) -> str:
    """Suffix of a timing, or of a value derived from one, measured beside other work."""
    return " (busy)" if row and row.load == "busy" and row.unit in _TIMING_UNITS else ""


def processor_by_row(rows: Sequence[Row]) -> dict[str, str]:
    """Processors by row name if the rows are of several machines, else empty."""
    if len(rows_by_machine(rows)) < 2:
        return {}
    processors: dict[str, list[str]] = {row.row: [] for row in rows}
    for row in rows:
        if row.machine is not None and _short_name(row.machine) not in processors[row.row]:
            processors[row.row].append(_short_name(row.machine))
    return {name: ", ".join(names) for name, names in processors.items()}


def _short_name(machine: Machine) -> str:
    """Processor name and unique fingerprint of a machine."""
    return f"{machine.processor}, {machine.fingerprint}"


def records_line(rows: Sequence[Row]) -> str:
    """Line that lists the records behind rows, with their machines if there are several."""
    several = len(rows_by_machine(rows)) > 1
    runs = sorted(
        {(r.records, f" ({_short_name(r.machine)})" if several and r.machine else "") for r in rows}
    )
    return f"Records: {', '.join(run + suffix for run, suffix in runs if run)}."


def to_markdown(name: str, rows: Sequence[Row]) -> str:
    """Render a table as Markdown: one grid of ours and one of the paper's, each with its notes.

    In a performance table every machine has its own section.
    """
    ours = [r for r in rows if r.ours is not None]
    paper = [r for r in rows if r.paper is not None]
    lines = [f"# {TITLES[name]}", ""]
    if ours:
        scales = ", ".join(sorted({r.scale for r in ours}))
        sections = rows_by_machine(ours)
        if name in PERFORMANCE_TABLES:
            lines += [f"Ours, scale {scales}, a section a machine.", ""]
        else:
            lines += [f"Ours, scale {scales}, on {'; '.join(sections)}.", ""]
            sections = {"": ours}
        for heading, part in sections.items():
            lines += [f"## {heading}", ""] if heading else []
            lines += [*_grid(part, "ours"), "", *_notes(part), records_line(part), ""]
    else:
        command = COMMANDS.get(name, "make reproduce")
        lines += [f"No record of ours yet: `{command}` makes them.", ""]
    lines += [f"- {r.note}.\n" for r in rows if r.ours is None and r.paper is None]
    if paper:
        lines += ["## The paper", ""] if ours and name in PERFORMANCE_TABLES else []
        lines += ["The paper's, on its own data and devices; not comparable with the above.", ""]
        lines += [*_grid(paper, "paper"), ""]
        lines += _notes(paper)
    return "\n".join(lines).rstrip() + "\n"


def _grid(rows: Sequence[Row], side: str) -> list[str]:
    columns = list(dict.fromkeys(r.column for r in rows))
    names = list(dict.fromkeys(r.row for r in rows))
    cells = {(r.row, r.column): r for r in rows}
    processors = processor_by_row(rows)
    headers = [*columns, *(["processor"] if processors else [])]
    lines = ["| | " + " | ".join(headers) + " |", "|---" * (len(headers) + 1) + "|"]
    for name in names:
        texts = []
        for column in columns:
            row = cells.get((name, column))
            value = getattr(row, side) if row else None
            text = "" if value is None or row is None else number_text(value, row.unit)
            texts.append(text + busy_mark(row))
        texts += [processors[name]] if processors else []
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines


def number_text(value: float, unit: str) -> str:
    """A value with the digits that suit its unit."""
    if unit == "s":
        return f"{value:.3g} s" if value < 1 else f"{value:.2f} s"
    return f"{value:.2f}".rstrip("0").rstrip(".") if unit != "percent" else f"{value:.1f}"


def _notes(rows: Sequence[Row]) -> list[str]:
    """Distinct notes of the cells as list items and a blank line; empty if there are none."""
    by_note: dict[str, list[str]] = {}
    for row in rows:
        text = "; ".join(t for t in (row.note, row.spread) if t)
        if row.note:
            by_note.setdefault(row.note, [])
        if row.spread and "bootstrap" in row.spread:
            by_note.setdefault(text, []).append(row.column)
    lines = [
        f"- {', '.join(columns) + ': ' if columns else ''}{note}."
        for note, columns in by_note.items()
    ]
    lines += [BUSY_NOTE] if any(row.load == "busy" for row in rows) else []
    return [*lines, ""] if lines else []


def to_markdown_beside_paper(name: str, rows: Sequence[Row]) -> str:
    """Render a table on the paper's own data as Markdown: ours with intervals above the paper's.

    One grid per protocol, then the notes and records.
    """
    lines = [f"# {TITLES[name]}", ""]
    if any(r.ours is not None for r in rows):
        lines += [
            f"Ours on {'; '.join(rows_by_machine(rows))}; in brackets 95 % bootstrap intervals. "
            "Real annotations, no video and no captioning model.",
            "",
        ]
    if name == "oracle":
        lines += [
            "A human caption is a reference, not a bound: a model that writes the consensus "
            "sentence may score above any one person. No index holds the query's own sentence or "
            "a copy of it.",
            "",
        ]
    for protocol in dict.fromkeys(_protocol(r) for r in rows):
        lines += [*_grid_beside_paper([r for r in rows if _protocol(r) == protocol], protocol), ""]
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(f"{row.row}, {row.column}")
    lines += [
        f"- {cells[0]}{' and others' if len(cells) > 1 else ''}: {note}."
        for note, cells in notes.items()
    ]
    if rows_by_machine(rows):
        lines += ["", records_line(rows)]
    return "\n".join(lines).rstrip() + "\n"


def _protocol(row: Row) -> str:
    return row.column.rpartition("/")[0]


def _grid_beside_paper(rows: Sequence[Row], protocol: str) -> list[str]:
    columns = list(dict.fromkeys(r.column for r in rows))
    headers = [c.rpartition("/")[2] for c in columns]
    cells = {(r.row, r.column): r for r in rows}
    processors = processor_by_row(rows)
    headers += ["processor"] if processors else []
    lines = [f"| {protocol} | " + " | ".join(headers) + " |", "|---" * (len(headers) + 1) + "|"]
    for name in dict.fromkeys(r.row for r in rows):
        texts = [_with_interval(cells.get((name, column))) for column in columns]
        texts += [processors[name]] if processors else []
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines


def _with_interval(row: Row | None) -> str:
    value = None if row is None else row.ours if row.ours is not None else row.paper
    if row is None or value is None:
        return ""
    digits = {"1": 4, "%": 1, "point": 1, "MB": 1}.get(row.unit, 0)
    text = f"{value:,.{digits}f}"
    _, separator, interval = row.spread.partition(": ")
    return f"{text} ({interval})" if separator else text
