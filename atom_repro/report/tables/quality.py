"""Quality tables: captioning, retrieval, cost of int8 and caption accuracy by attribute.

A table is a list of `Row`s keyed like the paper's cells. What was measured at `tiny` scale has
columns of its own (`toy/…`, `tiny/…`), where the paper's side is empty; the paper's cells stand
with ours empty and the command that would fill them. Smoke records never appear.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured, paper_rows
from atom_repro.report.identity import TOY, Identity, newest
from atom_repro.report.paper import Cell

CAPTION_METRICS = {
    "BLEU@4": "bleu_4",
    "ROUGE-L": "rouge_l",
    "METEOR": "meteor",
    "CIDEr": "cider",
}
_CONSTANT = "floor/constant sentence"
RECALLS = {"R@1": "r1", "R@5": "r5", "R@10": "r10"}
RECALL_METRICS = {**RECALLS, "median rank": "median_rank"}
_HOW_TO_FILL = (
    "needs weights and videos that are yours to bring: `python -m eval.caption` and "
    "`eval.retrieval` with dataset, protocol and checkpoint.folder fill ours"
)


def table1(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Caption scores of every model and data set on record, with floors and human captions."""
    rows = []
    for identity, record in newest(records, "caption").items():
        model, precision, values = identity.model, identity.precision, record.values
        versions: list[tuple[str, Mapping[str, Any]]] = [(f"{model}/{precision}", values)]
        for split in ("seen", "held_out"):
            if split in values:
                versions.append((f"{model}/{precision}/{split}", values[split]))
        if _has_references(identity):
            people = "grammar" if identity.data == TOY else "people"
            versions += [
                (_CONSTANT, values["floor_constant_sentence"]),
                ("floor/next video's caption", values["floor_next_video"]),
                (f"{people}/leave one out", values["people_leave_one_out"]),
            ]
        sentence = values.get("constant_sentence")
        notes = {
            _CONSTANT: f"{sentence!r}, of the training split's central sentences the one with the "
            "highest CIDEr there" if sentence else "the training split's most central sentence",
            "grammar/leave one out": "one reference, which the grammar of the data made, against "
            "the clip's others",
        }  # fmt: skip
        for name, scores in versions:
            is_part = name.endswith(("/seen", "/held_out"))
            note = "CIDEr weighs words by these clips alone" if is_part else notes.get(name, "")
            for column, key in CAPTION_METRICS.items():
                rows.append(
                    measured(
                        "table01", name, f"{identity.data}/{column}", scores[key], "point", record,
                        n=_clips_of(values, name) if is_part else None, note=note,
                    )
                )  # fmt: skip
    return rows + paper_rows(paper, "table01", _HOW_TO_FILL)


def table2(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Retrieval on every data set but DiDeMo, with a ceiling (true captions) and a floor."""
    rows = _retrieval(records, "table02", lambda data: data != "DiDeMo")
    return rows + paper_rows(paper, "table02", _HOW_TO_FILL)


def table10(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Retrieval on DiDeMo, by the code of Table 2."""
    rows = _retrieval(records, "table10", lambda data: data == "DiDeMo")
    return rows + paper_rows(paper, "table10", _HOW_TO_FILL)


def _retrieval(
    records: Sequence[Record], table: str, include_dataset: Callable[[str], bool]
) -> list[Row]:
    rows = []
    for identity, record in newest(records, "retrieval").items():
        data, model = identity.data, f"{identity.model}/{identity.precision}"
        if not include_dataset(data):
            continue
        versions = [(model, record.values["model"])]
        if _has_references(identity):
            versions += [
                ("ceiling/true caption", record.values["ceiling_true_caption"]),
                ("floor/next video's caption", record.values["floor_next_video"]),
            ]
        for name, scores in versions:
            for column, key in RECALL_METRICS.items():
                rows.append(
                    measured(
                        table,
                        name,
                        f"{data}/{column}",
                        scores[key],
                        "rank" if key == "median_rank" else "percent",
                        record,
                        n=record.values["model"]["queries"],
                        note=f"gallery of {scores['index_size']}",
                    )
                )
        for split in ("seen", "held_out"):
            scores = record.values.get(split, {})
            rows += [
                measured(
                    table, f"{model}/{split}", f"{data}/{column}", scores[key], "percent", record
                )
                for column, key in RECALL_METRICS.items()
                if key in scores
            ]
    return rows


def _clips_of(values: Mapping[str, Any], name: str) -> int | None:
    """Number of clips of a part of the test set, by what the attributes were counted on."""
    counted = values.get("attribute_accuracy", {}).get(name.rpartition("/")[2], {})
    return max((total for _, total in counted.values()), default=None)


def _has_references(identity: Identity) -> bool:
    """Whether the floors and references of a data set are taken from this model's record."""
    return (identity.model, identity.precision) == ("mPLUG2+", "fp32")


_OF_CLIPS = {"METEOR": "METEOR, mean of clips"}
_INT8_COST_NOTE = (
    "int8 minus fp32, the same weights and clips, with 95 % paired bootstrap intervals; METEOR "
    "here is the mean of the clips', in Table 1 that of the corpus"
)


def int8_cost(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Score differences int8 minus fp32, same weights and clips, with paired bootstrap intervals.

    Beside them the differences that the paper's own tables imply, on other data.
    """
    rows = []
    for stage, table, columns in (
        ("caption", "table01", CAPTION_METRICS),
        ("retrieval", "table02", RECALLS),
    ):
        for identity, record in newest(records, stage).items():
            model = identity.model
            if identity.precision != "int8":
                model += f"/{identity.precision}"
            difference = record.values.get("minus_fp32")
            if difference:
                rows += [
                    measured(
                        "int8_cost",
                        model,
                        f"{identity.data}/{_OF_CLIPS.get(column, column)}",
                        difference[key]["mean"],
                        "point",
                        record,
                        interval=(difference[key]["low"], difference[key]["high"]),
                        spread="95 % paired bootstrap over clips",
                        difference=True,
                        note=_INT8_COST_NOTE,
                    )
                    for column, key in columns.items()
                ]
        rows += [
            Row(
                "int8_cost",
                model,
                column,
                None,
                drop,
                "point",
                note="int8 minus fp32, from the paper's cells",
            )
            for model in ("mPLUG2+", "mPLUG2")
            for column, drop in _paper_drops(paper, table, model, columns).items()
        ]
    return rows


def attributes(records: Sequence[Record]) -> list[Row]:
    """Caption accuracy by attribute, separately for seen and held-out combinations."""
    return [
        measured(
            "attributes",
            f"{identity.model}/{identity.precision}/{group}",
            f"{identity.data}/{name}",
            100 * correct / total,
            "percent",
            record,
            n=total,
        )
        for identity, record in newest(records, "caption").items()
        for group, by_name in record.values.get("attribute_accuracy", {}).items()
        for name, (correct, total) in by_name.items()
    ]


def build_all(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """Rows of all quality tables by file stem."""
    return {
        "table01": table1(records, paper),
        "table02": table2(records, paper),
        "table10": table10(records, paper),
        "int8_cost": int8_cost(records, paper),
        "attributes": attributes(records),
    }


def _paper_drops(
    paper: Sequence[Cell], table: str, model: str, metrics: Iterable[str]
) -> dict[str, float]:
    cells = {(c.row, c.column): c.value for c in paper if c.table == table and c.value is not None}
    return {
        column: round(value - cells[f"{model}/fp32", column], 6)
        for (row, column), value in cells.items()
        if row == f"{model}/int8"
        and column.partition("/")[2] in metrics
        and (f"{model}/fp32", column) in cells
    }
