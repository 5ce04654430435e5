"""One cell of a table of ours: its value or the paper's, and where it comes from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atom_repro.datatypes import Machine
from atom_repro.records.record import Record
from atom_repro.report.paper import Cell
from atom_repro.report.select import load_label, of_newest_definition, shown

# Tables of seconds and memory: a section a machine, and never one of two.
SPEED = frozenset(
    ("table03", "arms", "limits", "training_step", "sessions", "endurance", "appendix_g")
)


@dataclass(frozen=True)
class Row:
    """One cell of a table. `ours` or `paper` is None where there is no such figure, and `note`
    then says why. `spread` is in words: what it is, and its two ends. `load` is of a timing:
    `quiet`, `busy` (beside other work) or `not recorded`."""

    table: str
    row: str
    column: str
    ours: float | None
    paper: float | None
    unit: str
    n: int | None = None
    spread: str = ""
    scale: str = ""
    machine: Machine | None = None
    load: str = ""
    records: str = ""
    note: str = ""


def measured(
    table: str,
    row: str,
    column: str,
    value: float,
    unit: str,
    record: Record,
    *,
    n: int | None = None,
    spread: str = "",
    note: str = "",
) -> Row:
    """A cell of ours, with its record; says so if the record is of uncommitted code."""
    if not record.clean:
        note = f"{note}; uncommitted tree" if note else "uncommitted tree"
    return Row(
        table,
        row,
        column,
        value,
        None,
        unit,
        n if n is not None else record.values.get("videos"),
        spread,
        str(record.data["scale"]),
        record.machine,
        load_label(record) if table in SPEED else "",
        record.run_id,
        note,
    )


def unfilled(paper: Iterable[Cell], table: str, note: str) -> list[Row]:
    """The paper's cells of a table, with the reason why ours are empty."""
    return [
        Row(table, c.row, c.column, None, c.value, c.unit, note=note)
        for c in paper
        if c.table == table
    ]


def omitted_records(records: Iterable[Record], stage: str, table: str) -> list[Row]:
    """A row that says how many records a table leaves out for an older definition; else none."""
    mine = [r for r in records if shown(r, stage)]
    older = len(mine) - len(of_newest_definition(mine, stage))
    if not older:
        return []
    note = f"{older} records under an older definition of a load are left out"
    return [Row(table, "", "", None, None, "", note=note)]


def extremes(values: Sequence[float]) -> str:
    """The spread of repeats in words: their least and their greatest."""
    return f"min {min(values):.4g}, max {max(values):.4g}"


def bootstrap_interval(over: str, low: float, high: float, digits: int) -> str:
    """The spread of a mean in words: what was resampled, and the ends of its interval."""
    return f"95 % bootstrap {over}: {low:.{digits}f} to {high:.{digits}f}"
