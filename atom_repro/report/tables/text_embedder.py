"""Table 7, the text embedder on STS-B by int8 recipe, as a pure function of records."""

from collections.abc import Mapping, Sequence
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, bootstrap_interval, measured
from atom_repro.report.paper import Cell, value_of
from atom_repro.report.select import newest_by_protocol

EMBEDDER = "all-MiniLM-L6-v2"
_RECALL = {"R@1": "r1", "R@5": "r5", "R@10": "r10"}
RUN = "`make table7` fills ours"


def table7(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """STS-B by recipe; the paper's int8 beside the recipe that comes nearest to it.

    Retrieval (F.3) is MSR-VTT 1k-A with one human caption a video as the index.
    """
    cells = {
        version: value_of(paper, "table07", f"{EMBEDDER}/{version}", "STS-B/Pearson")
        for version in ("fp32", "int8")
    }
    record = newest_by_protocol(records, "text_embedder").get("stsb/test")
    if record is None:
        return [
            Row("table07", f"{EMBEDDER}/{v}", "STS-B/Pearson", None, c, "1", note=RUN)
            for v, c in cells.items()
        ]
    recipes: Mapping[str, Any] = record.values["recipes"]
    target = cells["int8"]
    lossy = [n for n in recipes if n != "fp32"]
    near = min(lossy, key=lambda n: abs(recipes[n]["pearson"] - target)) if target and lossy else ""
    rows = []
    for name, row in recipes.items():
        rows += _recipe(f"{EMBEDDER}/{name}", row, record)
    for version, nearest in (("fp32", "fp32"), ("int8", near)):
        if nearest in recipes:
            rows.append(
                Row("table07", f"paper/{version}", "STS-B/Pearson", None, cells[version], "1",
                    note=f"nearest of ours: {nearest}, {recipes[nearest]['pearson']:.4f}; the "
                    "paper does not name its recipe" if version == "int8" else "")
            )  # fmt: skip
    return rows


def _recipe(label: str, row: Mapping[str, Any], record: Record) -> list[Row]:
    """One recipe's figures, each with what it lost against fp32 on the same pairs and queries."""
    pairs, queries = record.values["pairs"], record.values["queries"]
    ends = bootstrap_interval("over pairs", row["pearson_low"], row["pearson_high"], 4)
    rows = [
        measured(
            "table07", label, "STS-B/Pearson", row["pearson"], "1", record, n=pairs, spread=ends
        ),
        measured("table07", label, "STS-B/Spearman", row["spearman"], "1", record, n=pairs),
    ]
    lost = row.get("pearson_minus_fp32")
    if lost:
        ends = bootstrap_interval("over pairs, paired", lost["low"], lost["high"], 4)
        column = "STS-B/Pearson minus fp32"
        rows.append(
            measured("table07", label, column, lost["mean"], "1", record, n=pairs, spread=ends)
        )
    for metric, key in _RECALL.items():
        both = ((metric, row.get(key)), (f"{metric} minus fp32", row.get(f"{key}_minus_fp32")))
        for kind, values in both:
            if values:
                ends = bootstrap_interval("over videos", values["low"], values["high"], 1)
                column = f"msrvtt/ret-1ka/{kind}"
                rows.append(
                    measured("table07", label, column, values["mean"], "%", record, n=queries,
                          spread=ends)
                )  # fmt: skip
    return rows
