"""Load `claims.toml`: the paper's claims, and what must hold between its cells, as expressions.

A claim has an expression and the printed number that it should give. It has no verdict: that is
computed (see `check`). `kind = "claim"` is a sentence that derives or sums up numbers; when it
fails it "does not follow". `kind = "consistency"` is what two places cannot both say otherwise;
when it fails one place "contradicts" the other. A claim with an `assumption` of ours does neither:
it stays "unexplained", and the assumption is printed with it.

`each` makes one check for every combination of its lists, `{name}` being replaced throughout; an
item may be a table that sets several names at once, and `id` to what the check's id shows of it.
In sentences a value is replaced by its name in `[names]`, if it has one there.
`readings` holds several expressions for one sentence that can be read in several ways; the
reading that serves the paper best decides, one for all checks of the claim unless
`reading_by_check` is true.
`carries` is what would fall with the claim, see `CARRIES`.
`says` and `gives` are the two sentences of a finding: what the paper says and where, and what its
numbers give. They hold no number of the paper, but `{computed}`, `{printed}`, `{gap}`, `{failed}`
and `{checks}`, and what `shown` computes: `name = ["expression", "unit", decimals]`.
"""

import itertools
import string
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from atom_repro.audit.expressions import Expression
from atom_repro.datatypes import AtomError
from atom_repro.report.paper import UNITS

RELATIONS: Final = ("equals", "about", "at most", "at least", "below", "above")
TOPICS: Final[dict[str, str]] = {
    "latency": "End-to-end latency",
    "load": "Loading time",
    "component": "Time of single stages",
    "memory": "Peak memory",
    "size": "Size of the models",
    "architecture": "Model that was measured",
    "captioning": "Captioning quality",
    "retrieval": "Retrieval quality",
    "quantisation": "Cost of quantisation",
    "ablation": "Ablation",
    "energy": "Energy saving",
    "human": "Human study",
    "data": "Data sets",
    "settings": "Settings",
}
"""Title of each subject, in the order of the page."""
CARRIES: Final[dict[str, int]] = {"headline": 8, "evidence": 4, "setting": 2, "detail": 1}
"""What a claim carries, as a factor of its weight: a figure of the abstract, the contributions or
the conclusion, or the table it is read from; what such a figure is argued from; what a
reproduction has to know; all else."""

MAX_QUOTE_WORDS: Final = 12
_KEYS: Final = {
    "id", "where", "what", "quote", "kind", "topic", "carries", "assumption", "computed",
    "readings", "reading_by_check", "relation", "printed", "unit", "each", "says", "gives", "shown",
}  # fmt: skip
_REQUIRED: Final = {"id", "where", "what", "kind", "topic", "relation", "printed"}
PLACEHOLDERS: Final = frozenset({"computed", "printed", "gap", "failed", "checks"})
"""Names that a sentence may hold beside those of `each` and `shown`."""


@dataclass(frozen=True)
class Shown:
    """A further number of a finding's sentences."""

    expression: Expression
    unit: str
    decimals: int


@dataclass(frozen=True)
class Claim:
    """One check: `what` describes it, `quote` is the paper's sentence, empty if there is none.

    `readings` maps a name (empty if there is only one) to an expression. `says` and `gives` are
    empty where the sentences follow from the rest.
    """

    id: str
    family: str
    where: str
    what: str
    quote: str
    kind: str
    topic: str
    carries: str
    assumption: str
    readings: Mapping[str, Expression]
    reading_by_check: bool
    relation: str
    printed: Expression
    unit: str
    says: str
    gives: str
    shown: Mapping[str, Shown]


def load_claims(path: Path) -> list[Claim]:
    """Read `claims.toml`, every `each` expanded, in the file's order.

    Raises:
        AtomError: a key is unknown or missing, an id repeated, an expression not supported, a
            placeholder without a value; the claim is named.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AtomError(f"{path} is missing; restore it from version control") from error
    except tomllib.TOMLDecodeError as error:
        raise AtomError(f"{path}: {error}") from error
    names: dict[str, str] = content.get("names", {})
    claims: list[Claim] = []
    for entry in content.get("claim", []):
        _check(path, entry)
        for label, values in _combinations(entry.get("each", {})):
            name = f"{entry['id']} [{label}]" if label else str(entry["id"])
            claims.append(_claim(path, name, entry, values, names))
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
        "needs says and gives, or neither": ("says" in entry) != ("gives" in entry),
        f"unknown kind {entry.get('kind')!r}; one of claim, consistency": (
            entry.get("kind") not in ("claim", "consistency")
        ),
        f"unknown relation {entry.get('relation')!r}; one of {', '.join(RELATIONS)}": (
            entry.get("relation") not in RELATIONS
        ),
        f"unknown topic {entry.get('topic')!r}; one of {', '.join(TOPICS)}": (
            entry.get("topic") not in TOPICS
        ),
        f"unknown carries {entry.get('carries')!r}; one of {', '.join(CARRIES)}": (
            entry.get("carries", "detail") not in CARRIES
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


def _combinations(
    each: Mapping[str, list[str | dict[str, str]]],
) -> Iterator[tuple[str, dict[str, str]]]:
    """Label and values by name for every combination of the lists."""
    for items in itertools.product(*each.values()):
        labels: list[str] = []
        values: dict[str, str] = {}
        for name, item in zip(each, items, strict=True):
            of_item = item if isinstance(item, dict) else {name: item}
            labels.append(of_item.get("id") or ", ".join(of_item.values()))
            values |= of_item
        yield ", ".join(labels), values


def _claim(
    path: Path,
    name: str,
    entry: Mapping[str, Any],
    values: Mapping[str, str],
    names: Mapping[str, str],
) -> Claim:
    def fill(text: str) -> str:
        for key, value in values.items():
            text = text.replace("{" + key + "}", value)
        return text

    def sentence(text: str) -> str:
        for key, value in values.items():
            text = text.replace("{" + key + "}", names.get(value, value))
        return text

    sources = entry.get("readings", {"": entry.get("computed", "")})
    try:
        shown = {
            key: _shown(fill(text), unit, decimals)
            for key, (text, unit, decimals) in entry.get("shown", {}).items()
        }
        claim = Claim(
            id=name,
            family=entry["id"],
            where=fill(entry["where"]),
            what=sentence(entry["what"]),
            quote=fill(entry.get("quote", "")),
            kind=entry["kind"],
            topic=entry["topic"],
            carries=entry.get("carries", "detail"),
            assumption=entry.get("assumption", ""),
            readings={reading: Expression(fill(text)) for reading, text in sources.items()},
            reading_by_check=entry.get("reading_by_check", False),
            relation=entry["relation"],
            printed=Expression(fill(entry["printed"])),
            unit=entry.get("unit", ""),
            says=sentence(entry.get("says", "")),
            gives=sentence(entry.get("gives", "")),
            shown=shown,
        )
        _check_placeholders(claim)
    except AtomError as error:
        raise AtomError(f"{path}: {name}: {error}") from error
    return claim


def _shown(source: str, unit: str, decimals: int) -> Shown:
    if unit not in UNITS:
        raise AtomError(f"unknown unit {unit!r}; one of {', '.join(UNITS)}")
    return Shown(Expression(source), unit, decimals)


def _check_placeholders(claim: Claim) -> None:
    used = {
        name
        for text in (claim.says, claim.gives)
        for _, name, _, _ in string.Formatter().parse(text)
        if name is not None
    }
    unknown = used - PLACEHOLDERS - set(claim.shown)
    if unknown:
        raise AtomError(
            f"nothing gives {{{', '.join(sorted(unknown))}}}; a sentence may hold the names of "
            f"each and shown, and {', '.join(sorted(PLACEHOLDERS))}"
        )
