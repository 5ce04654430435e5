"""METEOR 1.5 as a child process that cannot hang, leak or corrupt a score.

Same jar, options and line protocol as pycocoevalcap's wrapper, hence the same scores. Starting
costs seconds (a paraphrase table of 62 MB is read), so one process serves all corpora of a run.
The jar's stderr goes to a file, not to a pipe that nobody reads; a watchdog kills a silent one.
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
    """A running METEOR; use it as a context manager. Not safe to share between threads."""

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
            hypotheses: one sentence a clip.
            references: the same keys.

        Returns:
            The corpus score (from summed statistics, not the mean of the others) and one score
            a clip, in the order of `hypotheses`; all in 0..1.

        Raises:
            AtomError: the process died or stopped answering.
        """
        try:
            statistics = [
                self._ask(" ||| ".join(("SCORE", *map(_plain, references[key]), _plain(text))))
                for key, text in hypotheses.items()
            ]
            self._send(" ||| ".join(("EVAL", *statistics)))
            per_clip = [self._number() for _ in statistics]
            return self._number(), np.array(per_clip, dtype=np.float64)
        except BaseException:
            self.close()  # whatever it still says would be taken for the next answer
            raise

    def _ask(self, line: str) -> str:
        self._send(line)
        return self._line()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode("utf-8", errors="replace"))
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:  # it died; it was closed
            raise self._failure() from error

    def _line(self) -> str:
        """Reads one line; a process that stays silent is killed, which ends the read."""
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

    def _number(self) -> float:
        line = self._line()
        try:
            return float(line)
        except ValueError as error:
            raise AtomError(f"METEOR answered {line!r} where a score was due") from error

    def _failure(self) -> AtomError:
        status = self._process.wait()
        if self._stderr.closed:
            return AtomError("METEOR was closed; it is not asked again")
        self._stderr.seek(0)
        said = self._stderr.read().decode("utf-8", errors="replace").strip().splitlines()
        reason = said[-1] if said else "it wrote no message"
        return AtomError(
            f"METEOR ended with status {status} (it may use 2 GB): {reason}; free memory, set "
            "ATOM_JAVA to another Java, or leave meteor out of the metrics"
        )


_shared: dict[str, Meteor] = {}


def shared_meteor(java: str | Path | None = None) -> Meteor:
    """The METEOR of this process and Java, started if none runs; it ends with the process.

    Raises:
        AtomError: no Java, see `find_java`.
    """
    path = str(find_java(java))
    known = _shared.get(path)
    if known and known.running:
        return known
    if known:
        known.close()
    _shared[path] = made = Meteor(path)
    atexit.register(made.close)
    return made


def _plain(text: str) -> str:
    """Removes the protocol's separator from a sentence, and the gap that this leaves."""
    return text.replace(_SEPARATOR, "").replace("  ", " ")
