"""Sessions: what each prompt of a session loads and costs, as a table and as curves.

The paper's claim is that without reuse every prompt restarts the cycle of loading models; the
columns of loads answer it. Pure functions of records, like `tables`.
"""

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib.pyplot as plt

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured, omitted_records
from atom_repro.report.render import BUSY, busy_mark, records_line, rows_by_machine, to_csv
from atom_repro.report.select import (
    HOST_TINY,
    busy_suffix,
    by_machine,
    functional,
    keep_quietest,
    load_definition,
    load_label,
    of_newest_definition,
    ran_on,
)
from atom_repro.report.svg import svg

NAME = "sessions"
COLOURS = {
    "resident": "#1f77b4",
    "co_resident": "#2ca02c",
    "reload_stage": "#ff7f0e",
    "reload_input": "#d62728",
}
LINES = {"fresh": "-", "indexed": "--"}


def newest(records: Sequence[Record]) -> dict[tuple[str, str, str], Record]:
    """The newest good record of each device and model, pipeline and precision, a quiet one before
    one beside other work; smoke left out."""
    found: dict[tuple[str, str, str], Record] = {}
    for r in of_newest_definition(records, NAME):
        keep_quietest(found, (ran_on(r), str(r.values["pipeline"]), str(r.values["precision"])), r)
    return found


def build(records: Sequence[Record]) -> dict[str, list[Row]]:
    """The table by its file stem: a row a session, columns by what is counted.

    Prompts are counted from 1. Seconds are medians over repeats; loads and bytes are the same in
    every repeat, which is checked.
    """
    groups = by_machine(of_newest_definition(records, NAME))
    return {
        NAME: [row for mine in groups for row in _rows(mine)] + omitted_records(records, NAME, NAME)
    }


def _rows(records: Sequence[Record]) -> list[Row]:
    """Every session of one machine."""
    rows: list[Row] = []
    for ran, record in newest(records).items():
        by_session = _sessions(record)
        for name in record.values["sessions"]:
            row = f"{'/'.join(ran)}/{name}"
            repeats = by_session.get(name)
            if repeats is None:
                rows.append(
                    Row(NAME, row, _column(record, "prompt 1"), None, None, "s",
                        scale=str(record.data["scale"]), machine=record.machine,
                        load=load_label(record), records=record.run_id, note="out of memory")
                )  # fmt: skip
                continue
            fresh = by_session.get("fresh/" + name.partition("/")[2])
            rows += _row(record, row, repeats, fresh if name.startswith("indexed/") else None)
    return rows


def _row(
    record: Record,
    row: str,
    repeats: Mapping[int, Sequence[dict[str, Any]]],
    fresh: Mapping[int, Sequence[dict[str, Any]]] | None,
) -> list[Row]:
    """Every cell of one session; `fresh` is its twin that processes the videos for each prompt."""
    counts: list[int] = record.values["prompt_counts"]
    shown = sorted({*counts, min(2, max(counts))})
    first = next(iter(repeats.values()))
    for prompts in repeats.values():
        assert [_read(p) for p in prompts] == [_read(p) for p in first], f"{row}: loads differ"
    cells: list[tuple[str, float, str]] = []
    for n in shown:
        cells.append((f"loads in prompt {n}", sum(first[n - 1]["loads"].values()), "1"))
    for n in shown:
        cells.append((f"bytes read in prompt {n}", first[n - 1]["bytes_read"], "byte"))
    made = [
        measured(NAME, row, _column(record, name), value, unit, record, n=len(repeats),
                 note=f"{functional(record)}; {record.values['clips']} clips")
        for name, value, unit in cells
    ]  # fmt: skip
    seconds: dict[str, list[float]] = {
        f"prompt {n}": [p[n - 1]["end_to_end_s"] for p in repeats.values()] for n in shown
    }
    about = f"{functional(record)}; {record.values['clips']} clips; {load_definition(record)}"
    several = [n for n in counts if n > 1]
    for n in several:
        seconds[f"prompts 1-{n}"] = [_total(p, n) for p in repeats.values()]
    if fresh is not None:
        for n in several:
            seconds[f"saved by the index in prompts 1-{n}"] = [
                _total(fresh[r], n) - _total(p, n) for r, p in repeats.items() if r in fresh
            ]
    return made + [
        measured(NAME, row, _column(record, name), median(values), "s", record, n=len(values),
                 spread=extremes(values), note=about)
        for name, values in seconds.items()
        if values
    ]  # fmt: skip


def to_markdown(name: str, rows: Sequence[Row]) -> str:
    """A section a machine: a grid of loads and bytes, and a grid of seconds."""
    lines = ["# What the n-th prompt of a session loads and costs", ""]
    if not rows:
        return "\n".join(
            [*lines, "No record of ours yet: `python -m device_bench.sessions` makes them.", ""]
        )
    scales = ", ".join(sorted({r.scale for r in rows if r.scale}))
    lines += [
        f"Ours, scale {scales}, a section a machine. A row is device/model/pipeline/precision/"
        "session/residency/schedule. Medians over repeats; all sessions gave the same tokens and "
        "rankings.",
        "",
    ]
    for heading, mine in rows_by_machine(rows).items():
        lines += [f"## {heading}", ""]
        counted = [r for r in mine if r.unit != "s"]
        timed = [r for r in mine if r.unit == "s"]
        for part in (counted, timed):
            lines += [*_grid(part), ""]
        lines += [f"- {note}." for note in sorted({r.note for r in mine if r.note})]
        lines += [BUSY] if any(r.load == "busy" for r in mine) else []
        lines += ["", records_line(mine), ""]
    lines += [f"- {r.note}." for r in rows if r.machine is None]
    return "\n".join(lines).rstrip() + "\n"


def files(records: Sequence[Record]) -> dict[str, str]:
    """Texts by path below the results' folder: the table twice, and the curves if there are any."""
    texts = {}
    for name, rows in build(records).items():
        texts[f"tables/{name}.csv"] = to_csv(rows)
        texts[f"tables/{name}.md"] = to_markdown(name, rows)
    for (ran, pipeline, precision), record in newest(records).items():
        other = "" if ran == HOST_TINY else "_" + re.sub(r"\W+", "-", ran)
        texts[f"figures/sessions_{pipeline}_{precision}{other}.svg"] = curves(record)
    return texts


def curves(record: Record) -> str:
    """Seconds of the n-th prompt, and of all prompts up to it, of every sequential session."""
    figure, (each, total) = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    schedule = "sequential"
    for name, repeats in _sessions(record).items():
        session, residency, ran = name.split("/")
        if ran != schedule:
            continue
        prompts = range(1, len(next(iter(repeats.values()))) + 1)
        style = {"color": COLOURS[residency], "linestyle": LINES[session], "marker": "."}
        single = [median(p[n - 1]["end_to_end_s"] for p in repeats.values()) for n in prompts]
        summed = [median(_total(p, n) for p in repeats.values()) for n in prompts]
        each.plot(prompts, single, label=f"{session}, {residency}", **style)
        total.plot(prompts, summed, **style)
    each.set_yscale("log")
    each.set_ylabel("seconds of the prompt")
    total.set_ylabel("seconds of all prompts so far")
    for axis in (each, total):
        axis.set_xlabel("prompt")
        axis.set_ylim(bottom=None if axis is each else 0)
    figure.legend(loc="lower center", ncols=4, fontsize=8)
    figure.suptitle(
        f"{record.values['pipeline']}, {record.values['precision']}, {schedule}, "
        f"{record.values['clips']} clips ({record.data['scale']}: {functional(record)}), "
        f"{record.machine.processor}{busy_suffix(record)}",
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    return svg(figure)


def _sessions(record: Record) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Prompts in order, by session and repeat; warm-ups and sessions without memory left out."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    ended = set(record.values["out_of_memory"])
    for s in record.samples():
        if s["kind"] == "prompt" and not s["warmup"]:
            name = f"{s['session']}/{s['residency']}/{s['schedule']}"
            if name not in ended:
                found.setdefault(name, {}).setdefault(s["repeat"], []).append(s)
    return found


def _read(prompt: Mapping[str, Any]) -> tuple[Mapping[str, int], int]:
    return prompt["loads"], prompt["bytes_read"]


def _total(prompts: Sequence[Mapping[str, Any]], n: int) -> float:
    return float(sum(p["end_to_end_s"] for p in prompts[:n]))


def _column(record: Record, name: str) -> str:
    return f"{record.data['scale']}/{name}"


def _grid(rows: Sequence[Row]) -> list[str]:
    columns = list(dict.fromkeys(r.column for r in rows))
    cells = {(r.row, r.column): r for r in rows}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(r.row for r in rows):
        shown = [_shown(cells.get((name, column))) for column in columns]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def _shown(row: Row | None) -> str:
    if row is None:
        return ""
    if row.ours is None:
        return row.note
    if row.unit != "s":
        return f"{row.ours:,.0f}"
    return f"{row.ours:.3g} s{busy_mark(row)}"
