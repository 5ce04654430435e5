"""Load `claims.toml`: the paper's claims, and what must hold between its cells, as expressions.

A claim has an expression and the printed number that it should give. It has no verdict: that is
computed (see `check`). `kind = "claim"` is a sentence that derives or sums up numbers; when it
fails it "does not follow". `kind = "consistency"` is what two places cannot both say otherwise;
when it fails one place "contradicts" the other.

`each` makes one check for every combination of its lists, `{name}` being replaced throughout; an
item may be a table that sets several names at once.
`readings` holds several expressions for one sentence that can be read in several ways; the
reading that serves the paper best decides.
"""

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from atom_repro.audit.expressions import Expression
from atom_repro.datatypes import AtomError
from atom_repro.report.paper import UNITS

RELATIONS: Final = ("equals", "at most", "at least", "below", "above")
TOPICS: Final[dict[str, str]] = {
    "latency": "the end-to-end latency",
    "load": "the loading time",
    "component": "the time of single stages",
    "memory": "the peak memory",
    "size": "the size of the models",
    "architecture": "the model that was measured",
    "captioning": "the captioning quality",
    "retrieval": "the retrieval quality",
    "quantisation": "the cost of quantisation",
    "ablation": "the ablation",
    "energy": "the energy saving",
    "human": "the human study",
    "data": "the data sets",
    "settings": "the settings",
}
"""Subject of a check by key; the phrase is used in its consequence."""

MAX_QUOTE_WORDS: Final = 12
_KEYS: Final = {
    "id", "where", "what", "quote", "kind", "topic", "computed", "readings", "relation",
    "printed", "unit", "each",
}  # fmt: skip
_REQUIRED: Final = {"id", "where", "what", "kind", "topic", "relation", "printed"}


@dataclass(frozen=True)
class Claim:
    """One check: `what` describes it, `quote` is the paper's sentence, empty if there is none.

    `readings` maps a name (empty if there is only one) to an expression.
    """

    id: str
    family: str
    where: str
    what: str
    quote: str
    kind: str
    topic: str
    readings: Mapping[str, Expression]
    relation: str
    printed: Expression
    unit: str


def load_claims(path: Path) -> list[Claim]:
    """Read `claims.toml`, every `each` expanded, in the file's order.

    Raises:
        AtomError: a key is unknown or missing, an id repeated, an expression not supported; the
            claim is named.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AtomError(f"{path} is missing; restore it from version control") from error
    except tomllib.TOMLDecodeError as error:
        raise AtomError(f"{path}: {error}") from error
    claims: list[Claim] = []
    for entry in content.get("claim", []):
        _check(path, entry)
        for values in _combinations(entry.get("each", {})):
            claims.append(_claim(path, entry, values))
    ids: set[str] = set()
    for claim in claims:
        if claim.id in ids:
            raise AtomError(f"{path}: two claims have the id {claim.id}; ids must be unique")
        ids.add(claim.id)
    return claims


def _check(path: Path, entry: Mapping[str, Any]) -> None:
    name = entry.get("id", "a claim without id")
    unknown, missing = set(entry) - _KEYS, _REQUIRED - set(entry)
    problems = {
        f"unknown key {', '.join(sorted(unknown))}": bool(unknown),
        f"missing key {', '.join(sorted(missing))}": bool(missing),
        "needs either computed or readings": ("computed" in entry) == ("readings" in entry),
        f"unknown kind {entry.get('kind')!r}; one of claim, consistency": (
            entry.get("kind") not in ("claim", "consistency")
        ),
        f"unknown relation {entry.get('relation')!r}; one of {', '.join(RELATIONS)}": (
            entry.get("relation") not in RELATIONS
        ),
        f"unknown topic {entry.get('topic')!r}; one of {', '.join(TOPICS)}": (
            entry.get("topic") not in TOPICS
        ),
        f"unknown unit {entry.get('unit')!r}; one of {', '.join(UNITS)}": (
            entry.get("unit", "1") not in UNITS
        ),
        f"a quote of more than {MAX_QUOTE_WORDS} words": (
            len(str(entry.get("quote", "")).split()) > MAX_QUOTE_WORDS
        ),
    }
    for problem, present in problems.items():
        if present:
            raise AtomError(f"{path}: {name}: {problem}")


def _combinations(each: Mapping[str, list[str | dict[str, str]]]) -> Iterator[dict[str, str]]:
    """Values by name for every combination of the lists; an item may set several names."""
    for items in itertools.product(*each.values()):
        values: dict[str, str] = {}
        for name, item in zip(each, items, strict=True):
            values |= item if isinstance(item, dict) else {name: item}
        yield values


def _claim(path: Path, entry: Mapping[str, Any], values: Mapping[str, str]) -> Claim:
    def fill(text: str) -> str:
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        return text

    suffix = ", ".join(values.values())
    name = f"{entry['id']} [{suffix}]" if suffix else str(entry["id"])
    sources = entry.get("readings", {"": entry.get("computed", "")})
    try:
        return Claim(
            id=name,
            family=entry["id"],
            where=fill(entry["where"]),
            what=fill(entry["what"]),
            quote=fill(entry.get("quote", "")),
            kind=entry["kind"],
            topic=entry["topic"],
            readings={reading: Expression(fill(text)) for reading, text in sources.items()},
            relation=entry["relation"],
            printed=Expression(fill(entry["printed"])),
            unit=entry.get("unit", ""),
        )
    except AtomError as error:
        raise AtomError(f"{path}: {name}: {error}") from error
