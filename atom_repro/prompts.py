"""Prompt texts of the language decoder for scripts, summaries and answers, and the script parser.

All models share them. A Llama-Instruct gets these texts inside its chat template; the tiny
decoder is trained on them as they are, so they are short and of a fixed form. Lines are separated
by line breaks, and every clip's number has a space before it: a byte-level tokenizer then has the
same token for a number at the start of a text and at the start of a line.

    prompt = script("the beach, then the night sky", captions)
    read_script(generate(prompt), clips=len(captions))
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SUM_UP_SCENE = "say in one sentence what most captions say:"
SUM_UP_VIDEO = "sum up the scenes in order, in one sentence:"

# A number alone, followed by punctuation, or after the word "clip"; "3 boats" does not match.
_LINE = re.compile(
    r"^[\s>*#-]*(?:clip\s+[(\[]?([0-9]{1,4})|[(\[]?([0-9]{1,4})(?=[)\].:*]|\s*$))[)\].:*]*(?:\s+|$)(.*)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ScriptLine:
    """One line of a script: clip `number`, counted from 1 as in the prompt, and its narration."""

    number: int
    narration: str


def context(captions: Sequence[str]) -> str:
    """The numbered captions, with which every prompt over captions begins."""
    return f"captions:{_numbered(captions)}\n"


def script(request: str, captions: Sequence[str]) -> str:
    """Prompt for a script: the clips that fit a request, in playing order, one line each."""
    return context(captions) + script_instruction(request)


def script_instruction(request: str) -> str:
    """The instruction of a script prompt, which follows the captions."""
    return (
        f"write a video script for: {_one_line(request)}\n"
        "one line a clip, its number and a sentence:"
    )


def script_text(lines: Sequence[ScriptLine]) -> str:
    """Format a script as `script` asks for it and `read_script` parses it."""
    return "\n ".join(f"{line.number}. {_one_line(line.narration)}" for line in lines)


def read_script(text: str, clips: int) -> list[ScriptLine]:
    """Parse the lines of a script, in order, from a decoder's text.

    Lines whose number is missing, out of range or repeated are dropped; a text without any valid
    line gives an empty list.

    Args:
        clips: how many captions the prompt had.
    """
    lines: dict[int, ScriptLine] = {}
    for raw in text.splitlines():
        match = _LINE.match(raw)
        if match is None:
            continue
        number = int(match[1] or match[2])
        if 1 <= number <= clips and number not in lines:
            lines[number] = ScriptLine(number, _one_line(match[3]))
    return list(lines.values())


def scene_summary(captions: Sequence[str]) -> str:
    """Prompt for a one-sentence summary of one scene, which several captions describe."""
    return f"{context(captions)}{SUM_UP_SCENE}"


def video_summary(scenes: Sequence[str]) -> str:
    """Prompt for a one-sentence summary of a video, from a sentence on each scene in order."""
    return f"{context(scenes)}{SUM_UP_VIDEO}"


def answer(question: str, captions: Sequence[str]) -> str:
    """Prompt for the answer to a question about clips, from their captions."""
    return f"{context(captions)}{visual_answer(question)}"


def visual_answer(question: str) -> str:
    """Prompt for the answer to a question about the clip whose visual tokens precede it."""
    return f"question: {_one_line(question)}\nanswer in a few words:"


def _numbered(captions: Sequence[str]) -> str:
    return "".join(f"\n {i}. {_one_line(caption)}" for i, caption in enumerate(captions, start=1))


def _one_line(text: str) -> str:
    return " ".join(text.split())
