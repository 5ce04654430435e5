"""METEOR's process: equal scores, and no hang or leak when it dies, stalls or babbles."""

import sys
import threading
from pathlib import Path

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.metrics import meteor
from atom_repro.metrics.java import find_java, java_environment
from atom_repro.metrics.meteor import Meteor, shared_meteor

HYPOTHESES = {"1": "a man is riding a horse", "2": "", "3": "dogs run ||| fast", "4": "a café"}
REFERENCES = {
    "1": ["a person rides a horse", "the man rode horses"],
    "2": ["a cat"],
    "3": ["a dog runs quickly", "dogs run fast"],
    "4": ["a coffee shop", "café"],
}


@pytest.mark.java
def test_scores_equal_those_of_pycocoevalcap_and_one_process_serves_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pycocoevalcap.meteor.meteor import Meteor as Theirs

    for name, value in java_environment(find_java()).items():
        monkeypatch.setenv(name, value)
    theirs = Theirs()
    try:
        expected, expected_clips = theirs.compute_score(
            REFERENCES, {key: [text] for key, text in HYPOTHESES.items()}
        )
    finally:
        for stream in (theirs.meteor_p.stdout, theirs.meteor_p.stderr):
            stream.close()
        del theirs
    # A comma for the decimal mark would break the reading of scores.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de")
    with Meteor() as ours:
        for _ in range(2):
            score, clips = ours.score(HYPOTHESES, REFERENCES)
            assert score == expected
            assert clips.tolist() == expected_clips
    assert clips[1] == 0.0
    assert ours._process.returncode is not None


def _fake_java(folder: Path, body: str) -> Path:
    """Writes a program that passes for Java and then behaves as told."""
    script = folder / "java"
    script.write_text(
        f"#!{sys.executable}\nimport sys, time\n"
        """if sys.argv[1] == "-version": sys.exit(print('jdk version "9"', file=sys.stderr))\n"""
        + body
    )
    script.chmod(0o755)
    return script


def test_a_process_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    java = _fake_java(tmp_path, "sys.exit('Could not reserve enough space for object heap')")
    with Meteor(java) as dead, pytest.raises(AtomError, match=r"status 1 .*Could not reserve"):
        dead.score({"1": "a"}, {"1": ["a"]})
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_a_process_that_stalls_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor, "_START_TIMEOUT_S", 0.5)
    java = _fake_java(tmp_path, "time.sleep(600)")
    with Meteor(java) as silent, pytest.raises(AtomError, match="ended with status -9"):
        silent.score({"1": "a"}, {"1": ["a"]})


def test_a_loud_stderr_does_not_block(tmp_path: Path) -> None:
    loud = (
        "for line in sys.stdin:\n"
        "    sys.stderr.write('x' * 1_000_000)\n"
        "    print('1.0', flush=True)\n"
        "    if line.startswith('EVAL'): print('0.5', flush=True)\n"
    )
    with Meteor(_fake_java(tmp_path, loud)) as process:
        score, clips = process.score({"1": "a"}, {"1": ["a"]})
    assert (score, clips.tolist()) == (0.5, [1.0])


def test_an_answer_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    java = _fake_java(tmp_path, "for _ in sys.stdin: print('0,5', flush=True)")
    with Meteor(java) as process, pytest.raises(AtomError, match="'0,5' where a score was due"):
        process.score({"1": "a"}, {"1": ["a"]})


def test_one_process_serves_a_run_until_it_fails(tmp_path: Path) -> None:
    java = _fake_java(
        tmp_path, "for _ in sys.stdin: print('1.0', flush=True); print('1.0', flush=True)"
    )
    first = shared_meteor(java)
    assert shared_meteor(java) is first
    first._process.kill()
    with pytest.raises(AtomError, match="METEOR ended with status -9"):
        first.score({"1": "a"}, {"1": ["a"]})
    second = shared_meteor(java)
    assert second is not first
    second.close()


def test_a_process_that_failed_is_not_asked_again(tmp_path: Path) -> None:
    """What it still has to say would stand for the next answer."""
    process = Meteor(_fake_java(tmp_path, "for _ in sys.stdin: print('a', flush=True)"))
    with pytest.raises(AtomError, match="'a' where a score was due"):
        process.score({"1": "a"}, {"1": ["a"]})
    assert not process.running
