"""Records that no table shows, each with the reason."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.cells import Row
from atom_repro.report.identity import refusal, superseded

NAME = "left_out"


def left_out(records: Sequence[Record]) -> list[Row]:
    """A row for each record that fits no row of a table, or gave way to one with other settings.
    Smoke runs and plain repeats are not listed."""
    gave_way = superseded(records)
    return [
        Row(
            NAME, f"{record.stage}/{record.run_id}", "why", None, None, "",
            scale=str(record.data["scale"]), machine=record.machine, note=reason,
        )
        for record in records
        if record.stage != "test_all"
        and record.in_tables
        and (reason := refusal(record) or gave_way.get(record.run_id))
    ]  # fmt: skip
