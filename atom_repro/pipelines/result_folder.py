"""Result folder of a pipeline: an HTML page, the same data as JSON, and the movie if any.

Text in the page comes from file names, prompts and decoders, so all of it is escaped.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atom_repro.pipelines.captioned_clips import Delivery
from atom_repro.records.atomic import atomic_write

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;"
    "border-bottom:1px solid #ddd;vertical-align:top}video{width:100%;background:#000}"
    "p.note{color:#666}"
)


def folder_for(parent: Path, pipeline: str, prompt: str) -> Path:
    """Path of the result folder of a pipeline and prompt; the same prompt gives the same path."""
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].strip("-")
    return parent / pipeline / (slug or "all")


def write(
    folder: Path, *, title: str, prompt: str, delivery: Delivery, notes: Sequence[str],
    about: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write `result.json` and `index.html`, and return the page's path.

    Args:
        notes: lines below the table: what the weights can do, which clips failed.
        about: further entries of the JSON, such as weights and seconds by stage.
    """
    data = {"pipeline": title, "prompt": prompt, "said": delivery.summary, **delivery.data, **about}
    with atomic_write(folder / "result.json") as building:
        building.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = folder / "index.html"
    with atomic_write(page) as building:
        building.write_text(_page(title, prompt, delivery, notes), encoding="utf-8")
    return page


def _page(title: str, prompt: str, delivery: Delivery, notes: Sequence[str]) -> str:
    esc = html.escape
    parts = [
        "<!doctype html><meta charset=utf-8>",
        f"<title>{esc(title)}: {esc(prompt)}</title><style>{_STYLE}</style>",
        f"<h1>{esc(title)}</h1><p><b>{esc(prompt)}</b></p><p>{esc(delivery.summary)}</p>",
    ]
    if delivery.movie:
        parts.append(f'<video controls src="{esc(delivery.movie)}"></video>')
    if delivery.rows:
        head = "".join(f"<th>{esc(name)}</th>" for name in delivery.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{esc(cell)}</td>" for cell in row) + "</tr>"
            for row in delivery.rows
        )
        parts.append(f"<table><tr>{head}</tr>{rows}</table>")
    parts += [f"<p class=note>{esc(note)}</p>" for note in notes]
    return "\n".join(parts) + "\n"


def weights_notice(weights: str, trained_on: str) -> str:
    """One line for the reader of a result: how far text of these weights can be trusted."""
    kind = weights.partition(":")[0]
    if kind == "random":
        return "weights: random. Every text below is noise; only times and sizes mean something."
    if kind == "mixed":
        return (
            f"weights: {weights}, released ones beside new ones that nothing has trained: "
            "fine-tune with train.start before you read anything into their texts."
        )
    if kind == "trained" and trained_on == "toy":
        return (
            f"weights: {weights}, trained here on generated video of ten things in six places: of "
            "other footage they can only say which of those it resembles. model=smolvlm2_256m with "
            "released weights captions real video."
        )
    return f"weights: {weights}. What they say is theirs to answer for; check it before you use it."
