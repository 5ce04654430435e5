"""What a training step of each size costs, as a pure function of records."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.tables import Row, measured, ran_on


def training_step(records: Sequence[Record]) -> list[Row]:
    """A row for each device, model, precision and number of clips, of several runs the newest.

    A size without memory is a row with what it was estimated to need.
    """
    found: dict[tuple[str, int], Record] = {}
    for record in records:
        if record.stage == "training_step" and record.data["status"] in ("ok", "oom"):
            if record.data["scale"] == "smoke" or "clips" not in record.values:
                continue
            again = record.config("train.gradient_checkpointing")
            kind = f"{record.values['precision']}{', blocks recomputed' if again else ''}"
            found[f"{ran_on(record)}/{kind}", record.values["clips"]] = record
    rows: list[Row] = []
    for (row, clips), record in sorted(found.items(), key=lambda item: item[0]):
        values = record.values
        measured_bytes = values.get("step_memory_measured_bytes")
        cells = [("memory estimated, MiB", values["step_memory_estimated_bytes"] / 2**20, "MiB")]
        if record.ok:
            cells += [
                ("step", values["step_s"], "s"),
                ("tokens/s", values["tokens_per_s"], "1/s"),
                ("share of the multiply rate", 100 * values["share_of_limit"], "percent"),
            ]
        if measured_bytes is not None:
            cells.append(("memory measured, MiB", measured_bytes / 2**20, "MiB"))
        steps = [s["seconds"] for s in record.samples() if not s["warmup"]]
        spread = f"min {min(steps):.4g}, max {max(steps):.4g}" if steps else ""
        for column, value, unit in cells:
            rows.append(
                measured(
                    "training_step", f"{row}/{clips} clips", column, value, unit, record,
                    n=len(steps) or None,
                    spread=spread if column == "step" else "",
                    note=f"random weights; {'tokens of both kinds' if record.ok else 'no memory'}",
                )
            )  # fmt: skip
    return rows
