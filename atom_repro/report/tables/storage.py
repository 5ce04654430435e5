"""Tables 6 and 9: bytes on disk and parameters by layer type, as pure functions of records."""

from collections.abc import Mapping, Sequence
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured
from atom_repro.report.paper import Cell, value_of
from atom_repro.report.select import newest_by_protocol
from atom_repro.report.tables.text_embedder import EMBEDDER, RUN

_NAMES = {"mplug2plus": "mPLUG2+", "mplug2": "mPLUG2"}
_PAPERS_MODEL = "mPLUG2+"
_MIB = 2**20

# Why a row of the paper has no match in any model that its text describes.
_WHY = {
    "Linear": "the linear layers of Llama 3.2 1B with its tied head come to it alone; CLIP's are "
    "on top",
    "Embedding": "Llama 3.2's vocabulary alone needs more",
    "Conv3d": "the temporal modules and the patch embedding: the row that fixes the encoder",
    "NonDynamicallyQuantizableLinear": "no set of the modules that the text names gives it",
    "LayerNorm": "rounded, and without Llama's RMSNorm",
}


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    return {"table06": table6(records, paper), "table09": table9(records, paper)}


def table6(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Bytes of every module's folder, beside the text embedder's file."""
    rows: list[Row] = []
    for name, record in _newest(records).items():
        for precision, sides in record.values["bytes"].items():
            sizes = {**sides, "both": sum(sides.values())}
            for side, size in sizes.items():
                rows.append(
                    measured(
                        "table06",
                        f"{name}/{precision}",
                        f"storage/{side}",
                        size / 1e6,
                        "MB",
                        record,
                        note=f"{size / _MIB:.1f} MiB; random weights, files as written",
                    )
                )
    rows += _embedder(records, paper)
    for row, note in (
        (_PAPERS_MODEL, "printed as mPLUG+; an int8 Llama 3.2 1B alone is as large"),
        ("total", "the two above"),
    ):
        cells = [c for c in paper if c.table == "table06" and c.row == row]
        rows += [Row("table06", row, c.column, None, c.value, c.unit, note=note) for c in cells]
    return rows


def _embedder(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """The embedder's row: bytes of each precision as a file, the paper's beside fp32 and nearest.

    The paper's MB may be 10^6 or 2^20 bytes; the note gives the other reading.
    """
    cell = value_of(paper, "table06", EMBEDDER, "storage")
    record = newest_by_protocol(records, "text_embedder").get("stsb/test")
    if record is None:
        return [Row("table06", EMBEDDER, "storage", None, cell, "MB", note=RUN)]
    sizes = {name: row["saved_bytes"] for name, row in record.values["recipes"].items()}
    rows = [
        measured(
            "table06", f"{EMBEDDER}/{name}", "storage", size / 1e6, "MB", record,
            note=f"{size / _MIB:.1f} MiB; weights as a file, tokenizer of "
            f"{record.values['tokenizer_bytes'] / 1e6:.1f} MB not counted",
        )
        for name, size in sizes.items()
    ]  # fmt: skip
    if cell is not None:
        near = min(
            sizes, key=lambda n: min(abs(sizes[n] / 1e6 - cell), abs(sizes[n] / _MIB - cell))
        )
        rows.append(
            Row("table06", EMBEDDER, "storage", None, cell, "MB",
                note=f"nearest of ours: {near}, {sizes[near] / 1e6:.1f} MB or "
                f"{sizes[near] / _MIB:.1f} MiB")
        )  # fmt: skip
    return rows


def table9(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Millions of parameters a layer type; ours and the paper's rows, with the reason apart."""
    rows: list[Row] = []
    for name, record in _newest(records).items():
        for kind, count in record.values["parameters_by_type"].items():
            rows.append(_count(name, kind, count, record))
        tied = record.values["tied_parameters"]
        if tied:
            both = record.values["parameters_by_type"]["Linear"] + tied
            rows.append(_count(name, "Linear, with the tied head", both, record))
        rows.append(_count(name, "total", record.values["parameters"], record))
    for cell in paper:
        if cell.table == "table09" and cell.column == "parameters":
            note = _WHY.get(cell.row, "")
            rows.append(
                Row("table09", cell.row, "parameters/paper", None, cell.value, "Mparam", note=note)
            )
    return rows


def _count(name: str, kind: str, count: int, record: Record) -> Row:
    return measured("table09", kind, f"parameters/{name}", count / 1e6, "Mparam", record,
                    note="counted on modules without memory; random weights")  # fmt: skip


def _newest(records: Sequence[Record]) -> Mapping[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        if record.stage == "storage" and record.ok and record.data["scale"] != "smoke":
            model: Any = record.values["model"]
            found[_NAMES.get(model, str(model))] = record
    return found
