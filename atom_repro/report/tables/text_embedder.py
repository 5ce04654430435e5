"""Table 7, the text embedder on STS-B by int8 recipe, as a pure function of records."""

from collections.abc import Mapping, Sequence
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured
from atom_repro.report.paper import Cell, value_of
from atom_repro.report.select import newest_by_protocol
from atom_repro.report.tables.quality import RECALLS

EMBEDDER = "all-MiniLM-L6-v2"
HOW_TO_FILL = "`make table7` fills ours"


def table7(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """STS-B correlation by int8 recipe, with the paper's beside the nearest recipe.

    Retrieval (F.3) is MSR-VTT 1k-A with one human caption a video as the index.
    """
    cells = {
        version: value_of(paper, "table07", f"{EMBEDDER}/{version}", "STS-B/Pearson")
        for version in ("fp32", "int8")
    }
    record = newest_by_protocol(records, "text_embedder").get("stsb/test")
    if record is None:
        return [
            Row("table07", f"{EMBEDDER}/{v}", "STS-B/Pearson", None, c, "1", note=HOW_TO_FILL)
            for v, c in cells.items()
        ]
    recipes: Mapping[str, Any] = record.values["recipes"]
    target = cells["int8"]
    quantised = [n for n in recipes if n != "fp32"]
    nearest_int8 = (
        min(quantised, key=lambda n: abs(recipes[n]["pearson"] - target))
        if target and quantised
        else ""
    )
    rows = []
    for name, scores in recipes.items():
        rows += _recipe_rows(f"{EMBEDDER}/{name}", scores, record)
    for version, recipe in (("fp32", "fp32"), ("int8", nearest_int8)):
        if recipe in recipes:
            rows.append(
                Row("table07", f"paper/{version}", "STS-B/Pearson", None, cells[version], "1",
                    note=f"nearest of ours: {recipe}, {recipes[recipe]['pearson']:.4f}; the "
                    "paper does not name its recipe" if version == "int8" else "")
            )  # fmt: skip
    return rows


def _recipe_rows(label: str, scores: Mapping[str, Any], record: Record) -> list[Row]:
    """Scores of one recipe, each with its difference to fp32 on the same pairs and queries."""
    pairs, queries = record.values["pairs"], record.values["queries"]
    rows = [
        measured(
            "table07",
            label,
            "STS-B/Pearson",
            scores["pearson"],
            "1",
            record,
            n=pairs,
            spread="95 % bootstrap over pairs",
            interval=(scores["pearson_low"], scores["pearson_high"]),
        ),
        measured("table07", label, "STS-B/Spearman", scores["spearman"], "1", record, n=pairs),
    ]
    difference = scores.get("pearson_minus_fp32")
    if difference:
        column = "STS-B/Pearson minus fp32"
        rows.append(
            measured(
                "table07",
                label,
                column,
                difference["mean"],
                "1",
                record,
                n=pairs,
                spread="95 % bootstrap over pairs, paired",
                interval=(difference["low"], difference["high"]),
                difference=True,
            )
        )
    for metric, key in RECALLS.items():
        columns = (
            (metric, scores.get(key)),
            (f"{metric} minus fp32", scores.get(f"{key}_minus_fp32")),
        )
        for name, values in columns:
            if values:
                column = f"msrvtt/ret-1ka/{name}"
                rows.append(
                    measured("table07", label, column, values["mean"], "%", record, n=queries,
                             note="one human caption a video, drawn otherwise than `one at random` "
                             "in oracle.md: another sample of the same quantity",
                             spread="95 % bootstrap over videos",
                             interval=(values["low"], values["high"]),
                             difference=name.endswith("fp32"))
                )  # fmt: skip
    return rows
