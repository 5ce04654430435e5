"""Training-step table: seconds, tokens/s and memory of a step, as a function of records."""

from collections.abc import Sequence
from statistics import median

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured
from atom_repro.report.identity import device_and_model, select


def training_step(records: Sequence[Record]) -> list[Row]:
    """A row per training configuration and number of clips.

    A run out of memory has a row with its estimated memory.
    """
    chosen = [r for r in select(records, "training_step").values() if "clips" in r.values]
    rows: list[Row] = []
    for record in sorted(chosen, key=lambda r: (_configuration(r), r.values["clips"])):
        clips = record.values["clips"]
        row = f"{_configuration(record)}/{clips} clips{'' if record.ok else ', no memory'}"
        values = record.values
        measured_bytes = values.get("step_memory_measured_bytes")
        cells = [("tensors, MiB", values["step_memory_estimated_bytes"] / 2**20, "MiB")]
        if "step_memory_bound_bytes" in values:
            cells.append(("upper bound, MiB", values["step_memory_bound_bytes"] / 2**20, "MiB"))
        if record.ok:
            cells += [
                ("step", values["step_s"], "s"),
                ("tokens/s", values["tokens_per_s"], "1/s"),
                ("share of the multiply rate", 100 * values["share_of_limit"], "percent"),
            ]
        if measured_bytes is not None:
            cells.append(("measured, MiB", measured_bytes / 2**20, "MiB"))
        steps = [s["seconds"] for s in record.samples() if not s["warmup"]]
        spread = extremes(steps) if steps else ""
        for column, value, unit in cells:
            rows.append(
                measured(
                    "training_step", row, column, value, unit, record,
                    n=len(steps) or None,
                    spread=spread if column == "step" else "",
                    note=_NOTE + _stop(record),
                )
            )  # fmt: skip
    return rows


def contention(records: Sequence[Record]) -> list[Row]:
    """A row per number of worker processes and of busy processes beside them.

    `speed` is the share of the speed with none beside them, `of a fair share` what that is of
    c / (c + k), which a fair system leaves a training on c cores beside k others.
    """
    rows: list[Row] = []
    for record in select(records, "contention").values():
        cores, timed = record.values["cores"], [s for s in record.samples() if not s["warmup"]]
        seconds: dict[tuple[int, int], list[float]] = {}
        for sample in timed:
            seconds.setdefault((sample["workers"], sample["busy"]), []).append(sample["seconds"])
        for (workers, busy), steps in sorted(seconds.items()):
            speed = median(seconds[workers, 0]) / median(steps)
            row = f"host/{record.values['model']}/{workers} workers/{busy} busy"
            for column, value, unit in (
                ("step", median(steps), "s"),
                ("speed", 100 * speed, "percent"),
                ("of a fair share", 100 * speed * (cores + busy) / cores, "percent"),
            ):
                rows.append(
                    measured(
                        "contention", row, column, value, unit, record, n=len(steps),
                        spread=extremes(steps) if column == "step" else "",
                        note=f"{cores} cores; medians of steps over rounds; the busy processes "
                        "are this benchmark's own",
                    )
                )  # fmt: skip
    return rows


_NOTE = (
    "random weights; tokens are visual and text; tensors as estimated before the step, and what "
    "the process held"
)


def _stop(record: Record) -> str:
    """Why no larger step was tried, where the setting and not memory was the reason."""
    if record.ok and record.values["clips"] == record.config("most_clips"):
        return "; the largest that most_clips let it try, memory did not end it"
    return ""


def _configuration(record: Record) -> str:
    """Row name: all that the cost of a step depends on, but the number of clips."""
    captions, tokens = record.config("train.captions_per_clip"), record.config("caption_tokens")
    precision = record.values["precision"]
    text = f"{device_and_model(record)}/{precision}, {captions} x {tokens} tokens a clip"
    if record.data["device"] == "cpu":
        text += f", {record.config('train.threads')} threads"
    if record.config("train.gradient_checkpointing"):
        text += ", blocks recomputed"
    components = record.config("train.components") or {}
    return text + "".join(f", {name} {method}" for name, method in sorted(components.items()))
