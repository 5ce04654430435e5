"""Every table and figure that records and the paper's cells give, as texts by path."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report import (
    latency_table,
    oracle_tables,
    session_table,
    storage_table,
    sweep_table,
    task_table,
    training_table,
)
from atom_repro.report.endurance_table import endurance
from atom_repro.report.figures import learning_curve, timeline
from atom_repro.report.files import to_csv, to_markdown
from atom_repro.report.paper import Cell
from atom_repro.report.tables import build_all


def texts(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, str]:
    """Contents by path below the results' folder; what no record gives is absent or says so."""
    made = {}
    tables = {
        **build_all(records, paper),
        **latency_table.build(records, paper),
        **storage_table.build(records, paper),
        "tasks": task_table.tasks(records),
        "endurance": endurance(records),
        "training_step": training_table.training_step(records),
    }
    for name, rows in tables.items():
        made[f"tables/{name}.csv"] = to_csv(rows)
        made[f"tables/{name}.md"] = to_markdown(name, rows)
    for name, rows in oracle_tables.build(records, paper).items():
        made[f"tables/{name}.csv"] = to_csv(rows)
        made[f"tables/{name}.md"] = oracle_tables.to_markdown(name, rows)
    made |= session_table.files(records)
    made |= sweep_table.files(records)
    for name, figure in (
        ("timeline_fp32", timeline(records, "fp32")),
        ("timeline_int8", timeline(records, "int8")),
        ("learning_curve", learning_curve(records)),
        ("oracle_gallery", oracle_tables.gallery_figure(records, paper)),
    ):
        if figure is not None:
            made[f"figures/{name}.svg"] = figure
    return made
