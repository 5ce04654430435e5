"""What many clips in one session do to memory, as a pure function of records."""

from collections.abc import Sequence

from atom_repro.records.record import Record
from atom_repro.report.tables import Row, measured


def endurance(records: Sequence[Record]) -> list[Row]:
    """A row for each precision and arm: its longest run, of several the newest."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        if record.stage == "endurance" and record.ok and record.data["scale"] != "smoke":
            ran = (str(record.values["arm"]), str(record.values["precision"]))
            if ran not in found or record.values["clips"] >= found[ran].values["clips"]:
                found[ran] = record
    rows: list[Row] = []
    for (arm, precision), record in found.items():
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
                    "endurance", f"{arm}/{precision}", f"toy/{column}", value, unit, record,
                    n=values["samples_after_warmup"] if unit == "bytes" else values["clips"],
                    spread=spread, note="functional only; memory after the warm-up",
                )
            )  # fmt: skip
    return rows
