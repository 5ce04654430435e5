"""Table of a comparison: one pipeline under several settings, interleaved in one run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from atom_repro.datatypes import CaptionWork
from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured, median_interval
from atom_repro.report.identity import device_and_model, quietness, select
from atom_repro.report.select import validity_note

NAME = "compare"
_STAGES = ("load", "encode", "caption", "script")
_TIMES, _RATIOS, _BOUND = "seconds of the first prompt", "beside the first variant", "its bound"
_MEMORY = "peak memory of a session"

# What is compared of two prompts, by column.
_COMPARED: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "prompt 1": lambda p: float(p["end_to_end_s"]),
    "encode": lambda p: float(p["stages_s"].get("encode", 0.0)),
    "caption": lambda p: float(p["stages_s"].get("caption", 0.0)),
}

# A column of a variant: its grid, its name, a number for each repeat, and their unit.
_Column = tuple[str, str, Sequence[float], str]


def compare(records: Sequence[Record]) -> list[Row]:
    """A row per variant: seconds of the first prompt and of its stages; how many times as fast as
    the first variant, by the pairs of a round; how many times its bound; memory; captions.

    The bound of a prompt is the sum of its loads' bytes, its captions' and its other texts' bytes
    and operations at the fastest rates of the run: what no overlap of modules on one processor can
    undercut. Of two records with a variant beside the same first one, the quieter has its row.
    """
    chosen: dict[tuple[str, str, str], list[Row]] = {}
    for record in sorted(select(records, NAME).values(), key=_rank):
        for name in record.values["variants"]:
            row = _row_name(record, name)
            key = record.machine.fingerprint, str(record.data["scale"]), row
            chosen[key] = list(_cells(record, name, row))
    return [cell for cells in chosen.values() for cell in cells]


def _rank(record: Record) -> tuple[int, int]:
    return quietness(record), int(record.config("repeats") or 0)


def _row_name(record: Record, name: str) -> str:
    variants = record.values["variants"]
    first, arm = next(iter(variants)), variants[name]["arm"]
    row = f"{device_and_model(record)}/{record.config('pipeline.name')}/{arm}/{name}"
    return row if name == first else f"{row} beside {first}"


def _cells(record: Record, name: str, row: str) -> Iterator[Row]:
    variant, scale = record.values["variants"][name], record.data["scale"]
    # Defaults change; what the engine was told stands in the record.
    engine = (record.config(f"variants.{name}.engine") or {}).items()
    told = ", ".join(f"{key}={value}" for key, value in engine if key != "_target_")
    made_by = ", ".join(variant["overrides"]) + (f" ({told})" if told else "")
    note = f"{validity_note(record)}; {made_by}"
    for grid, column, numbers, unit in _columns(record, name):
        interval = median_interval(numbers)
        yield measured(
            NAME, row, f"{scale}/{column}", median(numbers), unit, record, n=len(numbers),
            spread="95 % interval of the median" if interval else extremes(numbers),
            interval=interval, note=note, grid=grid,
        )  # fmt: skip
    # Of random weights nothing is shown that could be taken for quality.
    judged = variant["weights"] != "random" and name != next(iter(record.values["variants"]))
    if judged:
        share = 100 * variant["captions_of_first"] / variant["captions"]
        yield measured(
            NAME, row, f"{scale}/same captions", share, "%", record, n=variant["captions"],
            note=note, grid=_RATIOS,
        )  # fmt: skip


def _columns(record: Record, name: str) -> Iterator[_Column]:
    variants = record.values["variants"]
    variant, first = variants[name], next(iter(variants))
    prompts = _prompts(record, name)

    yield _TIMES, "prompt 1", [p["end_to_end_s"] for p in prompts.values()], "s"
    for stage in _STAGES:
        seconds = [p["stages_s"].get(stage, 0.0) for p in prompts.values()]
        if any(seconds):
            yield _TIMES, stage, seconds, "s"

    if name != first:
        of_first = _prompts(record, first)
        for column, of in _COMPARED.items():
            pairs = [of(of_first[r]) / of(p) for r, p in prompts.items() if of(p)]
            if any(pairs):
                yield _RATIOS, f"{column}, times as fast", pairs, "1"

    if variant["least_work_per_clip"]:
        bound = _bound_s(record, name)
        yield _BOUND, "least", [bound], "s"
        yield _BOUND, "measured / least", [p["end_to_end_s"] / bound for p in prompts.values()], "1"

    peaks = [p["session_memory_peak_bytes"] for p in prompts.values()]
    if all(peaks):
        for kind in ("anonymous", "file"):
            yield _MEMORY, f"{kind}, MiB", [peak[kind] / 2**20 for peak in peaks], "MiB"
        files = sum(variant["module_bytes"].values()) / 2**20
        yield _MEMORY, "files of its modules, MiB", [files], "MiB"


def _bound_s(record: Record, name: str) -> float:
    """Least seconds of the first prompt: each of its loads read once, its clips, its texts."""
    values = record.values
    variant = values["variants"][name]
    work = CaptionWork(**variant["least_work_per_clip"])
    rates = {
        key: max(rate, values["limits_after"][key]) for key, rate in values["limits_before"].items()
    }
    arithmetic, batch = variant["arithmetic"], variant["decode_batch"]
    per_clip = sum(work.lower_bound_s(rates, arithmetic, batch).values())
    repeat, prompt = next(iter(_prompts(record, name).items()))
    spans = [
        s for s in record.samples()
        if s["kind"] == "span" and (s["variant"], s["repeat"]) == (name, repeat)
        and s["end_s"] <= prompt["end_to_end_s"] + 1e-3
    ]  # fmt: skip
    read = sum(s["bytes_read"] for s in spans)
    # A step of a text reads what one of a caption reads, but for a clip's keys and values, which
    # are less than a hundredth of it; the first token is the prefill's.
    steps = sum(max(0, s["tokens"] - 1) for s in spans if s["stage"] != "caption")
    read_s = (read + steps * work.step_bytes) / rates["read_bytes_per_s"]
    return float(values["clips"] * per_clip + read_s)


def _prompts(record: Record, name: str) -> dict[int, dict[str, Any]]:
    """The first prompt of each repeat."""
    return {
        sample["repeat"]: sample
        for sample in record.samples()
        if sample["kind"] == "prompt"
        and (sample["variant"], sample["prompt"], sample["warmup"]) == (name, 0, False)
    }
