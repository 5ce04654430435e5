"""Sweep over learning rate and batch size (paper appendix G): a table, and curves by epoch.

The paper chose 2e-5 and 128 and saw over-fitting after 10 epochs; the columns show whether the
score falls again after its best epoch. Pure functions of `finetune` records.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt

from atom_repro.records.component import with_component_names
from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured
from atom_repro.report.identity import quietness
from atom_repro.report.select import by_machine, keep_quietest
from atom_repro.report.svg import svg

NAME = "appendix_g"
# The settings that a grid varies; records that differ in any other are of another grid.
_GRID_AXES = ("learning_rate", "batch_size")
# The epoch after which the paper's training over-fitted.
_PAPER_OVERFITTING_EPOCH = 10


def points(records: Sequence[Record]) -> dict[tuple[float, int], dict[int, Record]]:
    """Records of a sweep by learning rate and batch size, one a seed; smoke runs left out.

    Of several the quietest, then the newest. Only of the grid of the newest such record: same
    machine, data, model and settings otherwise.
    """
    sweep_runs = [
        r
        for r in records
        if r.stage == "finetune" and r.ok and r.in_tables and r.config("sweep") == NAME
    ]
    by_point: dict[tuple[float, int], dict[int, Record]] = {}
    for record in sweep_runs:
        if (record.machine, _settings(record)) == (
            sweep_runs[-1].machine,
            _settings(sweep_runs[-1]),
        ):
            train = record.data["config"]["train"]
            key = (float(train["learning_rate"]), int(train["batch_size"]))
            keep_quietest(by_point.setdefault(key, {}), int(record.config("seed")), record)
    return dict(sorted(by_point.items()))


def build(records: Sequence[Record]) -> list[Row]:
    """One row per machine and grid point, with mean and spread over seeds."""
    return [row for of_machine in by_machine(records) for row in _machine_rows(of_machine)]


def _machine_rows(records: Sequence[Record]) -> list[Row]:
    rows = []
    for (rate, batch), by_seed in points(records).items():
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        columns: dict[str, tuple[str, list[float]]] = {}
        for run in runs:
            for column, unit, value in _columns(run):
                columns.setdefault(column, (unit, []))[1].append(value)
        worst = min(
            runs, key=lambda r: (r.clean, quietness(r))
        )  # the cell is marked like its worst run
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
    if rows:
        best = max((r for r in rows if r.column.endswith("/best CIDEr")), key=lambda r: r.ours or 0)
        rows.append(replace(best, column="", ours=None, note=f"Best validation CIDEr: {best.row}"))
    return rows


def _columns(record: Record) -> list[tuple[str, str, float]]:
    """(column, unit, value) of one training run."""
    curve = by_epoch(record)
    best_epoch, best = max(curve, key=lambda point: point[1])
    final_epoch, final = curve[-1]
    seconds = record.values["train_s"]  # None if the training was resumed
    return [
        ("best CIDEr", "point", best),
        ("epoch of the best", "epoch", best_epoch),
        ("final CIDEr", "point", final),
        ("final epoch", "epoch", final_epoch),
        ("over-fitting (best - final)", "point", best - final),
        *([] if seconds is None else [("training", "s", float(seconds))]),
    ]


def by_epoch(record: Record) -> list[tuple[float, float]]:
    """(epoch, validation CIDEr) in order; an epoch trains on as many captions as there are."""
    steps = record.values["epoch_steps"]
    return [
        (s["step"] / steps, float(s["validation_cider"]))
        for s in record.samples()
        if "validation_cider" in s
    ]


def curves(records: Sequence[Record]) -> str | None:
    """Figure of validation CIDEr by epoch: a panel per batch size, a line per learning rate.

    A line is the mean over seeds at the epochs that all of them validated at. None without records.
    """
    by_point = points(records)
    if not by_point:
        return None
    batches = sorted({batch for _, batch in by_point})
    rates = sorted({rate for rate, _ in by_point})
    colours = dict(zip(rates, plt.get_cmap("viridis")([i / len(rates) for i in range(len(rates))]),
                       strict=True))  # fmt: skip
    figure, axes = plt.subplots(
        1, len(batches), figsize=(3 * len(batches) + 1, 3.6), sharey=True, squeeze=False
    )
    for axis, batch in zip(axes[0], batches, strict=True):
        for rate in rates:
            if (rate, batch) in by_point:
                line = _mean_line(list(by_point[rate, batch].values()))
                axis.plot(*zip(*line, strict=True), color=colours[rate], marker=".",
                          label=f"{rate:g}")  # fmt: skip
        axis.axvline(_PAPER_OVERFITTING_EPOCH, color="#9e9e9e", linewidth=0.8, linestyle=":")
        axis.set_title(f"batch {batch}", fontsize=10)
        axis.set_xlabel("epoch")
    axes[0][0].set_ylabel("validation CIDEr")
    by_label: dict[str, Any] = {}
    for axis in axes[0]:
        handles, axis_labels = axis.get_legend_handles_labels()
        by_label |= dict(zip(axis_labels, handles, strict=True))
    labels = [f"{rate:g}" for rate in rates]
    figure.legend([by_label[label] for label in labels], labels, loc="lower center",
                  ncols=len(rates), title="learning rate", fontsize=8,
                  title_fontsize=8)  # fmt: skip
    record = next(iter(next(iter(by_point.values())).values()))
    figure.suptitle(f"{record.config('model.name')} on {_dataset(record)} "
                    f"({record.data['scale']}), {record.machine.processor}",
                    fontsize=10)  # fmt: skip
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    return svg(figure)


def _mean_line(runs: Sequence[Record]) -> list[tuple[float, float]]:
    lines = [dict(by_epoch(run)) for run in runs]
    shared = [epoch for epoch in lines[0] if all(epoch in line for line in lines)]
    return [(epoch, mean(line[epoch] for line in lines)) for epoch in shared]


def _settings(record: Record) -> str:
    """Configuration without the grid's axes, seed and checkpoint path, as JSON."""
    config: Mapping[str, Any] = record.data["config"]
    settings = {
        k: v for k, v in config.items() if k not in ("seed", "checkpoint", "force", "train")
    }
    settings["train"] = {k: v for k, v in config["train"].items() if k not in _GRID_AXES}
    return json.dumps(with_component_names(settings), sort_keys=True)


def _trained_on(record: Record) -> str:
    """Number of training clips as text, if the data set's configuration has it."""
    clips = record.config("dataset.train")
    return f"; trained on {clips} clips" if clips else ""


def _dataset(record: Record) -> str:
    """Data set name of a record, such as `toy` for `atom_repro.data.toy.dataset.build`."""
    return record.component("dataset").removeprefix("data.")
