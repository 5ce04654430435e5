"""Scores of each text task beside its baselines, as a pure function of records."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured
from atom_repro.report.select import newest

# Task, column, the field of a line's score, unit.
_COLUMNS = (
    ("script", "script/order (tau-b)", "order", "tau"),
    ("script", "script/coverage", "coverage", "percent"),
    ("script", "script/duplicates", "duplicates", "percent"),
    ("script", "script/precision", "precision", "percent"),
    ("answer", "answer/right", "right", "percent"),
    ("scene_summary", "scene summary/F1", "f1", "percent"),
    ("video_summary", "video summary/F1", "f1", "percent"),
    ("video_summary", "video summary/words", "words", "words"),
    ("moment", "moment/mean IoU", "iou", "percent"),
)
_ARMS = {
    "model": "model",
    "visual": "model, seeing the clip",
    "rank": "no decoder",
    "random": "random",
    "oracle": "model, true captions",
}
_NOTES = {
    "rank": "as ranked; the first caption, all captions; the usual answer; the whole video",
    "random": "clips drawn at random; another video's; a right answer to another question; 10 s",
}


def tasks(records: Sequence[Record]) -> list[Row]:
    """One row an arm and precision; shares in per cent."""
    rows: list[Row] = []
    for precision, record in newest(records, "tasks").items():
        lines = record.samples()
        for arm, said in _ARMS.items():
            for task, column, key, unit in _COLUMNS:
                values = list(_values(lines, task, arm, key))
                if not values:
                    continue
                scale = 100.0 if unit == "percent" else 1.0
                rows.append(
                    measured(
                        "tasks",
                        f"{said}/{precision}",
                        f"toy/{column}",
                        scale * mean(values),
                        unit,
                        record,
                        n=len(values),
                        note=f"{said}: {_NOTES[arm]}" if arm in _NOTES else "",
                    )
                )
        rows += _thresholds(record, precision)
    return rows


def _values(lines: Iterable[Mapping[str, Any]], task: str, arm: str, key: str) -> Iterable[float]:
    for line in lines:
        if line["task"] == task and arm in line and line[arm][key] is not None:
            yield float(line[arm][key])


def _thresholds(record: Record, precision: str) -> list[Row]:
    return [
        measured("tasks", f"model/{precision}", f"toy/{column}", scale * record.values[key], unit,
                 record, note="chosen on validation clips, tried on test clips")
        for column, key, unit, scale in (
            ("nothing fits below", "least_similarity", "cosine", 1.0),
            ("match or nothing, right", "balanced_accuracy_test", "percent", 100.0),
        )
        if record.values.get(key) is not None  # None: a decoder that wrote nothing
    ]  # fmt: skip
