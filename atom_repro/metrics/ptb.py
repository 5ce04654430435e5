"""The Penn Treebank tokenizer of the COCO caption evaluation, in a Java subprocess.

Same jar, same options and same punctuation list as pycocoevalcap's wrapper, hence the same
tokens (a golden test compares them). Unlike it, this writes no file into the package, gives
Java exactly one line per caption, and checks that as many lines come back.
"""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from atom_repro.datatypes import AtomError
from atom_repro.metrics.java import LOCALE_OPTIONS, find_java

_TIMEOUT_S = 600


def tokenise(
    captions: Mapping[str, Sequence[str]], *, java: str | Path | None = None
) -> dict[str, list[str]]:
    """Tokenises captions: lower case, PTB tokens split by one space, punctuation removed.

    White space is collapsed first. Several characters (carriage return, U+000B, U+2028 …) end
    a line for Java but not for Python; one of them would silently move every later caption to
    another clip.

    Args:
        captions: for each clip any number of sentences.
        java: see `find_java`.

    Returns:
        The same keys in the same order, as many sentences for each; a sentence of nothing but
        white space and listed punctuation becomes "".

    Raises:
        AtomError: no Java, or the tokenizer failed.
    """
    sentences = {k: [" ".join(text.split()) for text in texts] for k, texts in captions.items()}
    # A blank line is not sent: at the end of the input it would not come back.
    distinct = list(dict.fromkeys(s for texts in sentences.values() for s in texts if s))
    tokens = dict(zip(distinct, _run(distinct, java), strict=True)) | {"": ""}
    return {k: [tokens[s] for s in texts] for k, texts in sentences.items()}


def _run(sentences: Sequence[str], java: str | Path | None) -> list[str]:
    """Sends non-empty single-line sentences through one run of the tokenizer."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    if not sentences:
        return []
    command = [
        str(find_java(java)),
        *LOCALE_OPTIONS,
        "-cp",
        str(files("pycocoevalcap.tokenizer").joinpath(STANFORD_CORENLP_3_4_1_JAR)),
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
    ]
    try:
        completed = subprocess.run(
            command,
            input="\n".join(sentences).encode("utf-8", errors="replace"),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        messages = error.stderr.decode(errors="replace").strip().splitlines()
        raise AtomError(
            f"the PTB tokenizer failed with status {error.returncode}: "
            f"{messages[-1] if messages else 'no message'}; set ATOM_JAVA to another Java"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise AtomError(
            f"the PTB tokenizer did not finish {len(sentences)} captions in {_TIMEOUT_S} s; "
            "set ATOM_JAVA to another Java"
        ) from error
    lines = completed.stdout.decode("utf-8").split("\n")
    if len(lines) != len(sentences):
        raise RuntimeError(f"the PTB tokenizer returned {len(lines)} lines for {len(sentences)}")
    return [_without_punctuation(line.rstrip().split(" "), PUNCTUATIONS) for line in lines]


def _without_punctuation(tokens: Iterable[str], punctuation: Sequence[str]) -> str:
    return " ".join(token for token in tokens if token not in punctuation)
