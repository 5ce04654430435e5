"""What many clips in one session do to memory, as a pure function of records."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured, omitted_records
from atom_repro.report.select import (
    by_machine,
    functional,
    load_definition,
    of_newest_definition,
    quietness,
    ran_on,
)


def endurance(records: Sequence[Record]) -> list[Row]:
    """A row for each machine, device, model, arm and precision: the quietest of its runs, of
    several the longest, of several the newest."""
    machines = by_machine(of_newest_definition(records, "endurance"))
    rows = [row for mine in machines for row in _rows(mine)]
    return rows + omitted_records(records, "endurance", "endurance")


def _rows(records: Sequence[Record]) -> list[Row]:
    def rank(record: Record) -> tuple[int, int]:
        return quietness(record), record.values["clips"]

    found: dict[tuple[str, str, str], Record] = {}
    for record in records:
        values = record.values
        ran = (ran_on(record), str(values["arm"]), str(values["precision"]))
        if ran not in found or rank(record) >= rank(found[ran]):
            found[ran] = record
    rows: list[Row] = []
    for ran, record in found.items():
        values = record.values
        rise = values["slope_bytes_per_clip"]
        for column, value, unit, spread in (
            ("clips", values["clips"], "clips", ""),
            ("captions", values["captioned"], "clips", ""),
            ("broken clips named", len(values["broken_named"]), "clips", ""),
            ("memory a clip, bytes", rise["mean"], "bytes",
             "95 % block bootstrap {low:+.0f} to {high:+.0f}".format(**rise)),
            ("clips/s", values["clips_per_s"], "clips/s", ""),
        ):  # fmt: skip
            rows.append(
                measured(
                    "endurance", "/".join(ran), f"toy/{column}", value, unit, record,
                    n=values["samples_after_warmup"] if unit == "bytes" else values["clips"],
                    spread=spread, note=f"{functional(record)}; memory after the warm-up; "
                    f"{load_definition(record)}",
                )
            )  # fmt: skip
    return rows
