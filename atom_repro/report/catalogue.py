"""Render every table and figure from records and the paper's cells, as text by file path."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.figures import learning_curve, timeline
from atom_repro.report.paper import Cell
from atom_repro.report.render import to_csv, to_markdown
from atom_repro.report.tables import (
    compare,
    device,
    human_captions,
    latency,
    left_out,
    peers,
    sessions,
    storage,
    sweep,
    tasks,
    training_step,
)
from atom_repro.report.tables.endurance import endurance
from atom_repro.report.tables.quality import build_all
from atom_repro.report.tables.text_embedder import table7


def render_all(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, str]:
    """File contents by path below the results' folder; figures without records are left out."""
    contents = {}
    tables = {
        **build_all(records, paper),
        **latency.build(records, paper),
        **storage.build(records, paper),
        **device.build(records, paper),
        "tasks": tasks.tasks(records),
        "endurance": endurance(records),
        "training_step": training_step.training_step(records),
        "contention": training_step.contention(records),
        "table07": table7(records, paper),
        **human_captions.build(records, paper),
        **sessions.build(records),
        left_out.NAME: left_out.left_out(records),
    }
    if compared := peers.build(records):
        tables[peers.NAME] = compared
    if variants := compare.compare(records):
        tables[compare.NAME] = variants
    if points := sweep.build(records):
        tables[sweep.NAME] = points
    for name, rows in tables.items():
        contents[f"tables/{name}.csv"] = to_csv(rows)
        contents[f"tables/{name}.md"] = to_markdown(name, rows)
    contents |= sessions.figures(records)
    for name, figure in (
        ("timeline_fp32", timeline(records, "fp32")),
        ("timeline_int8", timeline(records, "int8")),
        ("learning_curve", learning_curve(records)),
        (sweep.NAME, sweep.curves(records)),
        ("oracle_gallery", human_captions.gallery_figure(records, paper)),
    ):
        if figure is not None:
            contents[f"figures/{name}.svg"] = figure
    return contents
