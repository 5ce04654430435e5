"""Latency tables: Table 3, every runtime arm by stage, and stages against the roofline.

Pure functions of records. Devices, models and precisions never share a row.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from atom_repro.datatypes import CaptionWork
from atom_repro.records.record import Record
from atom_repro.report.cells import (
    Row,
    extremes,
    measured,
    median_interval,
    omitted_records,
    paper_rows,
)
from atom_repro.report.identity import Identity, device_and_model, precision_label, select
from atom_repro.report.paper import Cell
from atom_repro.report.select import (
    by_machine,
    is_reportable,
    module_load_definition,
    of_newest_definition,
    validity_note,
)

STAGES_WITH_LIMIT = ("encode", "caption")
BASELINE, ATOM = "reload_stage/sequential", "resident/parallel"
# The two changes that Atom makes to the baseline, each by itself.
APART = {"overlap": "reload_stage/parallel", "reuse": "resident/sequential"}
SAVING_COLUMNS = ("load", "retrieval", "assembly")
TABLE3_PIPELINES = ("retrieval", "assembly")


def newest(records: Sequence[Record]) -> list[Record]:
    """The latency record that stands for each identity. The tiny scale and the pipelines of Table 3
    come first."""
    selected = select(records, "latency")
    named = {identity.pipeline for identity in selected}
    pipelines = [*TABLE3_PIPELINES, *sorted(named - {*TABLE3_PIPELINES})]

    def order(item: tuple[Identity, Record]) -> tuple[Any, ...]:
        identity, record = item
        place = pipelines.index(identity.pipeline), device_and_model(record), identity.precision
        return (identity.scale != "tiny", *place)

    return [record for _, record in sorted(selected.items(), key=order)]


def build(records: Sequence[Record], paper: Sequence[Cell]) -> dict[str, list[Row]]:
    """Rows of the latency tables by file stem, machine by machine."""
    machines = by_machine(of_newest_definition(records, "latency"))
    return {
        "table03": [row for of_machine in machines for row in table3(of_machine)]
        + omitted_records(records, "latency", "table03")
        + paper_rows(
            paper,
            "table03",
            "`python -m device_bench.latency experiment=latency/full_size` measures this machine, "
            "and its GPU with device=cuda; `make device-bench HOST=auto` measures a phone",
        ),
        "arms": [row for of_machine in machines for row in arms(of_machine)]
        + omitted_records(records, "latency", "arms"),
        # It has no load times, so records under every definition of load time may be shown.
        "limits": [
            row
            for of_machine in by_machine(r for r in records if is_reportable(r, "latency"))
            for row in limits(of_machine)
        ],
    }


def table3(records: Sequence[Record]) -> list[Row]:
    """Latency in the layout of Table 3: without reuse (`baseline`) and with (`atom`), one prompt.

    Encoding and captioning are per clip; indexing is embedding the captions and the prompt and
    ranking. Loading is wall-clock time of all clips; like script and assembly it is of the assembly
    pipeline, in which the baseline loads a module twice. The movie is cut after the session ends
    and is not counted, as in the paper. A saving is that of atom over the baseline, and those of
    overlap and of reuse alone: the median of pairs that ran in one round, with its interval from
    six pairs on, else the pairs.
    """
    rows = []
    # Chosen before the newest: a sweep's setting may be equal to its default, and newer.
    selected = newest(
        [
            r
            for r in records
            if r.config("pipeline.name") in TABLE3_PIPELINES
            and r.config("setting") in (None, "", "default")
        ]
    )
    with_retrieval = {
        _configuration(r) for r in selected if r.config("pipeline.name") == "retrieval"
    }
    for record in selected:
        row = f"{device_and_model(record)}/{precision_label(record)}"
        scale = record.data["scale"]
        clips, definition = record.values["clips"], module_load_definition(record)
        note = (
            f"{validity_note(record)}; {clips} clips, encode and caption of one of them; medians "
            f"over rounds, of one prompt; {definition}"
        )
        baseline_cells, atom_cells = (
            _table3_cells(record, arm, per_clip=_configuration(record) not in with_retrieval)
            for arm in (BASELINE, ATOM)
        )
        for variant, cells in (("baseline", baseline_cells), ("atom", atom_cells)):
            for column, by_repeat in cells.items():
                seconds = list(by_repeat.values())
                rows.append(
                    measured(
                        "table03", f"{row}/{variant}", f"{scale}/{column}", median(seconds), "s",
                        record, n=len(seconds), spread=extremes(seconds), note=note,
                    )
                )  # fmt: skip
        end_to_end = "assembly" if record.config("pipeline.name") == "assembly" else "retrieval"
        savings = [(column, f"{column}_saving", ATOM) for column in SAVING_COLUMNS]
        savings += [
            (end_to_end, f"{end_to_end}_saving, {name} alone", arm) for name, arm in APART.items()
        ]
        for column, title, arm in savings:
            baseline = baseline_cells.get(column, {})
            saved = _table3_cells(record, arm, per_clip=False).get(column, {})
            paired = [100 * (1 - saved[r] / s) for r, s in baseline.items() if r in saved]
            if not paired:
                continue
            interval = median_interval(paired)
            rows.append(
                measured(
                    "table03", f"{row}/atom", f"{scale}/{title}", median(paired), "percent",
                    record, n=len(paired), interval=interval, difference=True,
                    spread="95 % interval of the median" if interval else _listed(paired),
                    note=note, grid="savings, median of pairs",
                )
            )  # fmt: skip
    return rows


def _listed(pairs: Sequence[float]) -> str:
    """Spread of too few pairs for an interval: the pairs."""
    return "pairs " + ", ".join(f"{pair:+.1f}" for pair in sorted(pairs))


def _configuration(record: Record) -> tuple[str, str, str]:
    return device_and_model(record), str(record.data["scale"]), precision_label(record)


def _table3_cells(record: Record, arm: str, *, per_clip: bool) -> dict[str, dict[int, float]]:
    """Seconds by column and repeat of a pipeline, of each session's first prompt.

    Args:
        per_clip: whether an assembly also fills the columns per clip, as retrieval does.
    """
    prompts = _prompts(record, arm, first_only=True)
    if not prompts:
        return {}
    clips, is_assembly = record.values["clips"], record.config("pipeline.name") == "assembly"

    def by_repeat(seconds: Callable[[dict[str, Any]], float]) -> dict[int, float]:
        return {p["repeat"]: seconds(p) for p in prompts}

    cells = {}
    if per_clip or not is_assembly:
        cells = {
            "encode": by_repeat(lambda p: p["stages_s"]["encode"] / clips),
            "caption": by_repeat(lambda p: p["stages_s"]["caption"] / clips),
            "index": by_repeat(lambda p: p["stages_s"]["embed"] + p["stages_s"]["rank"]),
        }
    if is_assembly:
        cells["load"] = by_repeat(lambda p: _load_seconds(record, arm, p))
        cells["script"] = by_repeat(lambda p: p["stages_s"].get("script", 0.0))
    cells["assembly" if is_assembly else "retrieval"] = by_repeat(lambda p: p["end_to_end_s"])
    return cells


def _load_seconds(record: Record, arm: str, prompt: Mapping[str, Any]) -> float:
    """Wall-clock seconds in which at least one module was loading: the union of load spans."""
    spans = sorted(
        (sample["start_s"], sample["end_s"])
        for sample in record.samples()
        if sample["kind"] == "span"
        and (sample["stage"], sample["arm"], sample["repeat"]) == ("load", arm, prompt["repeat"])
        and sample["end_s"] <= prompt["end_to_end_s"] + 1e-3
    )
    seconds, covered_until = 0.0, 0.0
    for start, end in spans:
        seconds += max(0.0, end - max(start, covered_until))
        covered_until = max(covered_until, end)
    return seconds


# Stages that every row has a column for; a record's others follow.
_STAGES = ("load", "decode_video", "encode", "caption", "embed", "rank", "script", "release")


def arms(records: Sequence[Record]) -> list[Row]:
    """Latency of every runtime arm: first prompt, all prompts, and the first prompt by stage."""
    rows = []
    for record in newest(records):
        threads = record.config("runtime") or {}
        beside = f"{threads.get('threads_beside')} each"
        if split := record.values.get("thread_split"):
            beside = f"{split['chosen']} (encoder+decoder, calibrated)"
        note = (
            f"{validity_note(record)}; {module_load_definition(record)}; torch threads: "
            f"{threads.get('threads_alone')} alone, {beside} side by side{_first_load(record)}"
        )
        for arm in record.values["arms"]:
            first = _prompts(record, arm, first_only=True)
            others = {stage for p in first for stage in p["stages_s"]} - {*_STAGES}
            sessions: dict[int, float] = {}
            for p in _prompts(record, arm, first_only=False):
                sessions[p["repeat"]] = sessions.get(p["repeat"], 0.0) + p["end_to_end_s"]
            session_totals = list(sessions.values())
            count = record.values["prompts"]
            columns: dict[str, list[float]] = {
                "prompt 1": [p["end_to_end_s"] for p in first],
                f"prompts 1-{count}": session_totals,
                **{
                    f"stage/{stage}": [p["stages_s"].get(stage, 0.0) for p in first]
                    for stage in (*_STAGES, *sorted(others))
                },
                "less overlap": [p["overlap_s"] for p in first],
                "residual": [p["residual_s"] for p in first],
            }
            peaks = [p.get("session_device_peak_bytes") for p in first]
            peaks_mib = [peak / 2**20 for peak in peaks if peak is not None]
            if peaks_mib:
                columns["device memory, MiB"] = peaks_mib
            sampled = [p.get("session_memory_peak_bytes") or {} for p in first]
            for kind in ("anonymous", "file"):
                if all(sampled):
                    columns[f"peak {kind} memory, MiB"] = [peak[kind] / 2**20 for peak in sampled]
            for column, values in columns.items():
                if not values:
                    continue
                rows.append(
                    measured(
                        "arms",
                        f"{device_and_model(record)}/{record.config('pipeline.name')}/"
                        f"{precision_label(record)}/{arm}",
                        f"{record.data['scale']}/{column}",
                        median(values),
                        "MiB" if column.endswith("MiB") else "s",
                        record,
                        n=len(values),
                        spread=extremes(values),
                        note=note,
                    )
                )
    return rows


def _first_load(record: Record) -> str:
    """What loading took the arm that came first in the round that is not counted."""
    first = next((s for s in record.samples() if s["kind"] == "prompt"), None)
    if first is None or not first["warmup"] or "load" not in first["stages_s"]:
        return ""
    return (
        f"; loads come from the page cache: in the warm-up round {first['arm']} came first and "
        f"took {first['stages_s']['load']:.1f} s for them, with imports"
    )


def limits(records: Sequence[Record]) -> list[Row]:
    """Encoding and captioning of a clip beside their roofline minimum on the device.

    In the resident, sequential arm, where modules run alone. The device's rates were measured in
    the same run, before and after: a share of the limit stands for each of the two.
    """
    rows = []
    for record in newest(records):
        work = record.values.get("least_work_per_clip")
        prompts = _prompts(record, "resident/sequential", first_only=True) if work else []
        if not (work and prompts):
            continue
        pipeline, precision = record.config("pipeline.name"), precision_label(record)
        row = f"{device_and_model(record)}/{pipeline}/{precision}"
        scale, clips = record.data["scale"], record.values["clips"]
        cells: list[tuple[str, str, float, str, str]] = []
        shares: dict[str, list[float]] = {}
        for when in ("before", "after"):
            for name, rate in record.values[f"limits_{when}"].items():
                unit = "GB/s" if name.startswith("read") else "Gop/s"
                what = name.removesuffix("_per_s").removesuffix("_operations").replace("_", " ")
                cells.append((f"rates {when}", f"{what} {when}", rate / 1e9, unit, ""))
        for stage in STAGES_WITH_LIMIT:
            seconds = [p["stages_s"][stage] / clips for p in prompts]
            cells.append((stage, f"{stage}, measured", median(seconds), "s", extremes(seconds)))
            for when in ("before", "after"):
                rates = record.values[f"limits_{when}"]
                least = CaptionWork(**work).lower_bound_s(rates, _arithmetic(record)).get(stage)
                if least:
                    shares.setdefault(stage, []).append(100 * least / median(seconds))
                    cells += [
                        (stage, f"{stage}, least by the rates {when}", least, "s", ""),
                        (stage, f"{stage}, share of the limit {when}", shares[stage][-1],
                         "percent", ""),
                    ]  # fmt: skip
        for grid, column, value, unit, spread in cells:
            rows.append(
                measured(
                    "limits", row, f"{scale}/{column}", value, unit, record,
                    n=None if unit.startswith("G") else len(prompts),
                    spread=spread, note=f"{validity_note(record)}; per clip", grid=grid,
                )
            )  # fmt: skip
    return rows


def _arithmetic(record: Record) -> str:
    """Precision of a record's matrix products: that of the rate which bounds them."""
    return str(record.values.get("arithmetic") or record.values["precision"])


def _prompts(
    record: Record, arm: str, *, first_only: bool, warmup: bool = False
) -> list[dict[str, Any]]:
    return [
        sample
        for sample in record.samples()
        if sample["kind"] == "prompt"
        and sample["arm"] == arm
        and sample["warmup"] == warmup
        and (sample["prompt"] == 0 or not first_only)
    ]
