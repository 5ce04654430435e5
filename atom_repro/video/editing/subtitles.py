"""Subtitles of a movie in SubRip format (.srt): each cut's narration while the cut is on screen.

A line has at most 42 characters and a cue at most two lines, the broadcast convention, unless the
cut is too short for the number of cues that its text needs.
"""

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro.records.atomic import atomic_write
from atom_repro.video.editing.edit_list import EditList

LINE_CHARACTERS = 42
CUE_LINES = 2

# The shortest time in which a cue can be read.
_SHORTEST_CUE_S = 1.0

# Text that a player would parse as a time line, or as a formatting tag.
_ARROW = re.compile(r"-+>")
_TAG = re.compile(r"<(?=/?[A-Za-z])")


@dataclass(frozen=True)
class Cue:
    """One subtitle: lines of text and their times in seconds since the movie's first frame."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def make_cues(edit_list: EditList) -> list[Cue]:
    """Subtitle cues of a movie: one or more for each cut that has a narration.

    Text of more than two lines is split, between sentences if possible. Each of its cues is shown
    for one second plus a time in proportion to its length. A cut too short for that many cues gets
    fewer, with more lines.
    """
    cues: list[Cue] = []
    for cut in edit_list.cuts:
        text = sanitized(cut.narration)
        if not text or not cut.frames:
            continue
        length_s = cut.end_s - cut.start_s
        parts = _merge_parts(_split_text(text), max(1, int(length_s / _SHORTEST_CUE_S)))
        # Each cue gets the minimum reading time; the rest is shared out by length of text.
        min_s = _SHORTEST_CUE_S if len(parts) > 1 else 0.0
        spare_s = length_s - min_s * len(parts)
        total, start_s = sum(map(len, parts)), cut.start_s
        for part in parts:
            end_s = start_s + min_s + spare_s * len(part) / total
            cues.append(Cue(start_s, end_s, tuple(_balanced_lines(part))))
            start_s = end_s
    return cues


def to_srt(cues: Sequence[Cue]) -> str:
    """Cues as SubRip text, numbered from 1; empty if there are none."""
    return "\n".join(
        f"{number}\n{_timestamp(cue.start_s)} --> {_timestamp(cue.end_s)}\n"
        + "\n".join(cue.lines)
        + "\n"
        for number, cue in enumerate(cues, 1)
    )


def write_srt(edit_list: EditList, path: Path) -> int:
    """Writes a movie's subtitles as UTF-8, atomically; returns the number of cues.

    Players load them if they lie beside the movie under its name: movie.mp4, movie.srt.
    """
    cues = make_cues(edit_list)
    with atomic_write(path) as temporary:
        temporary.write_text(to_srt(cues), encoding="utf-8", newline="\n")
    return len(cues)


def sanitized(text: str) -> str:
    """Text on one line without control characters, SubRip arrows or tags, with single spaces."""
    # Surrogates (Cs) cannot be written as UTF-8 at all.
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    return " ".join(_TAG.sub("‹", _ARROW.sub("→", plain)).split())


def _split_text(text: str) -> list[str]:
    """Splits text into cues of at most two lines: whole sentences, or parts of a long one."""
    parts: list[str] = []
    for sentence in re.split(r"(?<=[.!?…]) ", text):
        lines = len(_wrap(sentence))
        if parts and _fits(f"{parts[-1]} {sentence}"):
            parts[-1] = f"{parts[-1]} {sentence}"
        elif lines <= CUE_LINES:
            parts.append(sentence)
        else:
            rows = _balanced_lines(sentence)
            parts += [" ".join(rows[i : i + CUE_LINES]) for i in range(0, len(rows), CUE_LINES)]
    return parts


def _merge_parts(parts: list[str], max_parts: int) -> list[str]:
    """Merges neighbouring parts, the shortest pair first, until at most `max_parts` remain."""
    while len(parts) > max_parts:
        first = min(range(len(parts) - 1), key=lambda i: len(parts[i]) + len(parts[i + 1]))
        parts = [*parts[:first], f"{parts[first]} {parts[first + 1]}", *parts[first + 2 :]]
    return parts


def _fits(text: str) -> bool:
    return len(_wrap(text)) <= CUE_LINES


def _balanced_lines(text: str) -> list[str]:
    """Wraps text into the fewest lines that the width allows, of about equal length."""
    fewest = len(_wrap(text))
    narrowest = min(-(-len(text) // fewest), LINE_CHARACTERS)
    candidates = (_wrap(text, width) for width in range(narrowest, LINE_CHARACTERS + 1))
    return next(lines for lines in candidates if len(lines) <= fewest)


def _wrap(text: str, width: int = LINE_CHARACTERS) -> list[str]:
    # A word longer than a line (an address, a script without spaces) is broken.
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _timestamp(time_s: float) -> str:
    total_ms = round(time_s * 1000)
    minutes, rest_ms = divmod(total_ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest_ms // 1000:02},{rest_ms % 1000:03}"
