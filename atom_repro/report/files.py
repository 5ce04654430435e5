"""Tables as files: a CSV with every column, and Markdown to read."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields

from atom_repro.report.tables import Row

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
}


MADE_BY = {
    "limits": "make systems",
    "training_step": "python -m device_bench.training_step",
    "endurance": "python -m device_bench.endurance",
    "table06": "python -m device_bench.storage model=mplug2plus",
    "table09": "python -m device_bench.storage model=mplug2plus",
}


def to_csv(rows: Sequence[Row]) -> str:
    """`table,row,column,ours,paper,unit,n,spread,scale,records,note`; empty where None."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = {k: "" if v is None else v for k, v in asdict(row).items()}
        if row.ours is not None:
            values["ours"] = f"{row.ours:.6g}"
        writer.writerow(values)
    return stream.getvalue()


def to_markdown(name: str, rows: Sequence[Row], machine: str) -> str:
    """Ours and the paper's as two grids, with the notes that belong to each."""
    ours = [r for r in rows if r.ours is not None]
    paper = [r for r in rows if r.paper is not None]
    lines = [f"# {TITLES[name]}", ""]
    if ours:
        scales = ", ".join(sorted({r.scale for r in ours}))
        lines += [f"Ours, scale {scales}, on {machine}.", ""]
        lines += [*_grid(ours, "ours"), ""]
        lines += _notes(ours)
        records = sorted({r.records for r in ours})
        lines += [f"Records: {', '.join(records)}.", ""]
    else:
        command = MADE_BY.get(name, "make reproduce")
        lines += [f"No record of ours yet: `{command}` makes them.", ""]
    if paper:
        lines += ["The paper's, on its own data and devices; not comparable with the above.", ""]
        lines += [*_grid(paper, "paper"), ""]
        lines += _notes(paper)
    return "\n".join(lines).rstrip() + "\n"


def _grid(rows: Sequence[Row], side: str) -> list[str]:
    columns = list(dict.fromkeys(r.column for r in rows))
    names = list(dict.fromkeys(r.row for r in rows))
    cells = {(r.row, r.column): r for r in rows}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        shown = []
        for column in columns:
            row = cells.get((name, column))
            value = getattr(row, side) if row else None
            shown.append("" if value is None or row is None else _number(value, row.unit))
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def _number(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.3g} s" if value < 1 else f"{value:.2f} s"
    return f"{value:.2f}".rstrip("0").rstrip(".") if unit != "percent" else f"{value:.1f}"


def _notes(rows: Sequence[Row]) -> list[str]:
    by_note: dict[str, list[str]] = {}
    for row in rows:
        text = "; ".join(t for t in (row.note, row.spread) if t)
        if row.note:
            by_note.setdefault(row.note, [])
        if row.spread and "bootstrap" in row.spread:
            by_note.setdefault(text, []).append(row.column)
    return [
        f"- {', '.join(columns) + ': ' if columns else ''}{note}."
        for note, columns in by_note.items()
    ] + ([""] if by_note else [])
