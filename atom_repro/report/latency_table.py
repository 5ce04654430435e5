"""Latency, arm by arm, and how close its stages come to what the device allows (Table 3).

Pure functions of records, like `tables`. Devices, models and precisions never share a row.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.paper import Cell
from atom_repro.report.tables import Row, functional, measured, ran_on, shown, unfilled

BASELINE, ATOM = "reload_stage/sequential", "resident/parallel"
SAVED = ("load", "retrieval", "assembly")
PIPELINES = ("retrieval", "assembly")


def newest(records: Sequence[Record]) -> list[Record]:
    """The newest good latency record of each pipeline, device, model, scale and precision; smoke
    left out. Retrieval comes first, and the tiny scale."""
    found: dict[tuple[str, ...], Record] = {}
    for record in records:
        pipeline = record.config("pipeline.name")
        if shown(record, "latency") and pipeline in PIPELINES:
            scale, precision = str(record.data["scale"]), str(record.values["precision"])
            found[pipeline, ran_on(record), scale, precision] = record
    order = sorted(found, key=lambda k: (k[2] != "tiny", PIPELINES.index(k[0]), k[1], k[3]))
    return [found[key] for key in order]


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """The tables by file stem."""
    return {
        "table03": table3(records, paper),
        "arms": arms(records),
        "limits": limits(records),
    }


def table3(records: Sequence[Record], paper: Sequence[Cell]) -> list[Row]:
    """Latency, Table 3's shape: `baseline` is w/o reuse, one prompt over a job of clips.

    Loading is the whole job's; encoding and captioning are a clip's; indexing is embedding the
    captions and the prompt and ranking; script and assembly are of the assembly pipeline, whose
    movie is cut after its session ends and is not counted, as in the paper. A saving is that of
    atom over the baseline, of the medians.
    """
    rows = []
    for record in newest(records):
        pipeline, precision = record.config("pipeline.name"), record.values["precision"]
        cells = {
            variant: _table3_cells(record, arm, pipeline)
            for variant, arm in (("baseline", BASELINE), ("atom", ATOM))
        }
        about = f"{functional(record)}; {record.values['clips']} clips"
        for variant, by_column in cells.items():
            row = f"{ran_on(record)}/{precision}/{variant}"
            for column, seconds in by_column.items():
                rows.append(
                    measured(
                        "table03",
                        row,
                        f"{record.data['scale']}/{column}",
                        median(seconds),
                        "s",
                        record,
                        n=len(seconds),
                        spread=_extremes(seconds),
                        note=about,
                    )
                )
        for column in (c for c in SAVED if c in cells["baseline"] and c in cells["atom"]):
            before, after = (median(cells[v][column]) for v in ("baseline", "atom"))
            rows.append(
                measured(
                    "table03",
                    f"{ran_on(record)}/{precision}/atom",
                    f"{record.data['scale']}/{column}_saving",
                    100 * (1 - after / before),
                    "percent",
                    record,
                    n=len(cells["atom"][column]),
                    note=about,
                )
            )
    return rows + unfilled(
        paper,
        "table03",
        "`python -m device_bench.latency experiment=latency/full_size` measures this machine, and "
        "its GPU with device=cuda; the phones' rows need phones",
    )


def _table3_cells(record: Record, arm: str, pipeline: str) -> dict[str, list[float]]:
    """Samples of the cells that a pipeline fills, of the first prompt of each session."""
    prompts = _prompts(record, arm, first_only=True)
    if not prompts:
        return {}
    whole = [p["end_to_end_s"] for p in prompts]
    if pipeline == "assembly":
        return {"script": [p["stages_s"].get("script", 0.0) for p in prompts], "assembly": whole}
    clips = record.values["clips"]
    return {
        "load": [p["stages_s"].get("load", 0.0) for p in prompts],
        "encode": [p["stages_s"]["encode"] / clips for p in prompts],
        "caption": [p["stages_s"]["caption"] / clips for p in prompts],
        "index": [p["stages_s"]["embed"] + p["stages_s"]["rank"] for p in prompts],
        "retrieval": whole,
    }


_STAGES = ("load", "decode_video", "encode", "caption", "embed", "rank", "script", "release")


def arms(records: Sequence[Record]) -> list[Row]:
    """Every arm: a session's first prompt, all its prompts, and where the seconds went."""
    rows = []
    for record in newest(records):
        for arm in record.values["arms"]:
            first = _prompts(record, arm, first_only=True)
            sessions: dict[int, float] = {}
            for p in _prompts(record, arm, first_only=False):
                sessions[p["repeat"]] = sessions.get(p["repeat"], 0.0) + p["end_to_end_s"]
            total = list(sessions.values())
            count = record.values["prompts"]
            columns: dict[str, list[float]] = {
                "prompt 1": [p["end_to_end_s"] for p in first],
                f"prompts 1-{count}": total,
                **{
                    f"stage/{stage}": [p["stages_s"].get(stage, 0.0) for p in first]
                    for stage in _STAGES
                },
                "less overlap": [p["overlap_s"] for p in first],
                "residual": [p["residual_s"] for p in first],
            }
            for column, seconds in columns.items():
                rows.append(
                    measured(
                        "arms",
                        f"{ran_on(record)}/{record.config('pipeline.name')}/"
                        f"{record.values['precision']}/{arm}",
                        f"{record.data['scale']}/{column}",
                        median(seconds),
                        "s",
                        record,
                        n=len(seconds),
                        spread=_extremes(seconds),
                        note=functional(record),
                    )
                )
    return rows


def limits(records: Sequence[Record]) -> list[Row]:
    """A clip's encoding and captioning beside the least time that the device's rates allow.

    The modules work alone there (the resident, sequential arm), and the rates are the higher of
    two that were measured in the same run, before and after.
    """
    rows = []
    for record in newest(records):
        least: Mapping[str, float] = record.values.get("least_s_per_clip", {})
        prompts = _prompts(record, "resident/sequential", first_only=True) if least else []
        if not prompts:
            continue
        row = f"{ran_on(record)}/{record.config('pipeline.name')}/{record.values['precision']}"
        scale, clips = record.data["scale"], record.values["clips"]
        cells = [
            (name, max(record.values[when][name] for when in ("limits_before", "limits_after")), "")
            for name in record.values["limits_before"]
        ]
        for stage in ("encode", "caption"):
            seconds = [p["stages_s"][stage] / clips for p in prompts]
            cells += [(stage, median(seconds), _extremes(seconds))]
            if stage in least:
                cells += [
                    (f"{stage}, least", least[stage], ""),
                    (f"{stage}, share of the limit", 100 * least[stage] / median(seconds), ""),
                ]
        for column, value, spread in cells:
            unit = "percent" if "share" in column else "s"
            if column.endswith("_per_s"):
                column, value, unit = column.removesuffix("_per_s") + ", 1e9/s", value / 1e9, "1/s"
            rows.append(
                measured(
                    "limits", row, f"{scale}/{column}", value, unit, record,
                    n=len(prompts), spread=spread, note=f"{functional(record)}; per clip",
                )
            )  # fmt: skip
    return rows


def _prompts(record: Record, arm: str, *, first_only: bool) -> list[dict[str, Any]]:
    return [
        s
        for s in record.samples()
        if s["kind"] == "prompt"
        and s["arm"] == arm
        and not s["warmup"]
        and (s["prompt"] == 0 or not first_only)
    ]


def _extremes(values: Sequence[float]) -> str:
    return f"min {min(values):.4g}, max {max(values):.4g}"
