"""Subtitles of a movie: its narration as SubRip (.srt), each cut's text while the cut is shown.

A line has at most 42 characters and a cue at most two lines, as broadcasters have it, where the
cut is long enough to read more than one cue.
"""

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro.records.atomic import atomically
from atom_repro.video.editing.edit_list import EditList

LINE_CHARACTERS = 42
CUE_LINES = 2

# Text that is shown for less than this is not read.
_SHORTEST_CUE_S = 1.0

# What a player would take for the line of times, and for the tags that some of them obey.
_ARROW = re.compile(r"-+>")
_TAG = re.compile(r"<(?=/?[A-Za-z])")


@dataclass(frozen=True)
class Cue:
    """Lines of text and when they are shown, in seconds since the movie's first frame."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def cues(edit_list: EditList) -> list[Cue]:
    """The narration, one cue for each cut that has any, or as many as its text needs.

    A text for more than two lines is divided between sentences if it can be, and each of its cues
    is shown for a second and for a time in proportion to its length. A cut too short for that
    many cues has fewer, with more lines.
    """
    found: list[Cue] = []
    for cut in edit_list.cuts:
        text = safe(cut.narration)
        if not text or not cut.frames:
            continue
        length_s = cut.end_s - cut.start_s
        parts = _fewer(_parts(text), max(1, int(length_s / _SHORTEST_CUE_S)))
        # Everyone gets the least that can be read, the rest goes by length of text.
        least_s = _SHORTEST_CUE_S if len(parts) > 1 else 0.0
        spare_s = length_s - least_s * len(parts)
        whole, start_s = sum(map(len, parts)), cut.start_s
        for part in parts:
            end_s = start_s + least_s + spare_s * len(part) / whole
            found.append(Cue(start_s, end_s, tuple(_balanced(part))))
            start_s = end_s
    return found


def srt(found: Sequence[Cue]) -> str:
    """Cues in SubRip's format, numbered from 1; empty for none."""
    return "\n".join(
        f"{number}\n{_stamp(cue.start_s)} --> {_stamp(cue.end_s)}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(found, 1)
    )


def write_srt(edit_list: EditList, path: Path) -> int:
    """Writes a movie's subtitles, UTF-8, whole or not at all; returns how many cues they have.

    Players find them beside the movie under its name: movie.mp4, movie.srt.
    """
    found = cues(edit_list)
    with atomically(path) as building:
        building.write_text(srt(found), encoding="utf-8", newline="\n")
    return len(found)


def safe(text: str) -> str:
    """One line of text that no player takes for structure: no control characters, no line
    breaks of any script, no arrow, no tag, single spaces."""
    # Surrogates (Cs) cannot be written as UTF-8 at all.
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    return " ".join(_TAG.sub("‹", _ARROW.sub("→", plain)).split())


def _parts(text: str) -> list[str]:
    """Text divided into cues of two lines: whole sentences, or pieces of a long one."""
    parts: list[str] = []
    for sentence in re.split(r"(?<=[.!?…]) ", text):
        lines = len(_wrapped(sentence))
        if parts and _fits(f"{parts[-1]} {sentence}"):
            parts[-1] = f"{parts[-1]} {sentence}"
        elif lines <= CUE_LINES:
            parts.append(sentence)
        else:
            even = _balanced(sentence)
            parts += [" ".join(even[at : at + CUE_LINES]) for at in range(0, len(even), CUE_LINES)]
    return parts


def _fewer(parts: list[str], most: int) -> list[str]:
    """The same text in at most that many parts: the shortest neighbours joined first."""
    while len(parts) > most:
        at = min(range(len(parts) - 1), key=lambda i: len(parts[i]) + len(parts[i + 1]))
        parts = [*parts[:at], f"{parts[at]} {parts[at + 1]}", *parts[at + 2 :]]
    return parts


def _fits(text: str) -> bool:
    return len(_wrapped(text)) <= CUE_LINES


def _balanced(text: str) -> list[str]:
    """As few lines as the width allows, of about the same length."""
    fewest = len(_wrapped(text))
    narrowest = min(-(-len(text) // fewest), LINE_CHARACTERS)
    tries = (_wrapped(text, width) for width in range(narrowest, LINE_CHARACTERS + 1))
    return next(lines for lines in tries if len(lines) <= fewest)


def _wrapped(text: str, width: int = LINE_CHARACTERS) -> list[str]:
    # A word longer than a line (an address, a script without spaces) is broken.
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _stamp(at_s: float) -> str:
    thousandths = round(at_s * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"
