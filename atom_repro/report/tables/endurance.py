"""Endurance table: memory growth over many clips in one session, as a function of records."""

from collections.abc import Sequence
from statistics import linear_regression

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured, omitted_records
from atom_repro.report.identity import device_and_model, precision_label, select
from atom_repro.report.select import module_load_definition, validity_note


def endurance(records: Sequence[Record]) -> list[Row]:
    """A row per device, model, arm and precision, of its quietest run; among equally quiet runs the
    longest, then the newest."""
    rows = [row for record in select(records, "endurance").values() for row in _rows_of(record)]
    return rows + omitted_records(records, "endurance", "endurance")


def _rows_of(record: Record) -> list[Row]:
    rows: list[Row] = []
    values = record.values
    configuration = (device_and_model(record), str(values["arm"]), precision_label(record))
    slope = values["slope_bytes_per_clip"]
    cells = [
        ("clips", values["clips"], "clips"),
        ("captions", values["captioned"], "clips"),
        ("broken clips named", len(values["broken_named"]), "clips"),
        ("memory a clip, bytes", slope["mean"], "bytes"),
        *_slopes_by_third(record),
        ("clips/s", values["clips_per_s"], "clips/s"),
    ]
    for column, value, unit in cells:
        is_slope = column == "memory a clip, bytes"
        rows.append(
            measured(
                "endurance", "/".join(configuration), f"toy/{column}", value, unit, record,
                spread="95 % block bootstrap" if is_slope else "",
                interval=(slope["low"], slope["high"]) if is_slope else None,
                note=f"{validity_note(record)}; memory after the warm-up, by a straight line; "
                "where its thirds differ, so does what the whole says; "
                f"{module_load_definition(record)}",
            )
        )  # fmt: skip
    return rows


def _slopes_by_third(record: Record) -> list[tuple[str, float, str]]:
    """Slopes of memory in the first, second and last third of the clips, in bytes a clip."""
    samples = [(s["clips"], s["anonymous_bytes"]) for s in record.samples()]
    third = len(samples) // 3
    if third < 2:
        return []
    cells = []
    for start in (0, third, 2 * third):
        part = samples[start : start + third]
        clips, held = zip(*part, strict=True)
        slope, _ = linear_regression(clips, held)
        cells.append((f"clips {clips[0]} to {clips[-1]}, bytes a clip", slope, "bytes"))
    return cells
