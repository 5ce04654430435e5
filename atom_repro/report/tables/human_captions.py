"""Tables 6 and 7, and the human oracle beside Tables 1, 2 and 10; pure functions of records.

Unlike the toy tables, these are on the paper's own text data, so both stand in one grid. What a
comparison may say is limited: a human caption is a reference and not a bound, so a figure of the
paper above all of ours is "above every human-caption index tried", and nothing more.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from atom_repro.records.record import Record
from atom_repro.report.paper import Cell
from atom_repro.report.render import processor_by_row, records_line, rows_by_machine
from atom_repro.report.tables.quality import Row, measured

TITLES = {
    "table07": "Table 7: the text embedder in int8",
    "oracle": "The human oracle, beside Tables 1, 2 and 10",
    "oracle_gallery": "Recall by gallery size, one human caption a video",
    "oracle_bytes": "Appendix B: bytes of a text index",
}
_EMBEDDER = "all-MiniLM-L6-v2"
_PAPER_DATA = {"msrvtt": "MSR-VTT", "msvd": "MSVD", "didemo": "DiDeMo"}
_CAPTION = {"BLEU@4": "bleu_4", "ROUGE-L": "rouge_l", "METEOR": "meteor", "CIDEr": "cider"}
_RECALL = {"R@1": "r1", "R@5": "r5", "R@10": "r10"}
_SPREAD = "95 % bootstrap "
_MIB = 2**20
_RUN_ORACLE = "`make oracle` fills ours"
_RUN_TABLE7 = "`make table7` fills ours"


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """All tables of this file by stem."""
    return {
        "table07": table7(records, paper),
        "oracle": oracle(records, paper),
        "oracle_gallery": gallery(records),
        "oracle_bytes": index_bytes(records),
    }


def newest_by_protocol(records: Iterable[Record], stage: str) -> dict[str, Record]:
    """The newest good record of a stage for each protocol."""
    found = {}
    for record in records:
        if record.stage == stage and record.ok and record.data["scale"] != "smoke":
            found[str(record.data["protocol"])] = record
    return found


def table6(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """The embedder's row: bytes of each precision as a file, the paper's beside fp32 and nearest.

    The paper's MB may be 10^6 or 2^20 bytes; the note gives the other reading.
    """
    cell = _cell(paper, "table06", _EMBEDDER, "storage")
    record = newest_by_protocol(records, "text_embedder").get("stsb/test")
    if record is None:
        return [Row("table06", _EMBEDDER, "storage", None, cell, "MB", note=_RUN_TABLE7)]
    sizes = {name: row["saved_bytes"] for name, row in record.values["recipes"].items()}
    rows = [
        measured(
            "table06", f"{_EMBEDDER}/{name}", "storage", size / 1e6, "MB", record,
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
            Row("table06", _EMBEDDER, "storage", None, cell, "MB",
                note=f"nearest of ours: {near}, {sizes[near] / 1e6:.1f} MB or "
                f"{sizes[near] / _MIB:.1f} MiB")
        )  # fmt: skip
    return rows


def table7(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """STS-B by recipe; the paper's int8 beside the recipe that comes nearest to it.

    Retrieval (F.3) is MSR-VTT 1k-A with one human caption a video as the index.
    """
    cells = {
        version: _cell(paper, "table07", f"{_EMBEDDER}/{version}", "STS-B/Pearson")
        for version in ("fp32", "int8")
    }
    record = newest_by_protocol(records, "text_embedder").get("stsb/test")
    if record is None:
        return [
            Row("table07", f"{_EMBEDDER}/{v}", "STS-B/Pearson", None, c, "1", note=_RUN_TABLE7)
            for v, c in cells.items()
        ]
    recipes: Mapping[str, Any] = record.values["recipes"]
    target = cells["int8"]
    lossy = [n for n in recipes if n != "fp32"]
    near = min(lossy, key=lambda n: abs(recipes[n]["pearson"] - target)) if target and lossy else ""
    rows = []
    for name, row in recipes.items():
        rows += _recipe(f"{_EMBEDDER}/{name}", row, record)
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
    ends = _ends("over pairs", row["pearson_low"], row["pearson_high"], 4)
    rows = [
        measured(
            "table07", label, "STS-B/Pearson", row["pearson"], "1", record, n=pairs, spread=ends
        ),
        measured("table07", label, "STS-B/Spearman", row["spearman"], "1", record, n=pairs),
    ]
    lost = row.get("pearson_minus_fp32")
    if lost:
        ends = _ends("over pairs, paired", lost["low"], lost["high"], 4)
        column = "STS-B/Pearson minus fp32"
        rows.append(
            measured("table07", label, column, lost["mean"], "1", record, n=pairs, spread=ends)
        )
    for metric, key in _RECALL.items():
        both = ((metric, row.get(key)), (f"{metric} minus fp32", row.get(f"{key}_minus_fp32")))
        for kind, values in both:
            if values:
                ends = _ends("over videos", values["low"], values["high"], 1)
                column = f"msrvtt/ret-1ka/{kind}"
                rows.append(
                    measured("table07", label, column, values["mean"], "%", record, n=queries,
                          spread=ends)
                )  # fmt: skip
    return rows


def oracle(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """People as captioners and as the text index; the paper's rows of the same data under them."""
    rows: list[Row] = []
    for stage, table, metrics in (
        ("oracle_caption", {"msrvtt": "table01", "msvd": "table01"}, _CAPTION),
        (
            "oracle_retrieval",
            {"msrvtt": "table02", "msvd": "table02", "didemo": "table10"},
            _RECALL,
        ),
    ):
        for protocol, record in sorted(newest_by_protocol(records, stage).items()):
            data = protocol.split("/")[0]
            ours = _people(protocol, record, metrics)
            rows += ours + _papers(paper, table.get(data, ""), protocol, ours, metrics)
    if not rows:
        return [
            Row("oracle", c.row, c.column, None, c.value, c.unit, note=_RUN_ORACLE)
            for c in paper
            if c.table in ("table01", "table02", "table10")
        ]
    return rows


def _people(protocol: str, record: Record, metrics: Mapping[str, str]) -> list[Row]:
    rows = []
    n = record.values.get("queries") or record.values["videos"]
    for name, values in record.values["rows"].items():
        note = ""
        if "one at random" in name:
            note = f"mean of {record.values['draws']} draws"
        if "known" in name:
            note = "an optimistic reference: chosen with the answer in view"
        if "copies out" in name:
            note = "; ".join(filter(None, (note, "references that say the same taken out")))
        for column, key in metrics.items():
            v = values[key]
            rows.append(
                measured(
                    "oracle", f"people/{name}", f"{protocol}/{column}", v["mean"],
                    "%" if key in _RECALL.values() else "point", record,
                    n=values.get("queries", n),
                    spread=_ends("over videos", v["low"], v["high"], 1), note=note,
                )
            )  # fmt: skip
        if "index_size" in values:
            rows.append(
                measured(
                    "oracle", f"people/{name}", f"{protocol}/median rank", values["median_rank"],
                    "rank", record, n=values["queries"],
                    note=f"gallery of {values['index_size']}",
                )
            )  # fmt: skip
    return rows


def _papers(
    paper: Iterable[Cell],
    table: str,
    protocol: str,
    ours: Sequence[Row],
    metrics: Mapping[str, str],
) -> list[Row]:
    """The paper's cells of this data set, with what may be said of them beside ours."""
    data = _PAPER_DATA[protocol.split("/")[0]]
    found = []
    for cell in paper:
        if cell.table != table or cell.value is None:
            continue
        name, _, metric = cell.column.partition("/")
        if name != data or metric not in metrics:
            continue
        same = [r for r in ours if r.column.endswith(f"/{metric}")]
        found.append(
            Row(
                "oracle", f"paper/{cell.row}", f"{protocol}/{metric}", None, cell.value, cell.unit,
                note="; ".join(filter(None, (_verdict(cell, same, protocol), cell.note))),
            )
        )  # fmt: skip
    return found


def _verdict(cell: Cell, ours: Sequence[Row], protocol: str) -> str:
    """Where a figure of the paper lies among ours: those that know the answer, and the others."""
    tried = [(r.ours, r.row) for r in ours if r.ours is not None]
    if not tried or cell.value is None or "exchanged" in cell.note:
        return ""
    caption = protocol.split("/")[1].startswith("caption")
    what = "human captioner" if caption else "human-caption index"
    unknown = ", if this is the paper's protocol" if protocol.startswith("msrvtt/ret") else ""
    best = max(tried)
    blind = max((t for t in tried if "known" not in t[1]), default=best)
    if cell.value > best[0]:
        return f"above every {what} tried (best {best[0]:.1f}){unknown}"
    if cell.value > blind[0]:
        return (
            f"above every {what} tried that does not know the answer (best {blind[0]:.1f}), and "
            f"not above {best[1]} ({best[0]:.1f}){unknown}"
        )
    return f"not above {blind[1]} ({blind[0]:.1f}){unknown}"


def gallery(records: Sequence[Record]) -> list[Row]:
    """Recall of one caption at random in random sub-galleries, exact from the ranks."""
    rows = []
    for protocol, record in sorted(newest_by_protocol(records, "oracle_retrieval").items()):
        for size, values in record.values["curve"].items():
            for column, key in _RECALL.items():
                v = values[key]
                rows.append(
                    measured(
                        "oracle_gallery", size, f"{protocol}/{column}", v["mean"], "%", record,
                        n=record.values["rows"]["one at random"]["queries"],
                        spread=_ends("over videos", v["low"], v["high"], 1),
                        note="all other videos drawn at random, the query's own kept",
                    )
                )  # fmt: skip
    return rows


def index_bytes(records: Sequence[Record]) -> list[Row]:
    """A video's entry in a text index, in bytes, beside the latent that the paper names."""
    rows: list[Row] = []
    latent = 0
    for protocol, record in sorted(newest_by_protocol(records, "oracle_retrieval").items()):
        sizes: Mapping[str, Any] = record.values["bytes"]
        latent = sizes["paper_latent_bytes"]
        for name, text in sizes["text"].items():
            rows.append(
                measured(
                    "oracle_bytes", name, f"{protocol}/mean bytes", text["mean_bytes"], "byte",
                    record, n=record.values["videos"],
                    note=f"95th percentile {text['p95_bytes']:.0f}; UTF-8",
                )
            )  # fmt: skip
        rows.append(
            measured(
                "oracle_bytes", "its vector, fp32", f"{protocol}/mean bytes",
                sizes["embedding_fp32_bytes"], "byte", record, n=record.values["videos"],
            )
        )  # fmt: skip
    if rows:
        rows.append(
            Row("oracle_bytes", "latent of 2048 x 1024 in fp32", "paper/bytes", None, latent,
                "byte", note="appendix B, computed from its shape; the text is to take a few "
                "hundred bytes; quality of a latent index needs a model")
        )  # fmt: skip
    return rows


def gallery_figure(records: Sequence[Record], paper: Sequence[Cell]) -> str | None:
    """R@1 by gallery size for each protocol, with the paper's galleries' R@1 as points.

    The same bytes for the same records. None without a record.
    """
    found = newest_by_protocol(records, "oracle_retrieval")
    if not found:
        return None
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for i, (protocol, record) in enumerate(sorted(found.items())):
        curve = record.values["curve"]
        sizes = [int(s) for s in curve]
        r1 = [curve[str(s)]["r1"] for s in sizes]
        axis.plot(sizes, [v["mean"] for v in r1], marker=".", color=f"C{i}", label=protocol)
        axis.fill_between(
            sizes, [v["low"] for v in r1], [v["high"] for v in r1], color=f"C{i}", alpha=0.2,
            linewidth=0,
        )  # fmt: skip
    for name, size in (("MSR-VTT", 1000), ("MSVD", 670), ("DiDeMo", 1004)):
        value = _cell(paper, "table10" if name == "DiDeMo" else "table02", "mPLUG2+/fp32",
                      f"{name}/R@1")  # fmt: skip
        if value is not None:
            axis.plot(size, value, marker="x", color="black", linestyle="none")
            axis.annotate(f"paper, {name}", (size, value), xytext=(4, 4),
                          textcoords="offset points", fontsize=8)  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlabel("videos in the gallery")
    axis.set_ylabel("R@1 in per cent")
    axis.set_title("One human caption a video as the index", fontsize=10)
    axis.legend(fontsize=8)
    figure.tight_layout()
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "atom-repro", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def to_markdown(name: str, rows: Sequence[Row]) -> str:
    """One grid a protocol, ours with intervals over the paper's, then the notes and records."""
    lines = [f"# {TITLES[name]}", ""]
    if any(r.ours is not None for r in rows):
        lines += [
            f"Ours on {'; '.join(rows_by_machine(rows))}; in brackets 95 % bootstrap intervals. "
            "Real annotations, no video and no captioning model.",
            "",
        ]
    if name == "oracle":
        lines += [
            "A human caption is a reference, not a bound: a model that writes the consensus "
            "sentence may score above any one person. No index holds the query's own sentence or "
            "a copy of it.",
            "",
        ]
    for group in dict.fromkeys(_group(r) for r in rows):
        lines += [*_grid([r for r in rows if _group(r) == group], group), ""]
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(f"{row.row}, {row.column}")
    lines += [
        f"- {where[0]}{' and others' if len(where) > 1 else ''}: {note}."
        for note, where in notes.items()
    ]
    if rows_by_machine(rows):
        lines += ["", records_line(rows)]
    return "\n".join(lines).rstrip() + "\n"


def _group(row: Row) -> str:
    return row.column.rpartition("/")[0]


def _grid(rows: Sequence[Row], group: str) -> list[str]:
    columns = list(dict.fromkeys(r.column for r in rows))
    heads = [c.rpartition("/")[2] for c in columns]
    cells = {(r.row, r.column): r for r in rows}
    on = processor_by_row(rows)
    heads += ["processor"] if on else []
    lines = [f"| {group} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in dict.fromkeys(r.row for r in rows):
        shown = [_shown(cells.get((name, column))) for column in columns]
        shown += [on[name]] if on else []
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def _shown(row: Row | None) -> str:
    value = None if row is None else row.ours if row.ours is not None else row.paper
    if row is None or value is None:
        return ""
    digits = {"1": 4, "%": 1, "point": 1, "MB": 1}.get(row.unit, 0)
    text = f"{value:,.{digits}f}"
    _, found, ends = row.spread.partition(": ")
    return f"{text} ({ends})" if found else text


def _ends(over: str, low: float, high: float, digits: int) -> str:
    return f"{_SPREAD}{over}: {low:.{digits}f} to {high:.{digits}f}"


def _cell(paper: Iterable[Cell], table: str, row: str, column: str) -> float | None:
    return next(
        (c.value for c in paper if (c.table, c.row, c.column) == (table, row, column)), None
    )
