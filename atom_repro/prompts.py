"""What the language decoder is asked, in words: scripts, summaries and answers.

One wording for every model. A Llama-Instruct gets these texts inside its chat template; the tiny
decoder is trained on them as they are, so they are short and their shape is always the same.
Line breaks separate, and every clip's number has a space before it: a byte-level tokenizer then
has one token for a number at the start of a text and at the start of a line.

    prompt = script("the beach, then the night sky", captions)
    read_script(decoder_says(prompt), clips=len(captions))
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SUM_UP_SCENE = "say in one sentence what most captions say:"
SUM_UP_VIDEO = "sum up the scenes in order, in one sentence:"

# A number alone, with punctuation behind it, or with the word "clip" before it: "3 boats" is none.
_LINE = re.compile(
    r"^[\s>*#-]*(?:clip\s+[(\[]?([0-9]{1,4})|[(\[]?([0-9]{1,4})(?=[)\].:*]|\s*$))[)\].:*]*(?:\s+|$)(.*)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ScriptLine:
    """Show clip `number`, counted from 1 as in the prompt, and say `narration`."""

    number: int
    narration: str


def context(captions: Sequence[str]) -> str:
    """How every prompt over captions begins; the same captions may be asked about again."""
    return f"captions:{_numbered(captions)}\n"


def script(request: str, captions: Sequence[str]) -> str:
    """Asks for the clips that fit a request, in the order to show them, one line each."""
    return context(captions) + ask_script(request)


def ask_script(request: str) -> str:
    """The part of `script` after the captions."""
    return (
        f"write a video script for: {_one_line(request)}\n"
        "one line a clip, its number and a sentence:"
    )


def script_text(lines: Sequence[ScriptLine]) -> str:
    """The script in the form that `script` asks for, and `read_script` reads."""
    return "\n ".join(f"{line.number}. {_one_line(line.narration)}" for line in lines)


def read_script(text: str, clips: int) -> list[ScriptLine]:
    """The lines of a script, in its order, whatever else a decoder wrote around them.

    A number that no clip has, or that came before, is dropped with its line. Any text has an
    answer, if only an empty one.

    Args:
        clips: how many captions the prompt had.
    """
    found: dict[int, ScriptLine] = {}
    for raw in text.splitlines():
        match = _LINE.match(raw)
        if match is None:
            continue
        number = int(match[1] or match[2])
        if 1 <= number <= clips and number not in found:
            found[number] = ScriptLine(number, _one_line(match[3]))
    return list(found.values())


def scene_summary(captions: Sequence[str]) -> str:
    """Asks for one sentence about one scene, which several captions describe."""
    return f"{context(captions)}{SUM_UP_SCENE}"


def video_summary(scenes: Sequence[str]) -> str:
    """Asks for one sentence about a video, from a sentence about each of its scenes in order."""
    return f"{context(scenes)}{SUM_UP_VIDEO}"


def answer(question: str, captions: Sequence[str]) -> str:
    """Asks a question about clips of which only the captions are given."""
    return f"{context(captions)}{visual_answer(question)}"


def visual_answer(question: str) -> str:
    """Asks a question about the clip whose visual tokens come before the prompt."""
    return f"question: {_one_line(question)}\nanswer in a few words:"


def _numbered(captions: Sequence[str]) -> str:
    return "".join(f"\n {i}. {_one_line(caption)}" for i, caption in enumerate(captions, start=1))


def _one_line(text: str) -> str:
    return " ".join(text.split())
