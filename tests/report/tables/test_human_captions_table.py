"""Tables from records made by hand: what stands beside the paper, and what may be said of it."""

import csv
import io
from pathlib import Path

import pytest
from machines import OLD

from atom_repro.records.record import Record
from atom_repro.report.paper import load_cells
from atom_repro.report.render import TITLES, to_csv, to_markdown
from atom_repro.report.tables import human_captions
from atom_repro.report.tables.storage import table6
from atom_repro.report.tables.text_embedder import table7

PAPER = list(load_cells(Path(__file__).parents[3] / "results/paper"))


def at(mean, half=1.0):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def record(stage, protocol, values, *, scale="paper", status="ok", clean=True) -> Record:
    data = {
        "stage": stage, "protocol": protocol, "scale": scale, "status": status, "values": values,
        "git": {"clean": clean}, "samples": None, "config": {}, "machine": OLD.to_dict(),
    }  # fmt: skip
    return Record(Path(f"run-{stage}-{protocol.replace('/', '-')}"), data)


def recalls(r1, queries=1000, size=1000):
    return {
        "r1": at(r1), "r5": at(r1 + 20), "r10": at(r1 + 25), "median_rank": 3.0,
        "queries": queries, "index_size": size,
    }  # fmt: skip


def retrieval(protocol, best=60.0, **changes):
    values = {
        "videos": 1000, "queries": 1000, "draws": 3,
        "rows": {"one at random": recalls(40.0), "best of N, query known": recalls(best)},
        "curve": {"50": {k: at(90.0) for k in ("r1", "r5", "r10")},
                  "1000": {k: at(40.0) for k in ("r1", "r5", "r10")}},
        "bytes": {
            "text": {"one caption": {"mean_bytes": 43.0, "p95_bytes": 70.0, "total_bytes": 43000}},
            "embedding_fp32_bytes": 1536, "paper_latent_bytes": 8388608,
        },
    }  # fmt: skip
    return record("oracle_retrieval", protocol, values, **changes)


def caption(protocol="msvd/caption"):
    scores = {"bleu_4": at(50.0), "rouge_l": at(60.0), "meteor": at(36.0), "cider": at(80.0)}
    values = {"videos": 670, "draws": 3, "rows": {"one at random": scores}}
    return record("oracle_caption", protocol, values)


def embedder(**changes):
    recipes = {
        "fp32": {"pearson": 0.8274, "spearman": 0.82, "saved_bytes": 90.9e6,
                 "pearson_low": 0.81, "pearson_high": 0.84, "r1": at(30.0)},
        "legacy_linear_x86": {"pearson": 0.8179, "spearman": 0.81, "saved_bytes": 58.6e6,
                 "pearson_low": 0.80, "pearson_high": 0.83, "r1": at(29.0),
                 "pearson_minus_fp32": {"mean": -0.0095, "low": -0.012, "high": -0.007},
                 "r1_minus_fp32": at(-1.0)},
        "torchao_dynamic_linear": {"pearson": 0.8245, "spearman": 0.81, "saved_bytes": 55.4e6,
                 "pearson_low": 0.80, "pearson_high": 0.83},
    }  # fmt: skip
    values = {"pairs": 1379, "queries": 1000, "tokenizer_bytes": 700000, "recipes": recipes}
    return record("text_embedder", "stsb/test", values, **changes)


def cell(rows, row, column):
    return next(r for r in rows if (r.row, r.column) == (row, column))


def test_table7_puts_the_nearest_recipe_beside_the_paper():
    rows = table7([embedder()], PAPER)
    ours = cell(rows, "all-MiniLM-L6-v2/fp32", "STS-B/Pearson")
    assert (ours.ours, ours.n, ours.scale) == (0.8274, 1379, "paper")
    assert (ours.spread, ours.low, ours.high) == ("95 % bootstrap over pairs", 0.81, 0.84)
    paper = cell(rows, "paper/int8", "STS-B/Pearson")
    assert paper.paper == 0.8156 and "legacy_linear_x86, 0.8179" in paper.note
    lost = cell(rows, "all-MiniLM-L6-v2/legacy_linear_x86", "STS-B/Pearson minus fp32")
    assert (lost.ours, lost.low, lost.high) == (-0.0095, -0.012, -0.007)
    assert cell(rows, "all-MiniLM-L6-v2/fp32", "msrvtt/ret-1ka/R@1").n == 1000


def test_table6_reads_the_papers_mb_both_ways():
    rows = table6([embedder()], PAPER)
    assert cell(rows, "all-MiniLM-L6-v2/fp32", "storage").ours == pytest.approx(90.9)
    paper = cell(rows, "all-MiniLM-L6-v2", "storage")
    assert paper.paper == 53 and paper.note.startswith("nearest of ours: torchao_dynamic_linear")
    assert "52.8 MiB" in paper.note


def test_the_verdict_says_no_more_than_was_tried():
    rows = human_captions.human_beside_paper([retrieval("msrvtt/ret-1ka", best=55.0)], PAPER)
    above = cell(rows, "paper/mPLUG2+/fp32", "msrvtt/ret-1ka/R@1")
    assert above.paper == 57.2
    assert above.note.startswith("above every human-caption index tried (best 55.0), if this is")
    rows = human_captions.human_beside_paper([retrieval("msrvtt/ret-1ka", best=58.0)], PAPER)
    below = cell(rows, "paper/mPLUG2+/fp32", "msrvtt/ret-1ka/R@1")
    assert "does not know the answer (best 40.0), and not above people/best of N" in below.note
    quantised = cell(rows, "paper/mPLUG2/int8", "msrvtt/ret-1ka/R@1")
    assert "does not know" in quantised.note and quantised.paper == 48.7
    text = " ".join(r.note for r in rows)
    assert "impossible" not in text and "upper bound" not in text


def test_captions_stand_beside_table_1_and_its_exchanged_columns_get_no_verdict():
    rows = human_captions.human_beside_paper([caption()], PAPER)
    assert "human captioner tried (best 80.0)" in cell(
        rows, "paper/mPLUG2+/fp32", "msvd/caption/CIDEr"
    ).note  # fmt: skip
    meteor = cell(rows, "paper/mPLUG2/fp32", "msvd/caption/METEOR")
    assert "tried" not in meteor.note


def test_didemo_takes_table_10_and_protocols_do_not_mix():
    rows = human_captions.human_beside_paper(
        [retrieval("didemo/ret-sentence"), retrieval("msvd/ret-multi")], PAPER
    )
    assert cell(rows, "paper/mPLUG2+/fp32", "didemo/ret-sentence/R@1").paper == 60.0
    assert cell(rows, "paper/mPLUG2+/fp32", "msvd/ret-multi/R@1").paper == 69.1


def test_without_records_the_papers_cells_say_what_fills_ours():
    tables = human_captions.build([], PAPER)
    assert {r.note for r in tables["oracle"]} == {"`make human-captions` fills ours"}
    assert {r.note for r in table7([], PAPER)} == {"`make table7` fills ours"}
    assert all(r.ours is None for rows in tables.values() for r in rows)
    assert human_captions.gallery_figure([], PAPER) is None


def test_smoke_failed_and_older_records_do_not_show():
    hidden = [
        retrieval("msrvtt/ret-1ka", scale="smoke"),
        retrieval("msrvtt/ret-1ka", status="failed"),
    ]
    assert human_captions.gallery(hidden) == []
    newer = [retrieval("msrvtt/ret-1ka", best=1.0), retrieval("msrvtt/ret-1ka", best=70.0)]
    rows = human_captions.human_beside_paper(newer, PAPER)
    assert cell(rows, "people/best of N, query known", "msrvtt/ret-1ka/R@1").ours == 70.0
    dirty = human_captions.human_beside_paper([retrieval("msrvtt/ret-1ka", clean=False)], PAPER)
    assert all("uncommitted tree" in r.note for r in dirty if r.ours is not None)


def test_bytes_stand_beside_the_latent():
    rows = human_captions.index_bytes([retrieval("msrvtt/ret-1ka")])
    assert cell(rows, "one caption", "msrvtt/ret-1ka/mean bytes").ours == 43.0
    assert cell(rows, "latent of 2048 x 1024 in fp32", "paper/bytes").paper == 8388608


def test_files_and_figure_are_the_same_twice():
    records = [retrieval("msrvtt/ret-1ka"), caption(), embedder()]
    tables = human_captions.build(records, PAPER)
    for name, rows in tables.items():
        text = to_markdown(name, rows)
        assert text.startswith(f"# {TITLES[name]}") and text.endswith("\n")
        assert len(list(csv.DictReader(io.StringIO(to_csv(rows))))) == len(rows)
    shown = to_markdown("oracle", tables["oracle"])
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert any(line.startswith("| people/one at random | 40.0 (39.0 to 41.0) |") for line in lines)
    assert any(line.startswith("| paper/mPLUG2+/fp32 | 57.2 |") for line in lines)
    first, second = (human_captions.gallery_figure(records, PAPER) for _ in range(2))
    assert first and first == second and "videos in the gallery" in first
