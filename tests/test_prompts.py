"""Prompts say what is asked, and whatever a decoder answers is read without an error."""

import pytest

from atom_repro import prompts
from atom_repro.prompts import ScriptLine, read_script

CAPTIONS = ["a red boat  on\nthe beach", "two stars at night"]


def test_captions_are_numbered_a_line_each():
    assert prompts.context(CAPTIONS) == (
        "captions:\n 1. a red boat on the beach\n 2. two stars at night\n"
    )


@pytest.mark.parametrize(
    "made",
    [
        prompts.script("first night, then the beach", CAPTIONS),
        prompts.scene_summary(CAPTIONS),
        prompts.video_summary(CAPTIONS),
        prompts.answer("where is the boat?", CAPTIONS),
    ],
)
def test_every_prompt_over_captions_starts_alike_and_ends_with_a_colon(made):
    assert made.startswith(prompts.context(CAPTIONS))
    assert made.endswith(":")


def test_what_is_asked_is_in_the_prompt():
    assert "first night, then the beach" in prompts.script("first night,\nthen the beach", CAPTIONS)
    question = prompts.visual_answer("where is the boat?")
    assert "where is the boat?" in question
    assert prompts.answer("where is the boat?", CAPTIONS) == prompts.context(CAPTIONS) + question


def test_a_script_is_read_back():
    lines = [ScriptLine(2, "two stars at night"), ScriptLine(1, "a boat, by the sea")]
    assert read_script(prompts.script_text(lines), clips=2) == lines


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        ("no script today", []),
        ("Here is the script:\n\n1. one\n3. three\n\nEnjoy!", [1, 3]),
        ("2. two\n2. two again\n1. one", [2, 1]),
        ("0. none\n7. unknown\n-1. minus\n1. one", [1]),
        ("- 2: two\n**1.** one\n(3) three\nClip 1 again", [2, 1, 3]),
        ("[2] two\r\nclip 1: one", [2, 1]),
        ("3", [3]),
        ("99999999999999999999. far\n1.5 litres\n2. two", [2]),
        ("2 boats are on the beach, 3. is not a line", []),
        ("٣. three", []),
    ],
)
def test_any_text_has_an_answer(text, numbers):
    assert [line.number for line in read_script(text, clips=3)] == numbers


def test_narration_is_one_clean_line():
    assert read_script(" 1.   a  boat \n", clips=1) == [ScriptLine(1, "a boat")]
    assert read_script("1. a boat", clips=0) == []
