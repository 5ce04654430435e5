"""Sessions table and curves: model loads, bytes read and seconds of each prompt of a session.

The paper claims that without reuse every prompt loads the models again; the columns of loads test
that. Pure functions of records.
"""

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib.pyplot as plt

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured, omitted_records
from atom_repro.report.identity import device_and_model, precision_label, select
from atom_repro.report.select import (
    HOST_TINY,
    busy_suffix,
    module_load_definition,
    system_load_label,
    validity_note,
)
from atom_repro.report.svg import svg

NAME = "sessions"
COLOURS = {
    "resident": "#1f77b4",
    "co_resident": "#2ca02c",
    "reload_stage": "#ff7f0e",
    "reload_input": "#d62728",
}
LINE_STYLES = {"fresh": "-", "indexed": "--"}


def newest(records: Sequence[Record]) -> list[Record]:
    """The record that stands for each identity, in the order in which they first appear."""
    return list(select(records, NAME).values())


def _configuration(record: Record) -> tuple[str, str, str]:
    """Device and model, pipeline and precision."""
    return device_and_model(record), str(record.values["pipeline"]), precision_label(record)


def build(records: Sequence[Record]) -> dict[str, list[Row]]:
    """Rows of the sessions table by its file stem: one row per session.

    Prompts are counted from 1. Seconds are medians over repeats; loads and bytes are the same in
    every repeat, which is checked.
    """
    rows = [row for record in newest(records) for row in _rows_of(record)]
    return {NAME: rows + omitted_records(records, NAME, NAME)}


def _rows_of(record: Record) -> list[Row]:
    """Rows of every session of one record."""
    rows: list[Row] = []
    by_session = _prompts_by_session(record)
    for name in record.values["sessions"]:
        row = f"{'/'.join(_configuration(record))}/{name}"
        repeats = by_session.get(name)
        if repeats is None:
            rows.append(
                Row(NAME, row, _column(record, "prompt 1"), None, None, "s",
                    scale=str(record.data["scale"]), machine=record.machine,
                    load=system_load_label(record), records=record.run_id, note="out of memory",
                    grid="seconds")
            )  # fmt: skip
            continue
        fresh = by_session.get("fresh/" + name.partition("/")[2])
        rows += _session_rows(record, row, repeats, fresh if name.startswith("indexed/") else None)
    return rows


def _session_rows(
    record: Record,
    row: str,
    repeats: Mapping[int, Sequence[dict[str, Any]]],
    fresh: Mapping[int, Sequence[dict[str, Any]]] | None,
) -> list[Row]:
    """Cells of one session; an indexed one is compared with `fresh`, the same without an index."""
    counts: list[int] = record.values["prompt_counts"]
    prompt_numbers = sorted({*counts, min(2, max(counts))})
    first_repeat = next(iter(repeats.values()))
    for prompts in repeats.values():
        assert [_loads_and_bytes(p) for p in prompts] == [
            _loads_and_bytes(p) for p in first_repeat
        ], f"{row}: loads differ between repeats"
    cells: list[tuple[str, float, str]] = []
    for n in prompt_numbers:
        cells.append((f"loads in prompt {n}", sum(first_repeat[n - 1]["loads"].values()), "1"))
    for n in prompt_numbers:
        cells.append((f"bytes read in prompt {n}", first_repeat[n - 1]["bytes_read"], "byte"))
    count_rows = [
        measured(NAME, row, _column(record, name), value, unit, record, n=len(repeats),
                 note=f"{validity_note(record)}; {record.values['clips']} clips",
                 grid="loads and bytes")
        for name, value, unit in cells
    ]  # fmt: skip
    seconds: dict[str, list[float]] = {
        f"prompt {n}": [p[n - 1]["end_to_end_s"] for p in repeats.values()] for n in prompt_numbers
    }
    note = (
        f"{validity_note(record)}; {record.values['clips']} clips; {module_load_definition(record)}"
    )
    session_lengths = [n for n in counts if n > 1]
    for n in session_lengths:
        seconds[f"prompts 1-{n}"] = [_total_seconds(p, n) for p in repeats.values()]
    if fresh is not None:
        for n in session_lengths:
            seconds[f"saved by the index in prompts 1-{n}"] = [
                _total_seconds(fresh[r], n) - _total_seconds(p, n)
                for r, p in repeats.items()
                if r in fresh
            ]
    return count_rows + [
        measured(NAME, row, _column(record, name), median(values), "s", record, n=len(values),
                 spread=extremes(values), note=note, grid="seconds")
        for name, values in seconds.items()
        if values
    ]  # fmt: skip


def figures(records: Sequence[Record]) -> dict[str, str]:
    """Curves of every configuration, by path below the results' folder."""
    texts = {}
    for record in newest(records):
        device, pipeline, precision = _configuration(record)
        suffix = "" if device == HOST_TINY else "_" + re.sub(r"\W+", "-", device)
        texts[f"figures/sessions_{pipeline}_{precision}{suffix}.svg"] = curves(record)
    return texts


def curves(record: Record) -> str:
    """Figure of every sequential session: seconds by prompt, and cumulative seconds."""
    figure, (prompt_axis, total_axis) = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    schedule = "sequential"
    for name, repeats in _prompts_by_session(record).items():
        session, residency, session_schedule = name.split("/")
        if session_schedule != schedule:
            continue
        prompts = range(1, len(next(iter(repeats.values()))) + 1)
        style = {"color": COLOURS[residency], "linestyle": LINE_STYLES[session], "marker": "."}
        seconds = [median(p[n - 1]["end_to_end_s"] for p in repeats.values()) for n in prompts]
        cumulative = [median(_total_seconds(p, n) for p in repeats.values()) for n in prompts]
        prompt_axis.plot(prompts, seconds, label=f"{session}, {residency}", **style)
        total_axis.plot(prompts, cumulative, **style)
    prompt_axis.set_yscale("log")
    prompt_axis.set_ylabel("seconds of the prompt")
    total_axis.set_ylabel("seconds of all prompts so far")
    for axis in (prompt_axis, total_axis):
        axis.set_xlabel("prompt")
        axis.set_ylim(bottom=None if axis is prompt_axis else 0)
    figure.legend(loc="lower center", ncols=4, fontsize=8)
    figure.suptitle(
        f"{record.values['pipeline']}, {precision_label(record)}, {schedule}, "
        f"{record.values['clips']} clips ({record.data['scale']}: {validity_note(record)}), "
        f"{record.machine.processor}{busy_suffix(record)}",
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    return svg(figure)


def _prompts_by_session(record: Record) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Prompts in order, by session and repeat, without warm-ups and sessions out of memory."""
    sessions: dict[str, dict[int, list[dict[str, Any]]]] = {}
    out_of_memory = set(record.values["out_of_memory"])
    for sample in record.samples():
        if sample["kind"] == "prompt" and not sample["warmup"]:
            name = f"{sample['session']}/{sample['residency']}/{sample['schedule']}"
            if name not in out_of_memory:
                sessions.setdefault(name, {}).setdefault(sample["repeat"], []).append(sample)
    return sessions


def _loads_and_bytes(prompt: Mapping[str, Any]) -> tuple[Mapping[str, int], int]:
    return prompt["loads"], prompt["bytes_read"]


def _total_seconds(prompts: Sequence[Mapping[str, Any]], n: int) -> float:
    return float(sum(p["end_to_end_s"] for p in prompts[:n]))


def _column(record: Record, name: str) -> str:
    return f"{record.data['scale']}/{name}"
