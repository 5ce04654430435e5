"""METEOR 1.5 in a Java subprocess, with timeouts and checked answers.

Same jar, options and line protocol as pycocoevalcap's wrapper, hence the same scores. Starting
costs seconds (a paraphrase table of 62 MB is read), so one process serves all corpora of a run.
The jar's stderr goes to a file, not to a pipe that nobody reads; a watchdog kills a process that
stops answering.
"""

import atexit
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError
from atom_repro.metrics.java import LOCALE_OPTIONS, find_java

_SEPARATOR = "|||"
_START_TIMEOUT_S = 300.0  # for the first answer, which waits for the paraphrase table
_ANSWER_TIMEOUT_S = 120.0


class Meteor:
    """A METEOR subprocess, as a context manager. Not thread-safe."""

    def __init__(self, java: str | Path | None = None) -> None:
        """Starts the process without waiting for it.

        Raises:
            AtomError: no Java, see `find_java`.
        """
        command = [
            str(find_java(java)),
            *LOCALE_OPTIONS,
            "-Xmx2G",
            "-jar",
            str(files("pycocoevalcap.meteor").joinpath("meteor-1.5.jar")),
            *("-", "-", "-stdio", "-l", "en", "-norm"),
        ]
        self._timeout_s = _START_TIMEOUT_S
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives with the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process and closes its pipes; safe to call twice."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # unsent bytes of a process that died; the read reported it

    def score(
        self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
    ) -> tuple[float, NDArray[np.float64]]:
        """Scores tokenised hypotheses against tokenised references.

        Args:
            hypotheses: one sentence per clip.
            references: the same keys.

        Returns:
            The corpus score (from summed statistics, not the mean of the others) and one score
            a clip, in the order of `hypotheses`; all in 0..1.

        Raises:
            AtomError: the process died or stopped answering.
        """
        try:
            statistics = [
                self._query(" ||| ".join(("SCORE", *map(_clean, references[key]), _clean(text))))
                for key, text in hypotheses.items()
            ]
            self._send(" ||| ".join(("EVAL", *statistics)))
            per_clip = [self._read_score() for _ in statistics]
            return self._read_score(), np.array(per_clip, dtype=np.float64)
        except BaseException:
            self.close()  # its remaining output would be read as the next answer
            raise

    def _query(self, line: str) -> str:
        self._send(line)
        return self._read_line()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode("utf-8", errors="replace"))
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:  # it died; it was closed
            raise self._failure() from error

    def _read_line(self) -> str:
        """Reads one line; on timeout the process is killed, which ends the read."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(self._timeout_s, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline().decode("utf-8", errors="replace").strip()
        finally:
            watchdog.cancel()
            watchdog.join()
        if not line:
            raise self._failure()
        self._timeout_s = _ANSWER_TIMEOUT_S
        return line

    def _read_score(self) -> float:
        line = self._read_line()
        try:
            return float(line)
        except ValueError as error:
            raise AtomError(f"METEOR answered {line!r} where a score was due") from error

    def _failure(self) -> AtomError:
        status = self._process.wait()
        if self._stderr.closed:
            return AtomError("the METEOR process is closed; create a new Meteor")
        self._stderr.seek(0)
        messages = self._stderr.read().decode("utf-8", errors="replace").strip().splitlines()
        reason = messages[-1] if messages else "it wrote no message"
        return AtomError(
            f"METEOR ended with status {status} (it may use 2 GB): {reason}; free memory, or "
            "set ATOM_JAVA to another Java"
        )


_shared: dict[str, Meteor] = {}


def shared_meteor(java: str | Path | None = None) -> Meteor:
    """Return the METEOR subprocess shared by this process for one Java, started on first use.

    Raises:
        AtomError: no Java, see `find_java`.
    """
    path = str(find_java(java))
    current = _shared.get(path)
    if current and current.running:
        return current
    if current:
        current.close()
    _shared[path] = meteor = Meteor(path)
    atexit.register(meteor.close)
    return meteor


def _clean(text: str) -> str:
    """Removes the protocol's separator from a sentence, and the double space that it leaves."""
    return text.replace(_SEPARATOR, "").replace("  ", " ")
