"""Table cells in long format: a measured value or the paper's, with its provenance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atom_repro.datatypes import Machine
from atom_repro.records.record import Record
from atom_repro.report.paper import Cell
from atom_repro.report.select import is_reportable, of_newest_definition, system_load_label

# Tables of seconds and memory: one section per machine, never one of two machines.
PERFORMANCE_TABLES = frozenset(
    ("table03", "arms", "limits", "training_step", "sessions", "endurance", "appendix_g")
)


@dataclass(frozen=True)
class Row:
    """One cell of a table, a line of its CSV. `ours` or `paper` is None where there is no such
    value, and `note` then says why. `spread` is text: the kind of interval and its ends. `load` is
    the system load during a timing: `quiet`, `busy` (beside other work) or `not recorded`."""

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
    """Cell of a measured value with its record; the note marks uncommitted code."""
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
        system_load_label(record) if table in PERFORMANCE_TABLES else "",
        record.run_id,
        note,
    )


def paper_rows(paper: Iterable[Cell], table: str, note: str) -> list[Row]:
    """Cells of the paper's table, with the reason why none of ours is beside them."""
    return [
        Row(table, c.row, c.column, None, c.value, c.unit, note=note)
        for c in paper
        if c.table == table
    ]


def omitted_records(records: Iterable[Record], stage: str, table: str) -> list[Row]:
    """Row that notes how many records an older definition of load time leaves out; else none."""
    reportable = [r for r in records if is_reportable(r, stage)]
    older = len(reportable) - len(of_newest_definition(reportable, stage))
    if not older:
        return []
    note = f"{older} records under an older definition of a load are left out"
    return [Row(table, "", "", None, None, "", note=note)]


def extremes(values: Sequence[float]) -> str:
    """Spread of repeats as text: minimum and maximum."""
    return f"min {min(values):.4g}, max {max(values):.4g}"


def bootstrap_interval(over: str, low: float, high: float, digits: int) -> str:
    """Spread of a mean as text: what was resampled, and the ends of the interval."""
    return f"95 % bootstrap {over}: {low:.{digits}f} to {high:.{digits}f}"
