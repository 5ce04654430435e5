"""A journal: finished items of a stage, a line each, so that a killed run goes on where it was.

Not a record: it lies in the work folder, is owned by one run at a time, and a half-written last
line (the kill) is dropped when it is opened again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any


class Journal:
    """Append-only JSONL with the items of earlier, unfinished runs in `done`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: list[dict[str, Any]] = []
        whole = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                self.done.append(json.loads(line))
                whole += len(line)
        self._stream = path.open("ab")
        self._stream.truncate(whole)

    def add(self, item: Mapping[str, Any]) -> None:
        """Keep one finished item; it survives a kill of this process from here on."""
        self._stream.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()

    def rewrite(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Keep these items only: a resumed run cuts off what it is about to do again."""
        self._stream.truncate(0)
        for item in items:
            self.add(item)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
