"""Tables 6 and 9: bytes on disk and parameters by layer type, as pure functions of records."""

from collections.abc import Mapping, Sequence

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured
from atom_repro.report.identity import (
    FAMILIES,
    device_and_model,
    precision_label,
    select,
    variant,
)
from atom_repro.report.paper import Cell, value_of
from atom_repro.report.select import newest_by_protocol
from atom_repro.report.tables.text_embedder import EMBEDDER, HOW_TO_FILL

_PAPER_MODEL = "mPLUG2+"
# Of a released model of 1.52 billion parameters we build what captioning runs.
_PARTS = {"mplug2": ", captioning path"}
_MIB = 2**20

# Why no model that the paper describes has the parameters of a row.
_PAPER_NOTES = {
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
    """Bytes on disk of every module's folder and of the text embedder's file, with the paper's."""
    rows: list[Row] = []
    for name, record in _newest_by_model(records).items():
        for precision, by_part in record.values["bytes"].items():
            sizes = {**by_part, "both": sum(by_part.values())}
            for unit, factor in (("MB", 1e6), ("MiB", _MIB)):
                rows += [
                    measured(
                        "table06", f"{name}/{precision}", f"storage/{part}, {unit}", size / factor,
                        unit, record, note="random weights, files as written", grid=f"in {unit}",
                    )
                    for part, size in sizes.items()
                ]  # fmt: skip
    rows += _exported_rows(records)
    rows += _embedder_rows(records, paper)
    for row, note in (
        (_PAPER_MODEL, "printed as mPLUG+; an int8 Llama 3.2 1B alone is as large"),
        ("total", "the two above"),
    ):
        cells = [c for c in paper if c.table == "table06" and c.row == row]
        rows += [Row("table06", row, c.column, None, c.value, c.unit, note=note) for c in cells]
    return rows


def _exported_rows(records: Sequence[Record]) -> list[Row]:
    """Rows of what devices over adb were sent: bytes of each exported module, by the records of
    sessions on them, whatever the pipeline."""
    sizes: dict[str, Record] = {}
    for record in select(records, "latency").values():
        if "device" in record.values:
            sizes[f"{device_and_model(record)}/{precision_label(record)}, exported"] = record
    return [
        measured(
            "table06", row, f"storage/{part}, MB", size / 1e6, "MB", record,
            note="exported: files as they are sent to a device, the text embedder in fp32",
            grid="in MB",
        )
        for row, record in sizes.items()
        for part, size in {
            **record.values["module_bytes"], "all": sum(record.values["module_bytes"].values()),
        }.items()
    ]  # fmt: skip


def _embedder_rows(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Rows of the text embedder: bytes of its file by recipe, and the paper's number.

    The paper's MB may be 10^6 or 2^20 bytes; the note gives the other reading.
    """
    paper_mb = value_of(paper, "table06", EMBEDDER, "storage")
    record = newest_by_protocol(records, "text_embedder").get("stsb/test")
    if record is None:
        return [Row("table06", EMBEDDER, "storage", None, paper_mb, "MB", note=HOW_TO_FILL)]
    sizes = {name: row["saved_bytes"] for name, row in record.values["recipes"].items()}
    rows = [
        measured(
            "table06", f"{EMBEDDER}/{name}", "storage", size / 1e6, "MB", record,
            note="weights as a file; the tokenizer of "
            f"{record.values['tokenizer_bytes'] / 1e6:.1f} MB is not counted", grid="in MB",
        )
        for name, size in sizes.items()
    ]  # fmt: skip
    if paper_mb is not None:
        nearest = min(
            sizes,
            key=lambda n: min(abs(sizes[n] / 1e6 - paper_mb), abs(sizes[n] / _MIB - paper_mb)),
        )
        rows.append(
            Row("table06", EMBEDDER, "storage", None, paper_mb, "MB",
                note=f"nearest of ours: {nearest}, {sizes[nearest] / 1e6:.1f} MB or "
                f"{sizes[nearest] / _MIB:.1f} MiB")
        )  # fmt: skip
    return rows


def table9(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Parameters by layer type in millions; ours, then the paper's with notes on what differs."""
    rows: list[Row] = []
    for name, record in _newest_by_model(records).items():
        for layer_type, count in record.values["parameters_by_type"].items():
            rows.append(_parameter_row(name, layer_type, count, record))
        tied = record.values["tied_parameters"]
        if tied:
            with_tied_head = record.values["parameters_by_type"]["Linear"] + tied
            rows.append(_parameter_row(name, "Linear, with the tied head", with_tied_head, record))
        rows.append(_parameter_row(name, "total", record.values["parameters"], record))
    for cell in paper:
        if cell.table == "table09" and cell.column == "parameters":
            note = _PAPER_NOTES.get(cell.row, "")
            rows.append(
                Row("table09", cell.row, "parameters/paper", None, cell.value, "Mparam", note=note)
            )
    return rows


def _parameter_row(name: str, layer_type: str, count: int, record: Record) -> Row:
    return measured("table09", layer_type, f"parameters/{name}", count / 1e6, "Mparam", record,
                    note="counted on modules without memory; random weights")  # fmt: skip


def _newest_by_model(records: Sequence[Record]) -> Mapping[str, Record]:
    by_model: dict[str, Record] = {}
    for record in select(records, "storage").values():
        model = str(record.values["model"])
        by_model[FAMILIES.get(model, model) + variant(record) + _PARTS.get(model, "")] = record
    return by_model
