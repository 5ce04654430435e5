"""Table of a comparison: one pipeline under several settings, interleaved in one run."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from atom_repro.datatypes import CaptionWork
from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured, median_interval
from atom_repro.report.identity import device_and_model, select
from atom_repro.report.select import validity_note

NAME = "compare"
_STAGES = ("load", "encode", "caption", "script")
_TIMES, _RATIOS, _BOUND = "seconds of the first prompt", "beside the first variant", "its bound"
_MEMORY = "peak memory of a session"


def compare(records: Sequence[Record]) -> list[Row]:
    """A row per variant: seconds of the first prompt and of its stages; how many times as fast as
    the first variant, by the pairs of a round; how many times its bound; memory; captions.

    The bound of a prompt is the sum of its loads' bytes, its captions' and its other texts' bytes
    and operations at the fastest rates of the run: what no overlap of modules on one processor can
    undercut.
    """
    return [row for record in select(records, NAME).values() for row in _of_record(record)]


def _of_record(record: Record) -> list[Row]:
    values, scale = record.values, record.data["scale"]
    rows: list[Row] = []
    reference = next(iter(values["variants"]))
    of_reference = _prompts(record, reference)

    for name, variant in values["variants"].items():
        prompts = _prompts(record, name)
        prefix = f"{device_and_model(record)}/{record.config('pipeline.name')}"
        row = f"{prefix}/{variant['arm']}/{name}"
        note = f"{validity_note(record)}; {', '.join(variant['overrides'])}"

        def add(
            column: str,
            grid: str,
            numbers: Sequence[float],
            unit: str,
            *,
            row: str = row,
            note: str = note,
        ) -> None:
            interval = median_interval(numbers)
            spread = "95 % interval of the median" if interval else extremes(numbers)
            rows.append(
                measured(
                    NAME, row, f"{scale}/{column}", median(numbers), unit, record,
                    n=len(numbers), spread=spread, interval=interval, note=note, grid=grid,
                )
            )  # fmt: skip

        add("prompt 1", _TIMES, [p["end_to_end_s"] for p in prompts.values()], "s")
        for stage in _STAGES:
            seconds = [p["stages_s"].get(stage, 0.0) for p in prompts.values()]
            if any(seconds):
                add(stage, _TIMES, seconds, "s")
        if name != reference:
            for column, of in _COMPARED.items():
                pairs = [of(of_reference[r]) / of(p) for r, p in prompts.items() if of(p)]
                if any(pairs):
                    add(f"{column}, times as fast as {reference}", _RATIOS, pairs, "1")
        if variant["least_work_per_clip"]:
            bound = _bound_s(record, name)
            add("least", _BOUND, [bound], "s")
            ratios = [p["end_to_end_s"] / bound for p in prompts.values()]
            add("measured / least", _BOUND, ratios, "1")
        peaks = [p["session_memory_peak_bytes"] for p in prompts.values()]
        if all(peaks):
            for kind in ("anonymous", "file"):
                add(f"{kind}, MiB", _MEMORY, [peak[kind] / 2**20 for peak in peaks], "MiB")
            add("files of its modules, MiB", _MEMORY,
                [sum(variant["module_bytes"].values()) / 2**20], "MiB")  # fmt: skip
        if name != reference:
            share = 100 * variant["captions_of_first"] / variant["captions"]
            rows.append(
                measured(
                    NAME, row, f"{scale}/captions like those of {reference}", share, "%", record,
                    n=variant["captions"], note=note, grid=_RATIOS,
                )
            )  # fmt: skip
    return rows


# What is compared of two prompts, by column.
_COMPARED: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "prompt 1": lambda p: float(p["end_to_end_s"]),
    "encode": lambda p: float(p["stages_s"].get("encode", 0.0)),
    "caption": lambda p: float(p["stages_s"].get("caption", 0.0)),
}


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
    prompts = _prompts(record, name)
    repeat, prompt = next(iter(prompts.items()))
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
