"""Tables as pure functions of records and the paper's cells: no clock, no disk, no torch.

A table is a list of `Row`s keyed like the paper's cells. What was measured at `tiny` scale stands
in columns of its own (`toy/…`, `tiny/…`), where the paper's side is empty; the paper's cells stand
with ours empty and the command that would fill them. Smoke records never appear.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atom_repro.datatypes import Machine
from atom_repro.records.record import MEANINGS, Record
from atom_repro.report.paper import Cell

CAPTION_METRICS = {
    "BLEU@4": "bleu_4",
    "ROUGE-L": "rouge_l",
    "METEOR": "meteor",
    "CIDEr": "cider",
}
RECALLS = {"R@1": "r1", "R@5": "r5", "R@10": "r10", "median rank": "median_rank"}
FAMILIES = {"mplug2plus": "mPLUG2+", "mplug2": "mPLUG2", "smolvlm2": "SmolVLM2"}
TOY = "toy"
# Tables of seconds and memory: a section a machine, and never one of two.
SPEED = frozenset(
    ("table03", "arms", "limits", "training_step", "sessions", "endurance", "appendix_g")
)
HOST_TINY = "host/tiny_mplug2plus"  # `ran_on` of what `make reproduce` measures
PROTOCOLS = {
    "msrvtt/caption-full": "MSR-VTT",
    "msvd/caption": "MSVD",
    "msrvtt/ret-1ka": "MSR-VTT",
    "msvd/ret-multi": "MSVD",
    "didemo/ret-paragraph": "DiDeMo",
}
_TO_FILL = (
    "needs weights and videos that are yours to bring: `python -m eval.caption` and "
    "`eval.retrieval` with dataset, protocol and checkpoint.folder fill ours"
)


@dataclass(frozen=True)
class Row:
    """One cell of a table. `ours` or `paper` is None where there is no such figure, and `note`
    then says why. `spread` is in words: what it is, and its two ends. `load` is of a timing:
    `quiet`, `busy` (beside other work) or `not recorded`."""

    table: str
    row: str
    column: str
    ours: float | None
    paper: float | None
    unit: str
    n: int | None = None
    spread: str = ""
    scale: str = ""
    machine: Machine | None = None
    load: str = ""
    records: str = ""
    note: str = ""


def family(record: Record) -> str:
    """The name in the paper's words of the model that a record is about."""
    module = record.component("model").removeprefix("models.")
    return FAMILIES.get(module, str(record.config("model.name")))


def data_of(record: Record) -> str:
    """The data that a record is about, as the paper's columns name it.

    A protocol that the paper may mean has the paper's name; a reduced gallery, or another
    protocol, keeps its own and never stands in the paper's column.
    """
    protocol = str(record.data.get("protocol") or TOY)
    label = str(record.values.get("label") or "")
    if protocol.startswith(TOY):
        return TOY
    return f"{protocol} ({label})" if label else PROTOCOLS.get(protocol, protocol)


def newest(
    records: Iterable[Record],
    stage: str,
    *,
    model: str = "mPLUG2+",
    data: str = TOY,
) -> dict[str, Record]:
    """The newest good record of a stage for each precision; smoke runs left out, and captions
    that came from a file, whose model is not known.

    Newest by start, of whichever machine: a later record replaces an earlier one whole, so a table
    never mixes two runs within a row.
    """
    found: dict[str, Record] = {}
    for record in records:
        if shown(record, stage) and (family(record), data_of(record)) == (model, data):
            found[str(record.values["precision"])] = record
    return found


def subjects(records: Iterable[Record], stage: str) -> list[tuple[str, str]]:
    """(data, model) of a stage's records: the toy data first, mPLUG2+ first."""
    met = {(data_of(r), family(r)) for r in records if shown(r, stage)}
    return sorted(met, key=lambda s: (s[0] != TOY, s[0], s[1] != "mPLUG2+", s[1]))


def shown(record: Record, stage: str) -> bool:
    """Whether a record of that stage may stand in a table."""
    known = record.data["scale"] != "smoke" and not record.config("from_predictions")
    return record.stage == stage and record.ok and known


def by_machine(records: Iterable[Record]) -> list[list[Record]]:
    """Records of each machine, in the order in which the machines first appear."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.machine.fingerprint, []).append(record)
    return list(found.values())


def of_newest_definition(records: Iterable[Record], stage: str) -> list[Record]:
    """The records of a stage that may stand in a table of load times: those under the newest
    definition of a load that any of them was measured under."""
    mine = [r for r in records if shown(r, stage)]
    newest_version = max((r.definition("load") or 0 for r in mine), default=0)
    return [r for r in mine if (r.definition("load") or 0) == newest_version]


def omitted_records(records: Iterable[Record], stage: str, table: str) -> list[Row]:
    """A row that says how many records a table leaves out for an older definition; else none."""
    mine = [r for r in records if shown(r, stage)]
    older = len(mine) - len(of_newest_definition(mine, stage))
    if not older:
        return []
    note = f"{older} records under an older definition of a load are left out"
    return [Row(table, "", "", None, None, "", note=note)]


def quietness(record: Record) -> int:
    """Orders timings: quiet ones above those of unknown load, above busy ones."""
    return {False: 2, None: 1, True: 0}[record.busy]


def keep_quietest(found: dict[Any, Record], key: Any, record: Record) -> None:
    """Keep a timing under `key` unless a quieter one is there: of equally quiet ones the last."""
    if key not in found or quietness(record) >= quietness(found[key]):
        found[key] = record


def load_label(record: Record) -> str:
    """Of a timing: whether other work took part of the processor."""
    if record.busy is None:
        return "not recorded"
    return "busy" if record.busy else "quiet"


def ran_on(record: Record) -> str:
    """The device and the model of a record, which rows of speed and memory begin with."""
    device = record.data["device"]
    return f"{'host' if device == 'cpu' else device}/{record.config('model.name')}"


def functional(record: Record) -> str:
    """What a time of this record stands for: at tiny scale that measuring works, and else a model
    of these weights."""
    if record.data["scale"] == "tiny":
        return "functional only"
    return f"{record.data['weights']} weights"


def busy_suffix(record: Record) -> str:
    """Ends a figure's title where its times are busy."""
    return ", busy" if record.busy else ""


def load_definition(record: Record) -> str:
    """Which meaning of a load's seconds a record has, in words."""
    version = record.definition("load")
    return "" if version is None else f"{MEANINGS['load'][version]} (definition {version})"


def unfilled(paper: Iterable[Cell], table: str, note: str) -> list[Row]:
    """The paper's cells of a table, with the reason why ours are empty."""
    return [
        Row(table, c.row, c.column, None, c.value, c.unit, note=note)
        for c in paper
        if c.table == table
    ]


def table1(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Caption quality of every model and data set on record, with floors and people beside."""
    rows = []
    for data, model in subjects(records, "caption"):
        for precision, record in newest(records, "caption", model=model, data=data).items():
            values = record.values
            versions: list[tuple[str, Mapping[str, Any]]] = [(f"{model}/{precision}", values)]
            for part in ("seen", "held_out"):
                if part in values:
                    versions.append((f"{model}/{precision}/{part}", values[part]))
            if precision == "fp32" and model == "mPLUG2+":
                versions += [
                    ("floor/constant sentence", values["floor_constant_sentence"]),
                    ("floor/next video's caption", values["floor_next_video"]),
                    ("people/leave one out", values["people_leave_one_out"]),
                ]
            for name, scores in versions:
                for column, key in CAPTION_METRICS.items():
                    rows.append(
                        measured("table01", name, f"{data}/{column}", scores[key], "point", record)
                    )
    return rows + unfilled(paper, "table01", _TO_FILL)


def table2(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Retrieval on all data but DiDeMo's, with the true captions and the next video's beside."""
    rows = _retrieval(records, "table02", lambda data: data != "DiDeMo")
    return rows + unfilled(paper, "table02", _TO_FILL)


def table10(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Retrieval on DiDeMo, by the code of Table 2."""
    rows = _retrieval(records, "table10", lambda data: data == "DiDeMo")
    return rows + unfilled(paper, "table10", _TO_FILL)


def _retrieval(records: Sequence[Record], table: str, wanted: Callable[[str], bool]) -> list[Row]:
    rows = []
    for data, model in subjects(records, "retrieval"):
        if not wanted(data):
            continue
        for precision, record in newest(records, "retrieval", model=model, data=data).items():
            versions = [(f"{model}/{precision}", record.values["model"])]
            if precision == "fp32" and model == "mPLUG2+":
                versions += [
                    ("ceiling/true caption", record.values["ceiling_true_caption"]),
                    ("floor/next video's caption", record.values["floor_next_video"]),
                ]
            for name, scores in versions:
                for column, key in RECALLS.items():
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
            for part in ("seen", "held_out"):
                scores = record.values.get(part, {})
                name = f"{model}/{precision}/{part}"
                rows += [
                    measured(table, name, f"{data}/{column}", scores[key], "percent", record)
                    for column, key in RECALLS.items()
                    if key in scores
                ]
    return rows


def int8_cost(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """int8 minus fp32 of the same weights on the same clips, with its interval.

    Beside it the drops that the paper's own tables imply, on other data.
    """
    rows = []
    for stage, table, columns in (
        ("caption", "table01", CAPTION_METRICS),
        ("retrieval", "table02", {k: v for k, v in RECALLS.items() if v != "median_rank"}),
    ):
        for data, model in subjects(records, stage):
            record = newest(records, stage, model=model, data=data).get("int8")
            difference = record.values.get("minus_fp32") if record else None
            if record and difference:
                rows += [
                    measured(
                        "int8_cost",
                        model,
                        f"{data}/{column}",
                        difference[key]["mean"],
                        "point",
                        record,
                        spread="95 % paired bootstrap {low:+.2f} to {high:+.2f}".format(
                            **difference[key]
                        ),
                        note=f"{model}, int8 minus fp32",
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
    """What the captions get right, attribute by attribute, seen and held-out combinations apart."""
    return [
        measured(
            "attributes",
            f"{model}/{precision}/{group}",
            f"{data}/{name}",
            100 * correct / total,
            "percent",
            record,
            n=total,
        )
        for data, model in subjects(records, "caption")
        for precision, record in newest(records, "caption", model=model, data=data).items()
        for group, by_name in record.values.get("attribute_accuracy", {}).items()
        for name, (correct, total) in by_name.items()
    ]


def build_all(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """All tables by file stem."""
    return {
        "table01": table1(records, paper),
        "table02": table2(records, paper),
        "table10": table10(records, paper),
        "int8_cost": int8_cost(records, paper),
        "attributes": attributes(records),
    }


def measured(
    table: str,
    row: str,
    column: str,
    value: float,
    unit: str,
    record: Record,
    *,
    n: int | None = None,
    spread: str = "",
    note: str = "",
) -> Row:
    """A cell of ours, with its record; says so if the record is of uncommitted code."""
    if not record.clean:
        note = f"{note}; uncommitted tree" if note else "uncommitted tree"
    return Row(
        table,
        row,
        column,
        value,
        None,
        unit,
        n if n is not None else record.values.get("videos"),
        spread,
        str(record.data["scale"]),
        record.machine,
        load_label(record) if table in SPEED else "",
        record.run_id,
        note,
    )


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
