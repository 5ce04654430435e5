"""Table cells in long format: a measured value or the paper's, with its provenance."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atom_repro.datatypes import Machine
from atom_repro.records.record import Record
from atom_repro.report.paper import Cell
from atom_repro.report.select import is_reportable, of_newest_definition, system_load_label

# Tables of seconds and memory: one section per machine, never one of two machines.
PERFORMANCE_TABLES = frozenset(
    (
        "table03",
        "arms",
        "limits",
        "training_step",
        "contention",
        "sessions",
        "endurance",
        "appendix_g",
        "peers",
        "compare",
        "table05",
        "table08",
        "energy",
        "sustained",
    )
)


@dataclass(frozen=True)
class Row:
    """One cell of a table, a line of its CSV.

    Attributes:
        ours, paper: None where there is no such value; `note` then says why.
        low, high: ends of an interval, of the kind that `spread` names.
        spread: how repeats differ, as text: a kind of interval, or their extremes.
        difference: whether the value is a difference, which an interval around 0 makes none.
        load: the system load during a timing: `quiet`, `busy` (beside other work) or `not
            recorded`.
        grid: of several grids in a section, the one that shows it.
    """

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
    low: float | None = None
    high: float | None = None
    difference: bool = False
    grid: str = ""


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
    interval: tuple[float, float] | None = None,
    difference: bool = False,
    note: str = "",
    grid: str = "",
) -> Row:
    """Cell of a measured value with its record; the note marks uncommitted code.

    Args:
        interval: its ends; `spread` says what kind it is.
    """
    low, high = interval or (None, None)
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
        low,
        high,
        difference,
        grid,
    )


def paper_rows(paper: Iterable[Cell], table: str, note: str) -> list[Row]:
    """Cells of the paper's table, with the reason why none of ours is beside them."""
    return [
        Row(
            table,
            c.row,
            c.column,
            None,
            c.value,
            c.unit,
            note="; ".join(filter(None, (c.note, note))),
        )
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


def median_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Distribution-free interval of a median: the order statistics between which it lies with at
    least this confidence, whatever the distribution. None if there are too few values (below 6 at
    95 %).

    Source: binomial probabilities of how many of the values are below the median.
    """
    ordered, n = sorted(values), len(values)
    outside, rank = 0.0, 0
    while rank < n // 2 and 2 * (outside + math.comb(n, rank) * 0.5**n) <= 1 - confidence:
        outside += math.comb(n, rank) * 0.5**n
        rank += 1
    return (ordered[rank - 1], ordered[n - rank]) if rank else None
