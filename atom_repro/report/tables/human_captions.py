"""Tables of human captions as captions and as a text index, beside the paper's numbers.

Pure functions of records. Unlike the toy tables, these are on the paper's own text data, so both
stand in one grid. A human caption is a reference and not an upper bound, so a number of the paper
above all of ours is "above every human-caption index tried", and nothing more.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured
from atom_repro.report.paper import Cell, value_of
from atom_repro.report.select import newest_by_protocol
from atom_repro.report.svg import svg
from atom_repro.report.tables.quality import CAPTION_METRICS, RECALLS

_PAPER_DATASETS = {"msrvtt": "MSR-VTT", "msvd": "MSVD", "didemo": "DiDeMo"}
_BOOTSTRAP = "95 % bootstrap over videos"
_HOW_TO_FILL = "`make human-captions` fills ours"


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """Rows of the tables of this module by file stem."""
    return {
        "oracle": human_beside_paper(records, paper),
        "oracle_gallery": gallery(records),
        "oracle_bytes": index_bytes(records),
    }


def human_beside_paper(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Scores of human captions and of text indexes of them, above the paper's on the same data."""
    rows: list[Row] = []
    for stage, tables, metrics in (
        ("oracle_caption", {"msrvtt": "table01", "msvd": "table01"}, CAPTION_METRICS),
        (
            "oracle_retrieval",
            {"msrvtt": "table02", "msvd": "table02", "didemo": "table10"},
            RECALLS,
        ),
    ):
        for protocol, record in sorted(newest_by_protocol(records, stage).items()):
            dataset = protocol.split("/")[0]
            ours = _human_rows(protocol, record, metrics)
            rows += ours + _paper_rows(paper, tables.get(dataset, ""), protocol, ours, metrics)
    if not rows:
        return [
            Row("oracle", c.row, c.column, None, c.value, c.unit, note=_HOW_TO_FILL)
            for c in paper
            if c.table in ("table01", "table02", "table10")
        ]
    return rows


def _human_rows(protocol: str, record: Record, metrics: Mapping[str, str]) -> list[Row]:
    rows = []
    n = record.values.get("queries") or record.values["videos"]
    for name, values in record.values["rows"].items():
        note = ""
        if "one at random" in name:
            note = f"mean of {record.values['draws']} draws"
        if "known" in name:
            note = "an optimistic reference: chosen with the answer in view"
        scored = values.get("queries", n)
        if scored < n:
            note = "; ".join(
                filter(
                    None,
                    (
                        note,
                        f"{n - scored} of {n} queries have no index "
                        "without their own sentence and are not scored",
                    ),
                )
            )
        if "copies out" in name:
            note = "; ".join(filter(None, (note, "references that say the same taken out")))
        for column, key in metrics.items():
            score = values[key]
            rows.append(
                measured(
                    "oracle", f"people/{name}", f"{protocol}/{column}", score["mean"],
                    "%" if key in RECALLS.values() else "point", record,
                    n=scored,
                    spread=_BOOTSTRAP, interval=(score["low"], score["high"]),
                    note=note,
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


def _paper_rows(
    paper: Iterable[Cell],
    table: str,
    protocol: str,
    ours: Sequence[Row],
    metrics: Mapping[str, str],
) -> list[Row]:
    """The paper's cells of this data set, each with a note that compares it with ours."""
    paper_dataset = _PAPER_DATASETS[protocol.split("/")[0]]
    rows = []
    for cell in paper:
        if cell.table != table or cell.value is None:
            continue
        dataset, _, metric = cell.column.partition("/")
        if dataset != paper_dataset or metric not in metrics:
            continue
        same_metric = [r for r in ours if r.column.endswith(f"/{metric}")]
        rows.append(
            Row(
                "oracle", f"paper/{cell.row}", f"{protocol}/{metric}", None, cell.value, cell.unit,
                note="; ".join(filter(None, (_verdict(cell, same_metric, protocol), cell.note))),
            )
        )  # fmt: skip
    return rows


def _verdict(cell: Cell, ours: Sequence[Row], protocol: str) -> str:
    """Compare a number of the paper with ours, with and without those that know the answer."""
    scores = [(r.ours, r.row) for r in ours if r.ours is not None]
    if not scores or cell.value is None or "exchanged" in cell.note:
        return ""
    caption = protocol.split("/")[1].startswith("caption")
    kind = "human captioner" if caption else "human-caption index"
    caveat = (
        ", if this is the paper's protocol"
        if protocol.startswith(("msrvtt/ret", "didemo/ret"))
        else ""
    )
    best = max(scores)
    unaided = max((s for s in scores if "known" not in s[1]), default=best)
    if cell.value > best[0]:
        return f"above every {kind} tried (best {best[0]:.1f}){caveat}"
    if cell.value > unaided[0]:
        return (
            f"above every {kind} tried that does not know the answer (best {unaided[0]:.1f}), and "
            f"not above {best[1]} ({best[0]:.1f}){caveat}"
        )
    return f"not above {unaided[1]} ({unaided[0]:.1f}){caveat}"


def gallery(records: Sequence[Record]) -> list[Row]:
    """Recall of one random human caption by gallery size, computed exactly from the ranks."""
    rows = []
    for protocol, record in sorted(newest_by_protocol(records, "oracle_retrieval").items()):
        for size, values in record.values["curve"].items():
            for column, key in RECALLS.items():
                recall = values[key]
                rows.append(
                    measured(
                        "oracle_gallery", size, f"{protocol}/{column}", recall["mean"], "%", record,
                        n=record.values["rows"]["one at random"]["queries"],
                        spread=_BOOTSTRAP, interval=(recall["low"], recall["high"]),
                        note="all other videos drawn at random, the query's own kept",
                    )
                )  # fmt: skip
    return rows


def index_bytes(records: Sequence[Record]) -> list[Row]:
    """Bytes of a video's entry in a text index, beside those of the latent that the paper names."""
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
    by_protocol = newest_by_protocol(records, "oracle_retrieval")
    if not by_protocol:
        return None
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for i, (protocol, record) in enumerate(sorted(by_protocol.items())):
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
