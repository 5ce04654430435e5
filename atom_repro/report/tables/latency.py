"""Latency, arm by arm, and how close its stages come to what the device allows (Table 3).

Pure functions of records, like `tables`. Devices, models and precisions never share a row.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, extremes, measured, omitted_records, unfilled
from atom_repro.report.paper import Cell
from atom_repro.report.select import (
    by_machine,
    functional,
    keep_quietest,
    load_definition,
    of_newest_definition,
    ran_on,
    shown,
)

BASELINE, ATOM = "reload_stage/sequential", "resident/parallel"
SAVED = ("load", "retrieval", "assembly")
PIPELINES = ("retrieval", "assembly")


def newest(records: Sequence[Record]) -> list[Record]:
    """The newest good latency record of each pipeline, device, model, scale and precision, a quiet
    one before one beside other work; smoke left out. Retrieval comes first, and the tiny scale."""
    found: dict[tuple[str, ...], Record] = {}
    for record in of_newest_definition(records, "latency"):
        pipeline = record.config("pipeline.name")
        if pipeline in PIPELINES:
            scale, precision = str(record.data["scale"]), str(record.values["precision"])
            keep_quietest(found, (pipeline, ran_on(record), scale, precision), record)
    order = sorted(found, key=lambda k: (k[2] != "tiny", PIPELINES.index(k[0]), k[1], k[3]))
    return [found[key] for key in order]


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """The tables by file stem, machine by machine."""
    machines = by_machine(of_newest_definition(records, "latency"))
    return {
        "table03": [row for mine in machines for row in table3(mine)]
        + omitted_records(records, "latency", "table03")
        + unfilled(
            paper,
            "table03",
            "`python -m device_bench.latency experiment=latency/full_size` measures this machine, "
            "and its GPU with device=cuda; the phones' rows need phones",
        ),
        "arms": [row for mine in machines for row in arms(mine)]
        + omitted_records(records, "latency", "arms"),
        # No load is in it, so records under every definition may stand there.
        "limits": [
            row
            for mine in by_machine(r for r in records if shown(r, "latency"))
            for row in limits(mine)
        ],
    }


def table3(records: Sequence[Record]) -> list[Row]:
    """Latency, Table 3's shape: `baseline` is w/o reuse, one prompt over a job of clips.

    Encoding and captioning are a clip's; indexing is embedding the captions and the prompt and
    ranking. Loading is the whole job's, in seconds that pass; it is the assembly pipeline's, the
    one in which the baseline reads a module twice, as are script and assembly. The movie is cut
    after the session ends and is not counted, as in the paper. A saving is that of atom over the
    baseline, of the medians, and its extremes are those of pairs that ran in one round.
    """
    rows = []
    shown_records = newest(records)
    searched = {_subject(r) for r in shown_records if r.config("pipeline.name") == "retrieval"}
    for record in shown_records:
        row = f"{ran_on(record)}/{record.values['precision']}"
        scale = record.data["scale"]
        about = f"{functional(record)}; {record.values['clips']} clips; {load_definition(record)}"
        before, after = (
            _table3_cells(record, arm, clips_too=_subject(record) not in searched)
            for arm in (BASELINE, ATOM)
        )
        for variant, cells in (("baseline", before), ("atom", after)):
            for column, by_repeat in cells.items():
                seconds = list(by_repeat.values())
                rows.append(
                    measured(
                        "table03", f"{row}/{variant}", f"{scale}/{column}", median(seconds), "s",
                        record, n=len(seconds), spread=extremes(seconds), note=about,
                    )
                )  # fmt: skip
        for column in SAVED:
            if column not in before or column not in after:
                continue
            first, second = before[column], after[column]
            paired = [100 * (1 - second[r] / s) for r, s in first.items() if r in second]
            saving = 100 * (1 - median(second.values()) / median(first.values()))
            rows.append(
                measured(
                    "table03", f"{row}/atom", f"{scale}/{column}_saving", saving, "percent",
                    record, n=len(paired), spread=extremes(paired), note=about,
                )
            )  # fmt: skip
    return rows


def _subject(record: Record) -> tuple[str, str, str]:
    return ran_on(record), str(record.data["scale"]), str(record.values["precision"])


def _table3_cells(record: Record, arm: str, *, clips_too: bool) -> dict[str, dict[int, float]]:
    """Seconds by repeat of the cells that a pipeline fills, of each session's first prompt.

    Args:
        clips_too: whether an assembly also fills what is a clip's, which a search does.
    """
    prompts = _prompts(record, arm, first_only=True)
    if not prompts:
        return {}
    clips, assembles = record.values["clips"], record.config("pipeline.name") == "assembly"

    def by_repeat(seconds: Callable[[dict[str, Any]], float]) -> dict[int, float]:
        return {p["repeat"]: seconds(p) for p in prompts}

    cells = {}
    if clips_too or not assembles:
        cells = {
            "encode": by_repeat(lambda p: p["stages_s"]["encode"] / clips),
            "caption": by_repeat(lambda p: p["stages_s"]["caption"] / clips),
            "index": by_repeat(lambda p: p["stages_s"]["embed"] + p["stages_s"]["rank"]),
        }
    if assembles:
        cells["load"] = by_repeat(lambda p: _load_s(record, arm, p))
        cells["script"] = by_repeat(lambda p: p["stages_s"].get("script", 0.0))
    cells["assembly" if assembles else "retrieval"] = by_repeat(lambda p: p["end_to_end_s"])
    return cells


def _load_s(record: Record, arm: str, prompt: Mapping[str, Any]) -> float:
    """Seconds in which at least one module was being read; two lanes may read at once."""
    spans = sorted(
        (s["start_s"], s["end_s"])
        for s in record.samples()
        if s["kind"] == "span"
        and (s["stage"], s["arm"], s["repeat"]) == ("load", arm, prompt["repeat"])
        and s["end_s"] <= prompt["end_to_end_s"] + 1e-3
    )
    seconds, reached = 0.0, 0.0
    for start, end in spans:
        seconds += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return seconds


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
            peaks = [p.get("session_device_peak_bytes") for p in first]
            held = [peak / 2**20 for peak in peaks if peak is not None]
            if held:
                columns["device memory, MiB"] = held
            for column, seconds in columns.items():
                rows.append(
                    measured(
                        "arms",
                        f"{ran_on(record)}/{record.config('pipeline.name')}/"
                        f"{record.values['precision']}/{arm}",
                        f"{record.data['scale']}/{column}",
                        median(seconds),
                        "MiB" if column.endswith("MiB") else "s",
                        record,
                        n=len(seconds),
                        spread=extremes(seconds),
                        note=f"{functional(record)}; {load_definition(record)}",
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
            cells += [(stage, median(seconds), extremes(seconds))]
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
