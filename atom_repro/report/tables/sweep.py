"""The grid of learning rates and batch sizes (paper appendix G): a table, and curves by epoch.

The paper chose 2e-5 and 128 and saw over-fitting after 10 epochs; the columns answer whether the
score falls again after its best epoch. Pure functions of `finetune` records, like `tables`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt

from atom_repro.records.component import with_names
from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured
from atom_repro.report.render import BUSY, busy_mark, records_line, rows_by_machine, to_csv
from atom_repro.report.select import by_machine, keep_quietest, quietness
from atom_repro.report.svg import svg

NAME = "appendix_g"
# What tells the points of a grid apart; records that differ in anything else are of another grid.
_AXES = ("learning_rate", "batch_size")
# The epoch after which the paper's training over-fitted.
_PAPER_EPOCH = 10


def points(records: Sequence[Record]) -> dict[tuple[float, int], dict[int, Record]]:
    """The newest good record of each seed, by learning rate and batch size; smoke left out.

    Only of the grid of the newest such record: same machine, data, model and settings otherwise.
    """
    mine = [
        r
        for r in records
        if r.stage == "finetune"
        and r.ok
        and r.data["scale"] != "smoke"
        and r.config("sweep") == NAME
    ]
    found: dict[tuple[float, int], dict[int, Record]] = {}
    for record in mine:
        if (record.machine, _settings(record)) == (mine[-1].machine, _settings(mine[-1])):
            train = record.data["config"]["train"]
            key = (float(train["learning_rate"]), int(train["batch_size"]))
            keep_quietest(found.setdefault(key, {}), int(record.config("seed")), record)
    return dict(sorted(found.items()))


def build(records: Sequence[Record]) -> list[Row]:
    """A row a machine and point. Values are means over seeds, and the spread is that of the
    seeds."""
    return [row for mine in by_machine(records) for row in _rows(mine)]


def _rows(records: Sequence[Record]) -> list[Row]:
    rows = []
    for (rate, batch), by_seed in points(records).items():
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        columns: dict[str, tuple[str, list[float]]] = {}
        for run in runs:
            for column, unit, value in _columns(run):
                columns.setdefault(column, (unit, []))[1].append(value)
        worst = min(runs, key=lambda r: (r.clean, quietness(r)))  # what the cell may claim
        for column, (unit, values) in columns.items():
            several = len(values) > 1
            row = measured(
                NAME,
                f"learning rate {rate:g}, batch {batch}",
                f"{_dataset(runs[0])}/{column}",
                mean(values),
                unit,
                worst,
                n=len(values),
                spread=extremes(values) if several else "",
                note=f"validation clips{_trained_on(runs[0])}; n and means are over seeds",
            )
            rows.append(replace(row, records=", ".join(sorted(r.run_id for r in runs))))
    return rows


def _columns(record: Record) -> list[tuple[str, str, float]]:
    """Column, unit and value of one training."""
    curve = by_epoch(record)
    best_epoch, best = max(curve, key=lambda point: point[1])
    final_epoch, final = curve[-1]
    seconds = record.values["train_s"]  # None of a training that was resumed
    return [
        ("best CIDEr", "point", best),
        ("epoch of the best", "epoch", best_epoch),
        ("final CIDEr", "point", final),
        ("final epoch", "epoch", final_epoch),
        ("over-fitting (best - final)", "point", best - final),
        *([] if seconds is None else [("training", "s", float(seconds))]),
    ]


def by_epoch(record: Record) -> list[tuple[float, float]]:
    """(epoch, validation CIDEr) in order; an epoch shows as many captions as there are."""
    steps = record.values["epoch_steps"]
    return [
        (s["step"] / steps, float(s["validation_cider"]))
        for s in record.samples()
        if "validation_cider" in s
    ]


def curves(records: Sequence[Record]) -> str | None:
    """Validation CIDEr by epoch, a panel a batch size and a line a learning rate. None without.

    A line is the mean over seeds at the epochs that all of them validated at.
    """
    found = points(records)
    if not found:
        return None
    batches = sorted({batch for _, batch in found})
    rates = sorted({rate for rate, _ in found})
    colours = dict(zip(rates, plt.get_cmap("viridis")([i / len(rates) for i in range(len(rates))]),
                       strict=True))  # fmt: skip
    figure, axes = plt.subplots(
        1, len(batches), figsize=(3 * len(batches) + 1, 3.6), sharey=True, squeeze=False
    )
    for axis, batch in zip(axes[0], batches, strict=True):
        for rate in rates:
            if (rate, batch) in found:
                line = _mean_line(list(found[rate, batch].values()))
                axis.plot(*zip(*line, strict=True), color=colours[rate], marker=".",
                          label=f"{rate:g}")  # fmt: skip
        axis.axvline(_PAPER_EPOCH, color="#9e9e9e", linewidth=0.8, linestyle=":")
        axis.set_title(f"batch {batch}", fontsize=10)
        axis.set_xlabel("epoch")
    axes[0][0].set_ylabel("validation CIDEr")
    by_label: dict[str, Any] = {}
    for axis in axes[0]:
        handles, labels = axis.get_legend_handles_labels()
        by_label |= dict(zip(labels, handles, strict=True))
    ordered = [f"{rate:g}" for rate in rates]
    figure.legend([by_label[t] for t in ordered], ordered, loc="lower center", ncols=len(rates),
                  title="learning rate", fontsize=8, title_fontsize=8)  # fmt: skip
    one = next(iter(next(iter(found.values())).values()))
    figure.suptitle(f"{one.config('model.name')} on {_dataset(one)} ({one.data['scale']}), "
                    f"{one.machine.processor}",
                    fontsize=10)  # fmt: skip
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    return svg(figure)


def files(records: Sequence[Record]) -> dict[str, str]:
    """Texts by path below the results' folder; none where no point of the grid is recorded."""
    rows = build(records)
    if not rows:
        return {}
    texts = {
        f"tables/{NAME}.csv": to_csv(rows),
        f"tables/{NAME}.md": to_markdown(rows),
    }
    figure = curves(records)
    return texts | ({f"figures/{NAME}.svg": figure} if figure else {})


def to_markdown(rows: Sequence[Row]) -> str:
    """A section a machine: the grid, the records behind it, and which point came out best."""
    lines = [
        "# Appendix G: learning rate and batch size",
        "",
        f"Ours, scale {', '.join(sorted({r.scale for r in rows}))}, a section a machine. The paper "
        "chose 2e-5 and 128, on other data and a model of another size, and saw over-fitting after "
        f"{_PAPER_EPOCH} epochs.",
        "",
    ]
    for heading, mine in rows_by_machine(rows).items():
        lines += [f"## {heading}", "", *_section(mine), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(rows: Sequence[Row]) -> list[str]:
    columns = list(dict.fromkeys(r.column for r in rows))
    cells = {(r.row, r.column): r for r in rows}
    lines = [
        "| | " + " | ".join(columns) + " | seeds |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name in dict.fromkeys(r.row for r in rows):
        shown = [cells.get((name, c)) for c in columns]
        seeds = next(c.n for c in shown if c)
        lines.append(f"| {name} | " + " | ".join(map(_words, shown)) + f" | {seeds} |")
    best = max((r for r in rows if r.column.endswith("/best CIDEr")), key=lambda r: r.ours or 0.0)
    lines += ["", f"- Best validation CIDEr: {best.row}."]
    lines += [f"- {note}." for note in sorted({r.note for r in rows})]
    lines += [BUSY] if any(r.load == "busy" for r in rows) else []
    return [*lines, "", records_line(rows)]


def _words(cell: Row | None) -> str:
    if cell is None or cell.ours is None:
        return ""
    if cell.unit != "s":
        return f"{cell.ours:.2f}"
    return f"{cell.ours:.2f} s{busy_mark(cell)}"


def _mean_line(runs: Sequence[Record]) -> list[tuple[float, float]]:
    lines = [dict(by_epoch(run)) for run in runs]
    shared = [epoch for epoch in lines[0] if all(epoch in line for line in lines)]
    return [(epoch, mean(line[epoch] for line in lines)) for epoch in shared]


def _settings(record: Record) -> str:
    """The configuration without what the grid varies and where the point's weights lie."""
    config: Mapping[str, Any] = record.data["config"]
    kept = {k: v for k, v in config.items() if k not in ("seed", "checkpoint", "force", "train")}
    kept["train"] = {k: v for k, v in config["train"].items() if k not in _AXES}
    return json.dumps(with_names(kept), sort_keys=True)


def _trained_on(record: Record) -> str:
    """How many clips, where the data set's configuration says."""
    clips = record.config("dataset.train")
    return f"; trained on {clips} clips" if clips else ""


def _dataset(record: Record) -> str:
    """`toy` of `atom_repro.data.toy.dataset.build`."""
    return record.component("dataset").removeprefix("data.")
