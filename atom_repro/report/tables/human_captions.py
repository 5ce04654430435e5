"""Human captions as captions and as a text index, beside Tables 1, 2 and 10 and appendix B.

Pure functions of records. Unlike the toy tables, these are on the paper's own text data, so both
stand in one grid. What a comparison may say is limited: a human caption is a reference and not a
bound, so a figure of the paper above all of ours is "above every human-caption index tried", and
nothing more.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, bootstrap_interval, measured
from atom_repro.report.paper import Cell, value_of
from atom_repro.report.select import newest_by_protocol
from atom_repro.report.svg import svg

_PAPER_DATA = {"msrvtt": "MSR-VTT", "msvd": "MSVD", "didemo": "DiDeMo"}
_CAPTION = {"BLEU@4": "bleu_4", "ROUGE-L": "rouge_l", "METEOR": "meteor", "CIDEr": "cider"}
_RECALL = {"R@1": "r1", "R@5": "r5", "R@10": "r10"}
_TO_FILL = "`make human-captions` fills ours"


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """All tables of this file by stem."""
    return {
        "oracle": people_beside_paper(records, paper),
        "oracle_gallery": gallery(records),
        "oracle_bytes": index_bytes(records),
    }


def people_beside_paper(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
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
            Row("oracle", c.row, c.column, None, c.value, c.unit, note=_TO_FILL)
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
                    spread=bootstrap_interval("over videos", v["low"], v["high"], 1), note=note,
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
                        spread=bootstrap_interval("over videos", v["low"], v["high"], 1),
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
        value = value_of(paper, "table10" if name == "DiDeMo" else "table02", "mPLUG2+/fp32",
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
    return svg(figure)
