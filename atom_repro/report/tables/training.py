"""Training table: loss and validation score by step, time and memory, as a function of records."""

from collections.abc import Sequence
from statistics import mean

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured
from atom_repro.report.identity import device_and_model
from atom_repro.report.select import is_reportable


def training(records: Sequence[Record]) -> list[Row]:
    """A row for each validation of each training: mean loss since the last one, and CIDEr; and a
    row of the whole, with the step whose weights were kept."""
    return [
        row
        for record in records
        if is_reportable(record, "finetune")
        for row in _training_rows(record)
    ]


def _training_rows(record: Record) -> list[Row]:
    name = f"{device_and_model(record)}/{record.component('dataset').rpartition('.')[2]}"
    values = record.values
    by_row: dict[str, dict[str, tuple[float, str]]] = {}
    losses: list[float] = []
    for line in record.samples():
        if "caption_loss" in line:
            losses.append(line["caption_loss"])
        if "validation_cider" in line:
            by_row[f"to step {line['step']}"] = {
                "caption loss, nats a token": (mean(losses), "nats"),
                "validation CIDEr": (line["validation_cider"], "points"),
            }
            losses = []
    whole = by_row.setdefault(f"kept, step {values['best_step']}", {})
    whole["validation CIDEr"] = (values["validation_cider"], "points")
    if values["train_s"] is not None:
        whole["training"] = (values["train_s"], "s")
        whole["validation"] = (values["validation_s"], "s")
    if values.get("step_memory_measured_bytes") is not None:
        whole["memory of a step, MiB"] = (values["step_memory_measured_bytes"] / 2**20, "MiB")
    return [
        measured("training", f"{name}/{row}", column, value, unit, record)
        for row, cells in by_row.items()
        for column, (value, unit) in cells.items()
    ]
