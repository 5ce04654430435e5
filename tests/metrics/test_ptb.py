"""The tokenizer: equal to pycocoevalcap's own, and robust where that is not."""

import os
from pathlib import Path

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.metrics.java import find_java, java_environment
from atom_repro.metrics.ptb import tokenise

pytestmark = pytest.mark.java

# Abbreviations, quotes, brackets, numbers, currency, contractions, letters beyond ASCII, an
# untokenizable sign, a single word, punctuation alone, sentences that end without a stop.
SENTENCES = {
    "a": ["A man isn't riding a horse.", 'He said "yes", then (maybe) left...', "two-thirds; 1/2"],
    "b": ["Mr. Smith of Acme Corp. pays $3.50 at 5:30 p.m.", "U.S. troops, e.g. in the U.K."],
    "c": [
        "Café, naïve & fiancée!",
        "smile \U0001f600 today",
        "dog",
        "WORLD'S 1st: 100%",
        "3 1/2 !?",
    ],
    "d": ["it's {a} [b] <c> -- `x` ''y''", "can't won't gonna http://a.b/c?d=e x@y.zz", "the etc."],
}


def test_tokens_equal_those_of_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    from pycocoevalcap.tokenizer import ptbtokenizer

    monkeypatch.setenv("PATH", java_environment(find_java())["PATH"])
    theirs = ptbtokenizer.PTBTokenizer().tokenize(
        {key: [{"caption": text} for text in texts] for key, texts in SENTENCES.items()}
    )
    assert tokenise(SENTENCES) == theirs
    assert theirs["a"][0] == "a man is n't riding a horse"


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n", "\u2028", "\u2029", "\x0b", "\x0c", "\x85"])
def test_a_line_end_inside_a_caption_moves_nothing(end: str) -> None:
    got = tokenise({"1": [f"a cat{end}sits"], "2": [f"{end}a dog", "a bird."]})
    assert got == {"1": ["a cat sits"], "2": ["a dog", "a bird"]}


def test_captions_of_nothing_keep_their_places() -> None:
    captions = {
        "1": ["", "  ", "! ?"],
        "2": ["\U0001f600"],
        "3": [],
        "4": ["a cat", "\ud800 x", ""],
    }
    got = tokenise(captions)
    assert list(got) == list(captions)
    assert got["1"] == ["", "", ""]
    assert got["2"] == [""] and got["3"] == []
    assert got["4"][0] == "a cat" and got["4"][2] == ""


def test_nothing_at_all_starts_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOM_JAVA", str(tmp_path / "absent"))
    assert tokenise({"1": ["", " "]}) == {"1": ["", ""]}


def test_a_foreign_locale_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = tokenise(SENTENCES)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Dfile.encoding=ISO-8859-1")
    monkeypatch.setenv("LC_ALL", "C")
    assert tokenise(SENTENCES) == here  # Turkish lower case turns I into a dotless i


def test_the_package_folder_is_left_alone() -> None:
    from pycocoevalcap.tokenizer import ptbtokenizer

    folder = Path(ptbtokenizer.__file__).parent
    before = folder.stat().st_mtime_ns
    tokenise(SENTENCES)
    assert folder.stat().st_mtime_ns == before


def test_a_java_that_fails_is_a_clear_error(tmp_path: Path) -> None:
    script = tmp_path / "java"
    script.write_text(
        "#!/bin/sh\n"
        """[ "$1" = -version ] && { echo 'openjdk version "99"' >&2; exit 0; }\n"""
        "echo 'out of memory' >&2; exit 7\n"
    )
    script.chmod(0o755)
    assert os.access(script, os.X_OK)
    with pytest.raises(AtomError, match="status 7: out of memory"):
        tokenise({"1": ["a cat"]}, java=script)
