"""Endurance table: memory growth over many clips in one session, as a function of records."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured, omitted_records
from atom_repro.report.select import (
    by_machine,
    device_and_model,
    module_load_definition,
    of_newest_definition,
    precision_label,
    quietness,
    validity_note,
)


def endurance(records: Sequence[Record]) -> list[Row]:
    """A row per machine, device, model, arm and precision, of its quietest run; among equally quiet
    runs the longest, then the newest."""
    machines = by_machine(of_newest_definition(records, "endurance"))
    rows = [row for of_machine in machines for row in _machine_rows(of_machine)]
    return rows + omitted_records(records, "endurance", "endurance")


def _machine_rows(records: Sequence[Record]) -> list[Row]:
    def rank(record: Record) -> tuple[int, int]:
        return quietness(record), record.values["clips"]

    selected: dict[tuple[str, str, str], Record] = {}
    for record in records:
        values = record.values
        configuration = (device_and_model(record), str(values["arm"]), precision_label(record))
        if configuration not in selected or rank(record) >= rank(selected[configuration]):
            selected[configuration] = record
    rows: list[Row] = []
    for configuration, record in selected.items():
        values = record.values
        slope = values["slope_bytes_per_clip"]
        for column, value, unit, spread in (
            ("clips", values["clips"], "clips", ""),
            ("captions", values["captioned"], "clips", ""),
            ("broken clips named", len(values["broken_named"]), "clips", ""),
            ("memory a clip, bytes", slope["mean"], "bytes",
             "95 % block bootstrap {low:+.0f} to {high:+.0f}".format(**slope)),
            ("clips/s", values["clips_per_s"], "clips/s", ""),
        ):  # fmt: skip
            rows.append(
                measured(
                    "endurance", "/".join(configuration), f"toy/{column}", value, unit, record,
                    n=values["samples_after_warmup"] if unit == "bytes" else values["clips"],
                    spread=spread, note=f"{validity_note(record)}; memory after the warm-up; "
                    f"{module_load_definition(record)}",
                )
            )  # fmt: skip
    return rows
