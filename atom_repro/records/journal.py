"""JSONL journal of a stage's finished items, from which a killed run resumes.

Not a record: it is in the work folder, is owned by one run at a time, and what follows the last
whole line (from a kill, or a loss of power) is dropped when it is opened again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from atom_repro.records.atomic import atomic_write


class Journal:
    """Append-only JSONL file; `done` has the items of earlier, unfinished runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: list[dict[str, Any]] = []
        complete_bytes = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    item = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.done.append(item)
                complete_bytes += len(line)
        self._stream = path.open("ab")
        self._stream.truncate(complete_bytes)

    def add(self, item: Mapping[str, Any]) -> None:
        """Append one finished item and flush it, so that it survives a kill of this process."""
        self._stream.write(_line(item))
        self._stream.flush()

    def rewrite(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Replace the content by `items`: a resumed run drops what it computes again. Atomic."""
        with atomic_write(self.path) as building:
            building.write_bytes(b"".join(_line(item) for item in items))
        self._stream.close()
        self._stream = self.path.open("ab")

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _line(item: Mapping[str, Any]) -> bytes:
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"
