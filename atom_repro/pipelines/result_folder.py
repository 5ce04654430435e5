"""Result folder of a pipeline: an HTML page, the same data as JSON, and the movie if any.

A prompt and a folder of videos have one result folder, which is replaced as a whole: nothing of an
earlier result stays in it. Text in the page comes from file names, prompts and decoders, so all of
it is escaped.
"""

import hashlib
import html
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atom_repro.datatypes import AtomError
from atom_repro.pipelines.captioned_clips import Delivery
from atom_repro.records.atomic import atomic_write

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;"
    "border-bottom:1px solid #ddd;vertical-align:top}video{width:100%;background:#000}"
    "p.note{color:#666}"
)


def folder_for(parent: Path, pipeline: str, prompt: str, videos: Path) -> Path:
    """Path of the result folder of a pipeline, prompt and folder of videos: their words, and a hash
    that tells apart what has the same words."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:40].strip("-")
    key = hashlib.sha256(prompt.encode("utf-8", "surrogateescape"))
    key.update(b"\0" + os.fsencode(videos.resolve()))
    return parent / pipeline / f"{words or 'all'}-{key.hexdigest()[:8]}"


def require_writable(folder: Path) -> None:
    """Check, before any work, that a result folder can be written.

    Raises:
        AtomError: it cannot, or another kind of file has its place.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AtomError(
            f"{folder.parent}: cannot be created ({error.strerror}); choose another output="
        ) from None
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise AtomError(f"{folder.parent}: is not writable; choose another output=")
    if folder.exists() and not (folder / "result.json").is_file():
        raise AtomError(f"{folder}: is there and no result; move it, or choose another output=")


def write(
    folder: Path, *, title: str, prompt: str, deliver: Callable[[Path], Delivery],
    notes: Sequence[str], about: Mapping[str, Any],
) -> Delivery:  # fmt: skip
    """Write a result folder: what `deliver` writes into the folder that it is given,
    `result.json` and `index.html`. An earlier result is replaced at the end.

    Args:
        notes: lines below the table: what the weights can do, which clips failed.
        about: further entries of the JSON, such as weights and seconds by stage.
    """
    with atomic_write(folder) as building:
        building.mkdir()
        delivery = deliver(building)
        data = {
            "pipeline": title, "prompt": prompt, "said": delivery.summary, **delivery.data,
            "faults": list(delivery.faults), **about,
        }  # fmt: skip
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        page = _page(title, prompt, delivery, [*delivery.faults, *notes])
        # A name that is not UTF-8 has lone surrogates, which become JSON's own escapes.
        for name, content in (("result.json", text), ("index.html", page)):
            (building / name).write_text(content, encoding="utf-8", errors="backslashreplace")
    return delivery


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
    """How far text of these weights can be trusted, in a line or two for the reader of a result."""
    kind = weights.partition(":")[0]
    if kind == "random":
        return "weights: random. Every text below is noise; only times and sizes mean something."
    if kind == "mixed":
        return (
            f"weights: {weights}, some new and untrained: fine-tune (train.start=…) before you "
            "trust their texts."
        )
    if kind == "trained" and trained_on == "toy":
        return (
            f"weights: {weights}, which know ten generated things in six places. Real video needs "
            "released ones: see train.convert in the README."
        )
    return f"weights: {weights}. Check what they say before you use it."
