"""Check the paper's claims against its printed numbers: findings from cells and claims.

A printed number stands for an interval, its digits ± half a unit of the last one, and so does
whatever is computed from printed numbers. Verdicts:

- follows: the value computed from the printed inputs rounds to the printed digits (or keeps the
  limit).
- follows in one reading: it does in the reading that decides, and not in another.
- rounding: it does not, but inputs within their intervals could make it so.
- does not follow: no inputs within their intervals give what a sentence derives from them.
- contradicts: the same, where two places of the paper state what cannot both hold.
- differs from a source: the same, against a fact from outside the paper, whose source is named.
- unexplained: the same, if an assumption of ours holds, which is named.
- cannot be checked: an input is not printed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from atom_repro.audit import sentences
from atom_repro.audit.claims import Claim
from atom_repro.audit.expressions import (
    Expression,
    IncompatibleUnits,
    Quantity,
    require_same_dimension,
)
from atom_repro.audit.numerals import in_unit, plain, printed_text, with_unit
from atom_repro.datatypes import AtomError
from atom_repro.report.paper import UNITS, Cell, Cells

Verdict = Literal[
    "contradicts",
    "does not follow",
    "differs from a source",
    "unexplained",
    "cannot be checked",
    "rounding",
    "follows in one reading",
    "follows",
]
VERDICTS: Final[tuple[Verdict, ...]] = (
    "contradicts",
    "does not follow",
    "differs from a source",
    "unexplained",
    "cannot be checked",
    "rounding",
    "follows in one reading",
    "follows",
)
"""Gravest first."""
DISAGREE: Final[tuple[Verdict, ...]] = VERDICTS[:3]
"""Verdicts that rest on the paper and on named sources alone."""
FAILED: Final[tuple[Verdict, ...]] = VERDICTS[:4]
PASS: Final[tuple[Verdict, ...]] = VERDICTS[5:]

ABOUT: Final = Fraction(1, 100)
"""Relation `about`: how far a number that is meant approximately may be off."""
WORDS_APART: Final = Fraction(1, 4)
"""How far off a word is that differs: words have no distance."""


@dataclass(frozen=True)
class Finding:
    """One checked claim. Numbers are text in the printed number's unit.

    `low` and `high` bound what the printed inputs allow; `by` is computed minus printed; `off` is
    its size as a share of the larger of the two, at most 1. `others` are the readings that did
    not decide, `inputs` the cells, `sources` what stands outside the paper.
    """

    id: str
    family: str
    topic: str
    kind: str
    carries: str
    where: str
    what: str
    quote: str
    assumption: str
    reading: str
    others: str
    formula: str
    numbers: str
    computed: str
    low: str
    high: str
    relation: str
    printed: str
    unit: str
    verdict: Verdict
    by: str
    off: float
    says: str
    gives: str
    inputs: str
    sources: str


@dataclass(frozen=True)
class _Outcome:
    """One reading of a claim compared with its printed number, in base units."""

    reading: str
    expression: Expression
    computed: Quantity | str
    printed: Quantity | str
    level: int  # 0 follows, 1 rounding, 2 fails
    problem: str = ""

    @property
    def gap(self) -> Fraction:
        if isinstance(self.computed, Quantity) and isinstance(self.printed, Quantity):
            return self.computed.mid - self.printed.mid
        return Fraction(0)

    @property
    def off(self) -> Fraction:
        """The gap as a share of the larger number, at most 1."""
        if self.problem:
            return Fraction(1)
        if isinstance(self.computed, Quantity) and isinstance(self.printed, Quantity):
            largest = max(abs(self.computed.mid), abs(self.printed.mid))
            return min(Fraction(1), abs(self.gap) / largest) if largest else Fraction(0)
        return WORDS_APART if self.level else Fraction(0)


def audit(cells: Cells, claims: Iterable[Claim]) -> list[Finding]:
    """Check every claim, in order.

    Raises:
        AtomError: a claim names a cell that does not exist, or an operation without a value.
    """
    families: dict[str, list[Claim]] = {}
    for claim in claims:
        families.setdefault(claim.family, []).append(claim)
    return [finding for family in families.values() for finding in _check_family(family, cells)]


def unused_cells(cells: Cells, claims: Iterable[Claim]) -> list[Cell]:
    """Cells that no claim refers to."""
    used = {cell.key for claim in claims for cell in _references(claim, cells)}
    return [cell for cell in cells if cell.key not in used]


def _references(claim: Claim, cells: Cells) -> list[Cell]:
    return [
        cell
        for expression in (*claim.readings.values(), claim.printed)
        for cell in expression.references(cells)
    ]


def _check_family(family: Sequence[Claim], cells: Cells) -> list[Finding]:
    checked: list[list[_Outcome]] = []
    for claim in family:
        try:
            printed = not _missing(claim, cells)
            checked.append(
                [_compare(claim, n, e, cells) for n, e in claim.readings.items()] if printed else []
            )
        except AtomError as error:
            raise AtomError(f"claim {claim.id}: {error}") from error
    deciding = _deciding_readings(family, checked)
    failed = sum(
        outcomes[chosen].level == 2
        for outcomes, chosen in zip(checked, deciding, strict=True)
        if outcomes
    )
    counts = {"failed": str(failed), "checks": str(len(family))}
    findings = []
    for claim, outcomes, chosen in zip(family, checked, deciding, strict=True):
        try:
            findings.append(
                _finding(claim, outcomes, chosen, counts, cells)
                if outcomes
                else _uncheckable(claim, cells)
            )
        except AtomError as error:
            raise AtomError(f"claim {claim.id}: {error}") from error
    return findings


def _deciding_readings(family: Sequence[Claim], checked: list[list[_Outcome]]) -> list[int]:
    """Index of the reading that serves the paper best: by check, or one for the whole family, the
    one with the fewest failures, then the smallest gaps, then the first."""

    def cost(outcomes: Iterable[_Outcome]) -> tuple[int, Fraction, int]:
        off = [(outcome.level, outcome.off) for outcome in outcomes if outcome.level]
        gaps = [gap for level, gap in off if level == 2]
        return len(gaps), sum(gaps, Fraction(0)), len(off)

    readings = range(len(family[0].readings))
    if family[0].reading_by_check:
        return [
            min(readings, key=lambda n: cost([outcomes[n]])) if outcomes else 0
            for outcomes in checked
        ]
    best = min(readings, key=lambda n: cost(outcomes[n] for outcomes in checked if outcomes))
    return [best] * len(family)


def _compare(claim: Claim, name: str, expression: Expression, cells: Cells) -> _Outcome:
    printed = claim.printed.evaluate(cells)
    try:
        computed = expression.evaluate(cells)
        if isinstance(computed, str) and isinstance(printed, str):
            return _Outcome(name, expression, computed, printed, 0 if computed == printed else 2)
        if not (isinstance(computed, Quantity) and isinstance(printed, Quantity)):
            raise AtomError("computed and printed must both be single numbers, or both words")
        require_same_dimension(computed, printed)
    except IncompatibleUnits as error:
        return _Outcome(name, expression, "", "", 2, f"units disagree, {error}")
    return _Outcome(name, expression, computed, printed, _level(claim.relation, computed, printed))


def _level(relation: str, computed: Quantity, printed: Quantity) -> int:
    if relation in ("equals", "about"):
        slack = ABOUT * abs(printed.mid) if relation == "about" else Fraction(0)
        low, high = printed.low - slack, printed.high + slack
        if low <= computed.mid <= high:
            return 0
        return 1 if computed.low <= high and low <= computed.high else 2
    if relation in ("at least", "above"):
        computed, printed = _negated(computed), _negated(printed)
    if relation in ("at most", "at least"):
        holds, possible = computed.mid <= printed.mid, computed.low <= printed.high
    else:
        holds, possible = computed.mid < printed.mid, computed.low < printed.high
    return 0 if holds else 1 if possible else 2


def _negated(q: Quantity) -> Quantity:
    return Quantity(-q.high, -q.mid, -q.low, q.dimension, q.unit)


def _verdict(claim: Claim, outcomes: Sequence[_Outcome], chosen: int, cells: Cells) -> Verdict:
    level = outcomes[chosen].level
    if level == 0:
        ambiguous = any(outcome.level for outcome in outcomes)
        return "follows in one reading" if ambiguous else "follows"
    if level == 1:
        return "rounding"
    if claim.assumption:
        return "unexplained"
    if any(cell.table == "facts" for cell in _references(claim, cells)):
        return "differs from a source"
    if outcomes[chosen].problem or claim.kind == "consistency":
        return "contradicts"
    return "does not follow"


class _Numbers:
    """The numbers of an outcome as text: the printed digits, and one more where there is a gap."""

    def __init__(self, claim: Claim, outcome: _Outcome, cells: Cells) -> None:
        cell = claim.printed.single_cell(cells)
        self.unit = cell.unit if cell else claim.unit
        if not self.unit:
            raise AtomError("needs the key unit, because `printed` is not a single cell")
        computed, printed = outcome.computed, outcome.printed
        self.low = self.high = self.by = ""
        if isinstance(computed, str) or isinstance(printed, str):
            self.computed = str(computed)
            self.printed = printed_text(cell) if cell else str(printed)
            return
        decimals = self._printed_decimals(claim, outcome, cell, cells)
        self.printed = printed_text(cell) if cell else self._text(printed.mid, decimals)
        self.computed = self._text(computed.mid, decimals)
        if outcome.level and not _is_exact(in_unit(computed.mid, self.unit), decimals):
            decimals += 1
            self.computed = self._text(computed.mid, decimals)
        self.low, self.high = (
            self._text(computed.low, decimals),
            self._text(computed.high, decimals),
        )
        if self.low == self.high:
            self.low = self.high = self.computed
        self.by = self._text(outcome.gap, decimals, sign=True)

    def _printed_decimals(
        self, claim: Claim, outcome: _Outcome, cell: Cell | None, cells: Cells
    ) -> int:
        if cell:
            return cell.digits_after_point
        if UNITS[self.unit].counted or self.unit == "count":
            return 0
        used = outcome.expression.references(cells) + claim.printed.references(cells)
        return max((c.digits_after_point for c in used if c.unit == self.unit), default=2)

    def _text(self, value: Fraction, decimals: int, sign: bool = False) -> str:
        return plain(in_unit(value, self.unit), decimals, sign=sign)


def _is_exact(value: Fraction, decimals: int) -> bool:
    scaled: Fraction = value * 10**decimals
    return scaled.denominator == 1


def _finding(
    claim: Claim,
    outcomes: Sequence[_Outcome],
    chosen: int,
    counts: Mapping[str, str],
    cells: Cells,
) -> Finding:
    outcome = outcomes[chosen]
    numbers = _Numbers(claim, outcome, cells)
    verdict = _verdict(claim, outcomes, chosen, cells)
    others = [
        f"{other.reading}: {with_unit(_Numbers(claim, other, cells).computed, numbers.unit)}"
        for other in outcomes
        if other is not outcome and not other.problem
    ]
    texts = {
        "computed": with_unit(numbers.computed, numbers.unit),
        "printed": with_unit(numbers.printed, numbers.unit),
        "gap": with_unit(numbers.by.lstrip("+-"), numbers.unit, gap=True),
    }
    says, gives = sentences.of(
        claim, outcome.problem, {**texts, **counts, **_shown_texts(claim, cells)}
    )
    return Finding(
        id=claim.id,
        family=claim.family,
        topic=claim.topic,
        kind=claim.kind,
        carries=claim.carries,
        where=claim.where,
        what=claim.what,
        quote=claim.quote,
        assumption=claim.assumption,
        reading=outcome.reading,
        others="; ".join(others),
        formula=outcome.expression.source,
        numbers=outcome.expression.with_numbers(cells),
        computed=numbers.computed,
        low=numbers.low,
        high=numbers.high,
        relation=claim.relation,
        printed=numbers.printed,
        unit=numbers.unit,
        verdict=verdict,
        by=outcome.problem or ("" if verdict in PASS[1:] else numbers.by),
        off=float(outcome.off),
        says=says,
        gives=gives,
        inputs=_inputs(claim, outcome.expression, cells),
        sources=_sources(claim, cells),
    )


def _shown_texts(claim: Claim, cells: Cells) -> dict[str, str]:
    texts = {}
    for name, shown in claim.shown.items():
        value = shown.expression.evaluate(cells)
        if not isinstance(value, Quantity):
            raise AtomError(f"shown.{name} is not a single number")
        number = plain(in_unit(value.mid, shown.unit), shown.decimals)
        texts[name] = with_unit(number, shown.unit)
    return texts


def _inputs(claim: Claim, expression: Expression, cells: Cells) -> str:
    """The cells of a check, each as file, row, column and number."""
    used = [*expression.references(cells), *claim.printed.references(cells)]
    by_key = {cell.key: cell for cell in used}
    return "; ".join(
        f"{cell.table}.csv {cell.row}, {cell.column}: {with_unit(printed_text(cell), cell.unit)}"
        for cell in by_key.values()
    )


def _sources(claim: Claim, cells: Cells) -> str:
    return "; ".join(
        dict.fromkeys(cell.where for cell in _references(claim, cells) if cell.table == "facts")
    )


def _missing(claim: Claim, cells: Cells) -> list[Cell]:
    return [cell for cell in _references(claim, cells) if not cell.printed]


def _uncheckable(claim: Claim, cells: Cells) -> Finding:
    name, expression = next(iter(claim.readings.items()))
    cell = claim.printed.single_cell(cells)
    says, gives = sentences.of_missing(claim, _missing(claim, cells))
    return Finding(
        id=claim.id,
        family=claim.family,
        topic=claim.topic,
        kind=claim.kind,
        carries=claim.carries,
        where=claim.where,
        what=claim.what,
        quote=claim.quote,
        assumption=claim.assumption,
        reading=name,
        others="",
        formula=expression.source,
        numbers=expression.with_numbers(cells),
        computed="",
        low="",
        high="",
        relation=claim.relation,
        printed=printed_text(cell) if cell and cell.printed else "",
        unit=cell.unit if cell else claim.unit,
        verdict="cannot be checked",
        by="",
        off=0.0,
        says=says,
        gives=gives,
        inputs=_inputs(claim, expression, cells),
        sources=_sources(claim, cells),
    )


def count_by_verdict(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """Number of each verdict, gravest first."""
    all_verdicts = list(verdicts)
    return {verdict: all_verdicts.count(verdict) for verdict in VERDICTS}
