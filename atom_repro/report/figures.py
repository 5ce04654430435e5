"""Figures as pure functions of records: SVG text, the same bytes for the same records."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import Patch

from atom_repro.records.record import Record
from atom_repro.report.identity import device_and_model, family, precision_label
from atom_repro.report.select import HOST_TINY, busy_suffix, validity_note
from atom_repro.report.svg import svg
from atom_repro.report.tables import latency

COLOURS = {
    "load": "#9e9e9e",
    "decode_video": "#c5b0d5",
    "encode": "#1f77b4",
    "caption": "#ff7f0e",
    "embed": "#2ca02c",
    "rank": "#17becf",
    "script": "#8c564b",
    "release": "#d62728",
}
_OTHER_COLOUR = "#7f7f7f"


def timeline(records: Sequence[Record], precision: str) -> str | None:
    """Gantt chart of a resident session's first prompt under both schedules, on one time axis.

    Of the tiny mPLUG2+ on the host, and the repeat with the median end-to-end time. None without a
    record.
    """
    matching = [
        r
        for r in latency.newest(records)
        if (r.config("pipeline.name"), precision_label(r)) == ("retrieval", precision)
        and device_and_model(r) == HOST_TINY
    ]
    if not matching:
        return None
    record = matching[0]
    samples = record.samples()
    figure, axes = plt.subplots(2, 1, figsize=(9, 4), sharex=True)
    for axis, schedule in zip(axes, ("sequential", "parallel"), strict=True):
        arm = f"resident/{schedule}"
        prompts = sorted(
            (
                s
                for s in samples
                if s["kind"] == "prompt"
                and s["arm"] == arm
                and s["prompt"] == 0
                and not s["warmup"]
            ),
            key=lambda s: float(s["end_to_end_s"]),
        )
        if not prompts:
            plt.close(figure)
            return None
        prompt = prompts[len(prompts) // 2]
        spans = [
            s
            for s in samples
            if s["kind"] == "span"
            and s["arm"] == arm
            and s["repeat"] == prompt["repeat"]
            and s["end_s"] <= prompt["end_to_end_s"] + 1e-3
        ]
        _draw_lanes(axis, spans)
        axis.set_title(f"{schedule}: {prompt['end_to_end_s']:.3f} s", loc="left", fontsize=10)
    axes[1].set_xlabel("seconds since the session began")
    handles = [Patch(color=c) for c in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="lower center", ncols=len(COLOURS), fontsize=8)
    figure.suptitle(
        f"Encoder and decoder of {record.config('model.name')}, {precision}, "
        f"{record.values['clips']} clips ({record.data['scale']}: {validity_note(record)}), "
        f"{record.machine.processor}{busy_suffix(record)}",
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return svg(figure)


def learning_curve(records: Sequence[Record]) -> str | None:
    """Loss and validation CIDEr by step of mPLUG2+'s newest training outside sweeps.

    None without a record.
    """
    runs = [
        r
        for r in records
        if r.stage == "finetune"
        and r.ok
        and r.in_tables
        and family(r) == "mPLUG2+"
        and not r.config("sweep")
    ]
    if not runs:
        return None
    samples = runs[-1].samples()
    loss = [(s["step"], s["caption_loss"]) for s in samples if "caption_loss" in s]
    cider = [(s["step"], s["validation_cider"]) for s in samples if "validation_cider" in s]
    figure, loss_axis = plt.subplots(figsize=(7, 3.5))
    loss_axis.plot(*zip(*loss, strict=True), color="#9e9e9e", linewidth=0.8)
    loss_axis.set_xlabel("step")
    loss_axis.set_ylabel("caption loss (nats a token)")
    cider_axis = loss_axis.twinx()
    cider_axis.plot(*zip(*cider, strict=True), color="#1f77b4", marker="o")
    cider_axis.set_ylabel("validation CIDEr", color="#1f77b4")
    loss_axis.set_title(f"{runs[-1].config('model.name')} on {runs[-1].component('dataset')}, "
                   f"{runs[-1].machine.processor}", fontsize=9)  # fmt: skip
    figure.tight_layout()
    return svg(figure)


def _draw_lanes(axis: Any, spans: Sequence[dict[str, Any]]) -> None:
    lanes = sorted({s["lane"] for s in spans})
    for span in spans:
        axis.barh(
            lanes.index(span["lane"]),
            span["end_s"] - span["start_s"],
            left=span["start_s"],
            color=COLOURS.get(span["stage"], _OTHER_COLOUR),
            edgecolor="white",
            linewidth=0.4,
        )
    axis.set_yticks(
        range(len(lanes)), ["decoder, host" if name == "MainThread" else name for name in lanes]
    )
