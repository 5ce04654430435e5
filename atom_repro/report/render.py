"""Render tables as CSV with every column, and as Markdown."""

import csv
import io
from collections.abc import Iterable, Sequence

import pandas as pd

from atom_repro.datatypes import Machine
from atom_repro.records.system_load import MAX_OTHERS_SHARE, MAX_STEAL_SHARE
from atom_repro.report.cells import Row

TITLES = {
    "table01": "Table 1: captioning",
    "table02": "Table 2: retrieval",
    "table10": "Table 10: retrieval on DiDeMo",
    "table03": "Table 3: latency",
    "table05": "Table 5: input sizes and settings of generation",
    "table06": "Table 6: storage",
    "table08": "Table 8: memory",
    "energy": "Appendix F.7: energy",
    "sustained": "Sessions without rest, by minute",
    "table09": "Table 9: parameters by layer type",
    "limits": "How close encoder and decoder come to what the device allows",
    "training_step": "What a training step costs",
    "contention": "Training steps beside busy processes",
    "peers": "The same modules in our engine and in other software",
    "arms": "Every arm of the runtime, and where its seconds went",
    "compare": "Engines, precisions and switches, interleaved",
    "sessions": "What the n-th prompt of a session loads and costs",
    "appendix_g": "Appendix G: learning rate and batch size",
    "int8_cost": "What int8 costs",
    "attributes": "Caption accuracy by attribute",
    "endurance": "Many clips in one session, one in a hundred broken",
    "tasks": "Scripts, answers, summaries and moments, beside baselines",
    "table07": "Table 7: the text embedder in int8",
    "oracle": "The human oracle, beside Tables 1, 2 and 10",
    "oracle_gallery": "Recall by gallery size, one human caption a video",
    "oracle_bytes": "Appendix B: bytes of a text index",
    "left_out": "Records that no table shows",
}
# What a row of a table is.
_ROWS = {
    "table01": "model/precision",
    "table02": "model/precision",
    "table10": "model/precision",
    "table03": "device/model/precision/arm",
    "table05": "device/model/precision/setting",
    "table06": "module/precision",
    "table08": "device/model/precision/part",
    "energy": "device/model/pipeline/precision/arm",
    "sustained": "device/model/pipeline/precision/residency/schedule",
    "table09": "layer type",
    "limits": "device/model/pipeline/precision",
    "training_step": "device/model/precision, step/clips",
    "contention": "device/model/workers/busy processes",
    "peers": "device/model/software",
    "arms": "device/model/pipeline/precision/residency/schedule",
    "compare": "device/model/pipeline/residency/schedule/variant",
    "sessions": "device/model/pipeline/precision/session/residency/schedule",
    "appendix_g": "setting",
    "int8_cost": "model",
    "attributes": "model/precision/clips",
    "endurance": "device/model/arm/precision",
    "tasks": "who/precision",
    "table07": "model/recipe",
    "oracle": "who/what",
    "oracle_gallery": "videos in the gallery",
    "oracle_bytes": "what is stored",
    "left_out": "stage/record",
}
_COMMANDS = {
    "table10": "python -m eval.retrieval dataset=didemo protocol=didemo_ret_paragraph",
    "limits": "make systems",
    "training_step": "python -m device_bench.training_step",
    "contention": "python -m device_bench.contention",
    "peers": "python -m device_bench.peers",
    "compare": "python -m device_bench.compare",
    "sessions": "python -m device_bench.sessions",
    "endurance": "python -m device_bench.endurance",
    "table05": "make device-bench HOST=auto ARGS=settings=table05",
    "table06": "python -m device_bench.storage model=mplug2plus",
    "table08": "make device-bench HOST=auto",
    "energy": "make device-bench HOST=auto",
    "sustained": "python -m device_bench.sweep minutes=30",
    "table09": "python -m device_bench.storage model=mplug2plus",
}
# Tables on the paper's own data, in which its cells stand in one grid with ours.
_BESIDE_PAPER = ("table07", "oracle", "oracle_gallery", "oracle_bytes")
_INTRODUCTIONS = {
    "sessions": "Medians over repeats; all sessions gave the same tokens and rankings.",
    "appendix_g": "The paper chose 2e-5 and 128, on other data and a model of another size, and "
    "saw over-fitting after 10 epochs.",
    "oracle": "A human caption is a reference, not a bound: a model that writes the consensus "
    "sentence may score above any one person. No index holds the query's own sentence or a copy "
    "of it.",
}

COLUMNS = (
    "table", "row", "column", "ours", "paper", "unit", "n", "low", "high", "spread", "scale",
    "machine", "processor", "load", "records", "note", "grid",
)  # fmt: skip
_TIMING_UNITS = ("s", "1/s", "clips/s", "percent")
_DIGITS = {
    "percent": 1, "%": 1, "point": 2, "tau": 2, "1": 4, "cosine": 2, "rank": 1, "MB": 1, "MiB": 0,
    "GB": 3, "J": 1, "byte": 0, "bytes": 0, "Mparam": 2, "epoch": 1, "1/s": 2, "nats": 2,
}  # fmt: skip
_UNKNOWN_LOAD_NOTE = (
    "the load of the machine was not recorded with these times: other work may have run beside them"
)
# Units that a column's head does not repeat: none, or written in the cells.
_UNITS_IN_CELLS = ("s", "1", "")
# Last note of a section that contains a `busy_mark`.
_BUSY_NOTE = (
    f"busy: meanwhile other processes took more than {MAX_OTHERS_SHARE:.0%} of the processor, or "
    f"the hypervisor more than {MAX_STEAL_SHARE:.0%}"
)


def to_csv(rows: Sequence[Row]) -> str:
    """CSV with `COLUMNS`, empty where None; `machine` is the fingerprint, `processor` its name."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = {name: getattr(row, name) for name in COLUMNS if name != "processor"}
        for name in ("ours", "low", "high"):
            if values[name] is not None:
                whole = float(values[name]).is_integer()
                values[name] = f"{values[name]:.0f}" if whole else f"{values[name]:.6g}"
        if row.machine is not None:
            values["machine"], values["processor"] = row.machine.fingerprint, row.machine.processor
        writer.writerow({k: "" if v is None else v for k, v in values.items()})
    return stream.getvalue()


def to_markdown(name: str, rows: Sequence[Row]) -> str:
    """Render a table as Markdown: a section for each scale and machine, then the paper's.

    A table on the paper's own data is one section, with the paper's cells among ours.
    """
    blocks = [f"# {TITLES[name]}"]
    if text := _INTRODUCTIONS.get(name):
        blocks.append(text)
    if not any(row.machine for row in rows):
        command = _COMMANDS.get(name, "make reproduce")
        none = "None." if name == "left_out" else f"No record of ours yet: `{command}` makes them."
        blocks.append(none)
    if name in _BESIDE_PAPER:
        machines = dict.fromkeys(str(row.machine) for row in rows if row.machine)
        if machines:
            blocks.append(
                f"Ours on {'; '.join(machines)}; in brackets 95 % intervals. Real annotations, no "
                "video and no captioning model."
            )
        return _document([*blocks, *_section(name, rows)])
    for heading, of_section in _sections(rows).items():
        blocks += [f"## {heading}", *_section(name, of_section)]
    left_out = [row.note for row in rows if row.machine is None and row.paper is None]
    if bullets := _bullets(left_out):
        blocks += ["## Left out", *bullets]
    paper = [row for row in rows if row.paper is not None]
    if paper:
        blocks += [
            "## The paper",
            "On its own data and devices; not comparable with the above.",
            *_section(name, paper),
        ]
    return _document(blocks)


def _document(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def _sections(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Measured rows by the heading of their section: scale and machine."""
    sections: dict[str, list[Row]] = {}
    for row in rows:
        if row.machine is not None:
            sections.setdefault(f"Scale {row.scale}, {row.machine}", []).append(row)
    return sections


def _section(name: str, rows: Sequence[Row]) -> list[str]:
    """Blocks of one section: its grids, the notes of their cells, the records behind them."""
    grids: dict[str, list[Row]] = {}
    for row in rows:
        if row.column:
            title = row.grid
            if name in _BESIDE_PAPER:
                title = row.column.rpartition("/")[0]
            grids.setdefault(title, []).append(row)
    blocks = []
    for title, of_grid in grids.items():
        if title:
            blocks.append(f"### {title}")
        blocks.append(grid(_ROWS[name], of_grid, title))
    notes: dict[str, list[Row]] = {}
    for row in rows:
        is_cell = row.ours is not None or row.paper is not None
        if row.note and (is_cell or not row.column):  # else it stands in the grid
            for part in [row.note] if row.paper is None else row.note.split("; "):
                notes.setdefault(part, []).append(row)
    unknown = any(row.load == "not recorded" and row.unit in _TIMING_UNITS for row in rows)
    blocks += _bullets(
        [_note(note, of_note, rows) for note, of_note in notes.items()]
        + [_BUSY_NOTE] * any(busy_mark(row) != "" for row in rows)
        + [_UNKNOWN_LOAD_NOTE] * unknown
    )
    if any(row.records for row in rows):
        blocks.append(records_line(rows))
    return blocks


def _note(note: str, noted: Sequence[Row], rows: Sequence[Row]) -> str:
    """A note, with the rows or columns or cells that it is about if those are not all."""
    cells = [row for row in rows if row.column and (row.ours is not None or row.paper is not None)]
    if not noted[0].column or len(noted) == len(cells):
        return note
    for name in ("row", "column"):
        named = list(dict.fromkeys(getattr(row, name) for row in noted))
        if len(noted) == sum(getattr(cell, name) in named for cell in cells):
            some = "; ".join(named[:3]) + f" and {len(named) - 3} more" * (len(named) > 3)
            return f"{some}: {note}"
    more = f" and {len(noted) - 1} more cells" * (len(noted) > 1)
    return f"{noted[0].row}, {noted[0].column}{more}: {note}"


def _bullets(notes: Iterable[str]) -> list[str]:
    lines = [f"- {note}." for note in dict.fromkeys(notes) if note]
    return ["\n".join(lines)] if lines else []


def grid(corner: str, rows: Sequence[Row], title: str = "") -> str:
    """Cells as a Markdown grid, rows and columns in their order of appearance.

    Args:
        corner: what a row is.
        title: a prefix that column names need not repeat.
    """
    by_row = _n_by_row(rows)
    varying = set() if by_row else _columns_of_varying_n(rows)
    heads: dict[str, str] = {}
    texts: dict[str, dict[str, str]] = {}
    for row in rows:
        heads.setdefault(row.column, _head(row, title))
        texts.setdefault(_escaped(row.row), {})[row.column] = _escaped(
            cell_text(row, with_n=not by_row and (row.difference or row.column in varying))
        )
    if by_row:
        heads[_N] = "n"
        for name, n in by_row.items():
            texts[_escaped(name)][_N] = str(n)
    frame = pd.DataFrame.from_dict(texts, orient="index").fillna("")[list(heads)]
    frame = frame.set_axis(list(heads.values()), axis="columns").rename_axis(corner)
    return str(frame.to_markdown(disable_numparse=True))


_N = "n, a column of its own"


def _n_by_row(rows: Sequence[Row]) -> dict[str, int]:
    """n of each row, where it is one for all its cells and differs between rows; else empty."""
    counts: dict[str, set[int]] = {}
    for row in rows:
        if row.ours is not None and row.n is not None:
            counts.setdefault(row.row, set()).add(row.n)
    if any(len(ns) > 1 for ns in counts.values()):
        return {}
    by_row = {name: ns.pop() for name, ns in counts.items()}
    return by_row if len(set(by_row.values())) > 1 else {}


def _columns_of_varying_n(rows: Sequence[Row]) -> set[str]:
    """Columns in which not all measured cells that have an n have the same."""
    counts: dict[str, set[int]] = {}
    for row in rows:
        if row.ours is not None and row.n is not None:
            counts.setdefault(row.column, set()).add(row.n)
    return {column for column, ns in counts.items() if len(ns) > 1}


def _head(row: Row, title: str) -> str:
    """Head of a column: its name, without what the section says, and its unit."""
    name = row.column
    for prefix in (row.scale, title):
        if prefix:
            name = name.removeprefix(f"{prefix}/")
    unit = {"percent": "%"}.get(row.unit, row.unit)
    if row.unit == "point" and "R@" in name:
        unit = "%"  # the paper's cells of recall
    said = row.unit in _UNITS_IN_CELLS or unit.removesuffix("s") in name or name.endswith("/s")
    return _escaped(name if said else f"{name} ({unit})")


def cell_text(row: Row, *, with_n: bool = False) -> str:
    """A cell as text: value, interval and n; a value without digits stands for a missing one."""
    value = row.ours
    if value is None:
        printed = "" if row.paper is None else _as_printed(row.paper)
        return f"{printed} s" if printed and row.unit == "s" else printed or row.note
    text = number_text(value, row.unit)
    if row.low is not None and row.high is not None:
        ends = " to ".join(number_text(end, row.unit, signed=row.difference)
                           for end in (row.low, row.high))  # fmt: skip
        if row.difference:
            text = number_text(value, row.unit, signed=True)
            text = f"no difference: {text}" if row.low <= 0 <= row.high else text
        text = f"{text} ({ends})"
    elif row.difference and row.spread:  # too few for an interval
        text = f"{number_text(value, row.unit, signed=True)} ({row.spread})"
    if with_n and row.n is not None:
        text += f", n {row.n}"
    return text + busy_mark(row)


def number_text(value: float, unit: str, *, signed: bool = False) -> str:
    """A value with the digits that suit its unit; seconds with theirs."""
    sign = "+" if signed else ""
    if unit == "s":
        return f"{value:{sign}.3g} s" if abs(value) < 1 else f"{value:{sign}.2f} s"
    digits = _DIGITS.get(unit, 2)
    if float(value).is_integer() and unit not in ("percent", "%", "point"):
        digits = 0
    rounded = round(value, digits) + 0.0  # no minus before a zero
    return f"{rounded:{sign},.{digits}f}"


def _as_printed(value: float) -> str:
    """A number of the paper with its own digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def busy_mark(row: Row) -> str:
    """Suffix of a timing, or of a value derived from one, measured beside other work."""
    return " (busy)" if row.load == "busy" and row.unit in _TIMING_UNITS else ""


def records_line(rows: Sequence[Row]) -> str:
    """Line that lists the records behind rows, with their machines if there are several."""
    several = len({row.machine for row in rows if row.machine}) > 1
    runs = sorted(
        {(r.records, f" ({_short_name(r.machine)})" if several and r.machine else "") for r in rows}
    )
    return f"Records: {', '.join(run + suffix for run, suffix in runs if run)}."


def _short_name(machine: Machine) -> str:
    """Processor name and unique fingerprint of a machine."""
    return f"{machine.processor}, {machine.fingerprint}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
