"""The tables of one record as text, which a command prints when it has measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from atom_repro.records.record import Record, read_record
from atom_repro.report.cells import Row
from atom_repro.report.render import cell_text
from atom_repro.report.tables import (
    compare,
    human_captions,
    latency,
    peers,
    quality,
    sessions,
    storage,
)
from atom_repro.report.tables.endurance import endurance
from atom_repro.report.tables.tasks import tasks
from atom_repro.report.tables.text_embedder import table7
from atom_repro.report.tables.training import training
from atom_repro.report.tables.training_step import contention, training_step

Table = Callable[[Sequence[Record]], list[Row]]
# The tables that a record of each stage fills.
_TABLES: Mapping[str, Sequence[Table]] = {
    "finetune": (training,),
    "caption": (lambda r: quality.table1(r, []), quality.attributes),
    "retrieval": (lambda r: quality.table2(r, []), lambda r: quality.table10(r, [])),
    "tasks": (tasks,),
    "latency": (latency.arms, latency.limits),
    "compare": (compare.compare,),
    "peers": (peers.build,),
    "sessions": (lambda r: sessions.build(r)[sessions.NAME],),
    "endurance": (endurance,),
    "training_step": (training_step,),
    "contention": (contention,),
    "storage": (lambda r: storage.table6(r, []), lambda r: storage.table9(r, [])),
    "text_embedder": (lambda r: table7(r, []),),
    "oracle_caption": (lambda r: human_captions.human_beside_paper(r, []),),
    "oracle_retrieval": (lambda r: human_captions.human_beside_paper(r, []),),
}


def summary(*folders: Path | None) -> str:
    """What a run measured, as aligned text, and where its record lies.

    A smoke run is shown too, which no committed or local table does.

    Args:
        folders: of the run's records, as `Run.folder` has them; all of one stage.
    """
    written = [folder for folder in folders if folder]
    records = [replace(read_record(folder), preview=True) for folder in written]
    parts = []
    for table in _TABLES[records[0].stage]:
        rows = [row for row in table(records) if row.ours is not None]
        parts += [as_text(of_grid, title) for title, of_grid in _grids(rows).items()]
    if records[0].data["scale"] == "smoke":
        parts.append("a smoke run: it shows that this works, and is in no table")
    return "\n\n".join([*parts, *(f"record: {folder}" for folder in written)])


def _grids(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the title of their grid where grids share cells' names, else all in one."""
    names = [(row.row, row.column) for row in rows]
    grids: dict[str, list[Row]] = {}
    for row in rows:
        grids.setdefault(row.grid if len(set(names)) < len(names) else "", []).append(row)
    return grids


def as_text(rows: Sequence[Row], title: str = "") -> str:
    """Values of ours as an aligned grid. What all row names, or all column names, begin with stands
    once, above it and behind `title`; names that are many stand below each other."""
    row_prefix = _common_prefix([row.row for row in rows])
    column_prefix = _common_prefix([row.column for row in rows])
    texts: dict[str, dict[str, str]] = {}
    for row in rows:
        cells = texts.setdefault(row.row.removeprefix(row_prefix), {})
        cells[row.column.removeprefix(column_prefix)] = cell_text(row)
    grid = pd.DataFrame.from_dict(texts, orient="index").fillna("")
    if len(grid.columns) > max(6, len(grid)):
        grid = grid.T
    shared = f"{row_prefix}{column_prefix}".strip("/")
    title = f"{title}: {shared}" if title and shared else title or shared
    with pd.option_context("display.width", None, "display.max_colwidth", None):
        text = grid.to_string(max_rows=None, max_cols=None)
    return f"{title}\n{text}" if title else text


def _common_prefix(names: Sequence[str]) -> str:
    """The parts, each with its slash, that all names begin with; empty for a single name."""
    distinct = [name.split("/") for name in dict.fromkeys(names)]
    if len(distinct) < 2:
        return ""
    shared = 0
    for parts in zip(*distinct, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return "".join(f"{part}/" for part in distinct[0][:shared])
