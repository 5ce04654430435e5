"""Records that no table shows, each with the reason."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.cells import Row
from atom_repro.report.identity import refusal

NAME = "left_out"


def left_out(records: Sequence[Record]) -> list[Row]:
    """A row for each record that fits no row of a table. Smoke runs are not counted."""
    return [
        Row(
            NAME, f"{record.stage}/{record.run_id}", "why", None, None, "",
            scale=str(record.data["scale"]), machine=record.machine, note=reason,
        )
        for record in records
        if record.stage != "test_all" and record.in_tables and (reason := refusal(record))
    ]  # fmt: skip
