"""Table of each text task's scores beside its baselines, as a function of records."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured
from atom_repro.report.identity import newest

# Task, column, key of the sample's score, unit.
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
    "rank": "a script of the clips as ranked, the usual answer to a question, a scene's first "
    "caption, all captions of a video, the whole video as the moment",
    "random": "clips drawn at random, a right answer to another question, captions of another "
    "video, 10 s of the video",
}


def tasks(records: Sequence[Record]) -> list[Row]:
    """One row per arm and precision; shares in per cent."""
    rows: list[Row] = []
    for identity, record in newest(records, "tasks").items():
        precision = identity.precision
        if identity.model != "mPLUG2+":
            precision = f"{identity.model}/{precision}"
        samples = record.samples()
        for arm, label in _ARMS.items():
            for task, column, key, unit in _COLUMNS:
                values = list(_values(samples, task, arm, key))
                if not values:
                    continue
                scale = 100.0 if unit == "percent" else 1.0
                rows.append(
                    measured(
                        "tasks",
                        f"{label}/{precision}",
                        f"toy/{column}",
                        scale * mean(values),
                        unit,
                        record,
                        n=len(values),
                        note=f"{label}: {_NOTES[arm]}" if arm in _NOTES else "",
                        grid=column.partition("/")[0],
                    )
                )
        rows += _thresholds(record, precision)
    return rows


def _values(samples: Iterable[Mapping[str, Any]], task: str, arm: str, key: str) -> Iterable[float]:
    for sample in samples:
        if sample["task"] == task and arm in sample and sample[arm][key] is not None:
            yield float(sample[arm][key])


def _thresholds(record: Record, precision: str) -> list[Row]:
    return [
        measured("tasks", f"model/{precision}", f"toy/{column}", scale * record.values[key], unit,
                 record, note="chosen on validation clips, tried on test clips", grid="search")
        for column, key, unit, scale in (
            ("search/nothing matches below", "least_similarity", "cosine", 1.0),
            ("search/balanced accuracy", "balanced_accuracy_test", "percent", 100.0),
        )
        if record.values.get(key) is not None  # None if the decoder generated no text
    ]  # fmt: skip
