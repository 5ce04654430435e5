"""Load `unsaid.toml`: what a reproduction needs and the paper does not say, and what we chose.

Each entry names the command, the overrides and the key whose value is our choice.
"""

import json
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from atom_repro.datatypes import AtomError


@dataclass(frozen=True)
class Unsaid:
    """One gap. `command` with `overrides` has `key`, whose value is `value`."""

    id: str
    where: str
    what: str
    choice: str
    command: str
    key: str
    value: Any
    overrides: list[str] = field(default_factory=list)

    @property
    def setting(self) -> str:
        """The key with its value, as JSON."""
        return f"{self.key}={json.dumps(self.value)}"

    @property
    def invocation(self) -> str:
        """The command line that has the key."""
        return " ".join(["python -m", self.command, *self.overrides])


def load_unsaid(path: Path) -> list[Unsaid]:
    """Read every entry, in the file's order.

    Raises:
        AtomError: the file is missing or no TOML, a key is unknown or missing, an id is repeated.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AtomError(f"{path} is missing; restore it from version control") from error
    except tomllib.TOMLDecodeError as error:
        raise AtomError(f"{path}: {error}") from error
    names = {f.name for f in fields(Unsaid)}
    entries: dict[str, Unsaid] = {}
    for entry in content.get("unsaid", []):
        name = entry.get("id", "an entry without id")
        unknown, missing = set(entry) - names, names - {"overrides"} - set(entry)
        if unknown or missing:
            problem, keys = ("unknown", unknown) if unknown else ("missing", missing)
            raise AtomError(f"{path}: {name}: {problem} key {', '.join(sorted(keys))}")
        if name in entries:
            raise AtomError(f"{path}: two entries have the id {name}; ids must be unique")
        entries[name] = Unsaid(**entry)
    return list(entries.values())
