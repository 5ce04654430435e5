"""Table of peers: the same modules in our engine and in other software."""

import statistics
from collections.abc import Mapping, Sequence

from atom_repro.records.record import Record
from atom_repro.report.cells import Row, measured, median_interval
from atom_repro.report.identity import device_and_model, select

NAME = "peers"
OURS = "executorch_int8"
_BANDWIDTH = "weights a second, of what a plain read of memory reaches in the same round"
_BITS = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}
_NOTE = "random weights; each in a process of its own, interleaved; medians over rounds"


def build(records: Sequence[Record]) -> list[Row]:
    """A row per peer, a column per shape: the median time; how many times that of ours it is, as
    the median over rounds of the ratio within a round; of steps, the share of the memory bandwidth;
    and how far its output is from fp32."""
    rows: list[Row] = []
    for record in select(records, NAME).values():
        seconds = _by_call(record)
        for call, away in record.values["errors"].items():
            peer, shape = call.rsplit("/", 1)
            row, rounds = f"{device_and_model(record)}/{peer}", seconds[peer, shape]
            rows.append(_cell(record, row, shape, list(rounds.values()), "s"))
            ours = seconds.get((OURS, shape))
            if ours is not None and peer != OURS:
                ratios = [rounds[r] / ours[r] for r in rounds.keys() & ours.keys()]
                rows.append(_cell(record, row, shape, ratios, "1", grid="times our int8"))
            if shape.startswith("step") and "read_bytes" in record.values:
                shares = _shares_of_bandwidth(record, peer, rounds)
                rows.append(_cell(record, row, shape, shares, "%", grid=_BANDWIDTH))
            if away is not None:
                rows.append(
                    measured(
                        NAME, row, shape, 100 * away, "%", record, note=_NOTE,
                        grid="largest difference from fp32, of the largest value",
                    )
                )  # fmt: skip
    return rows


def _shares_of_bandwidth(record: Record, peer: str, rounds: Mapping[int, float]) -> list[float]:
    """Rate at which a step's weights are read, in percent of that of the read in the same round."""
    values = record.values
    weights = values["step_weights"] * _BITS[values["precisions"][peer]] / 8
    reads = {
        s["round"]: s["seconds"]
        for s in record.samples()
        if s["kind"] == "read" and s["part"] == "decoder"
    }
    return [
        100 * (weights / rounds[r]) / (values["read_bytes"] / reads[r])
        for r in rounds.keys() & reads.keys()
    ]


def _by_call(record: Record) -> dict[tuple[str, str], dict[int, float]]:
    """Seconds by peer and shape, then by round, without the warm-up."""
    by_call: dict[tuple[str, str], dict[int, float]] = {}
    for sample in record.samples():
        if sample["kind"] == "call" and not sample["warmup"]:
            call = by_call.setdefault((sample["peer"], sample["shape"]), {})
            call[sample["round"]] = sample["seconds"]
    return by_call


def _cell(
    record: Record, row: str, column: str, values: list[float], unit: str, grid: str = ""
) -> Row:
    interval = median_interval(values)
    return measured(
        NAME,
        row,
        column,
        statistics.median(values),
        unit,
        record,
        n=len(values),
        spread="95 % interval of the median" if interval else "",
        interval=interval,
        note=_NOTE,
        grid=grid,
    )
