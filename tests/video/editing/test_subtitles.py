"""Subtitles that players can read, read back by a parser written from the format."""

import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from atom_repro.video.editing.edit_list import Box, EditedCut, EditList
from atom_repro.video.editing.subtitles import make_cues, sanitized, write_srt

LONG = (
    "A brown dog jumps over the fence. It is a sunny afternoon and nobody in the garden seems to "
    "mind, although the neighbour looks up from his newspaper for a moment before he reads on. "
    "The end."
)


def edited(*texts_frames: tuple[str, int], fps: Fraction = Fraction(30)) -> EditList:
    rows, frame = [], 0
    for narration, frames in texts_frames:
        rows.append(
            EditedCut(
                "v", "v.mp4", Path("v.mp4"), 1, "", 0.0, 1.0, float(frame / fps),
                float((frame + frames) / fps), frame, frame + frames, Box(0, 0, 2, 2), False,
                "a caption", narration, "ok", "",
            )
        )  # fmt: skip
        frame += frames
    return EditList("m.mp4", "", fps, frame, 2, 2, False, tuple(rows))


def parsed(path: Path) -> list[tuple[float, float, list[str]]]:
    """Start, end and lines of each cue, and nothing in the file that is none."""
    text = path.read_bytes().decode()
    blocks = text.removesuffix("\n").split("\n\n") if text else []
    found = []
    for number, block in enumerate(blocks, 1):
        head, times, *lines = block.split("\n")
        assert head == str(number)
        stamp = r"(\d\d):([0-5]\d):([0-5]\d),(\d{3})"
        match = re.fullmatch(f"{stamp} --> {stamp}", times)
        assert match and lines and all(lines)
        h, m, s, ms = np.array(match.groups(), int).reshape(2, 4).T
        start_s, end_s = h * 3600 + m * 60 + s + ms / 1000
        found.append((float(start_s), float(end_s), lines))
    return found


def test_a_cue_stands_where_its_cut_does(tmp_path):
    made = edited(("First.", 90), ("", 30), ("Third, after a silent one.", 45), ("Gone.", 0))
    assert write_srt(made, tmp_path / "m.srt") == 2
    assert parsed(tmp_path / "m.srt") == [
        (0.0, 3.0, ["First."]),
        (4.0, 5.5, ["Third, after a silent one."]),
    ]


def test_long_text_is_divided_between_sentences_and_by_length(tmp_path):
    write_srt(edited(("Before.", 30), (LONG, 300)), tmp_path / "m.srt")
    found = parsed(tmp_path / "m.srt")[1:]
    assert " ".join(line for _, _, lines in found for line in lines) == LONG
    assert [len(lines) for _, _, lines in found] == [1, 2, 2]
    assert max(len(line) for _, _, lines in found for line in lines) <= 42
    assert found[0][0] == 1.0
    assert found[-1][1] == 11.0
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert min(end - start for start, end, _ in found) >= 1.0
    assert found[1][1] - found[1][0] > found[0][1] - found[0][0]


def test_a_short_cut_has_one_cue_with_all_of_it(tmp_path):
    write_srt(edited((LONG, 40)), tmp_path / "m.srt")
    ((start_s, end_s, lines),) = parsed(tmp_path / "m.srt")
    assert (start_s, end_s) == (0.0, 1.333)
    assert " ".join(lines) == LONG
    assert max(map(len, lines)) <= 42


def test_two_full_lines_are_one_cue():
    text = f"{'a' * 42} {'b' * 42}"
    (cue,) = make_cues(edited((text, 300)))
    assert cue.lines == ("a" * 42, "b" * 42)


def test_a_word_longer_than_a_line_is_broken():
    found = make_cues(edited(("x" * 100, 300)))
    assert "".join(line for cue in found for line in cue.lines) == "x" * 100
    assert max(len(line) for cue in found for line in cue.lines) <= 42


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\n\ntwo\r\nthree", "one two three"),
        ("1\n00:00:01,000 --> 00:00:02,000\nno", "1 00:00:01,000 → 00:00:02,000 no"),
        ("a\u2028b\u2029c\x0bd\x85e\x00f\tg", "a b c d e f g"),
        ("half \ud800 a pair", "half a pair"),
        ("<i>x</i> and 2 < 3", "‹i>x‹/i> and 2 < 3"),
        ("naïve – 日本 👩‍🚀", "naïve – 日本 👩‍🚀"),
    ],
)
def test_text_cannot_break_the_format(tmp_path, said, shown):
    assert sanitized(said) == shown
    write_srt(edited((said, 60), ("next", 60)), tmp_path / "m.srt")
    assert [lines for _, _, lines in parsed(tmp_path / "m.srt")] == [[shown], ["next"]]


def test_hours_minutes_and_rounding(tmp_path):
    write_srt(edited(("", 30 * 3599), ("At the turn.", 31)), tmp_path / "m.srt")
    assert "00:59:59,000 --> 01:00:00,033" in (tmp_path / "m.srt").read_text()


def test_no_narration_is_an_empty_file(tmp_path):
    assert write_srt(edited(("", 30), ("\n\t", 30)), tmp_path / "m.srt") == 0
    assert (tmp_path / "m.srt").read_bytes() == b""
