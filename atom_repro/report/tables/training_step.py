"""What a training step of each size costs, as a pure function of records."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured
from atom_repro.report.select import by_machine, keep_quietest, ran_on


def training_step(records: Sequence[Record]) -> list[Row]:
    """A row for each machine, kind of training and number of clips, of several runs the newest.

    A size without memory is a row with what it was estimated to need.
    """
    return [row for mine in by_machine(records) for row in _rows(mine)]


def _rows(records: Sequence[Record]) -> list[Row]:
    found: dict[tuple[str, int], Record] = {}
    for record in records:
        tried = record.stage == "training_step" and record.data["status"] in ("ok", "oom")
        if tried and record.data["scale"] != "smoke" and "clips" in record.values:
            keep_quietest(found, (_kind(record), record.values["clips"]), record)
    rows: list[Row] = []
    for (kind, clips), record in sorted(found.items(), key=lambda item: item[0]):
        row = f"{kind}/{clips} clips{'' if record.ok else ', no memory'}"
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
        spread = extremes(steps) if steps else ""
        for column, value, unit in cells:
            rows.append(
                measured(
                    "training_step", row, column, value, unit, record,
                    n=len(steps) or None,
                    spread=spread if column == "step" else "",
                    note="random weights; tokens are visual and text",
                )
            )  # fmt: skip
    return rows


def _kind(record: Record) -> str:
    """Everything but the number of clips that a step's cost depends on."""
    captions, tokens = record.config("train.captions_per_clip"), record.config("caption_tokens")
    kind = f"{ran_on(record)}/{record.values['precision']}, {captions} x {tokens} tokens a clip"
    if record.data["device"] == "cpu":
        kind += f", {record.config('train.threads')} threads"
    if record.config("train.gradient_checkpointing"):
        kind += ", blocks recomputed"
    parts = record.config("train.components") or {}
    return kind + "".join(f", {name} {how}" for name, how in sorted(parts.items()))
