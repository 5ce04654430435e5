"""Check the paper's claims against its printed numbers: findings from cells and claims.

A printed number stands for an interval, its digits ± half a unit of the last one, and so does
whatever is computed from printed numbers. Verdicts:

- follows: the value computed from the printed inputs rounds to the printed digits (or keeps the
  limit).
- rounding: it does not, but inputs within their intervals could make it so.
- does not follow: no inputs within their intervals give what a sentence derives from them.
- contradicts: the same, where two places state what cannot both hold; the places are named.
- cannot be checked: an input is not printed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from atom_repro.audit.claims import TOPICS, Claim
from atom_repro.audit.expressions import (
    Expression,
    IncompatibleUnits,
    Quantity,
    require_same_dimension,
)
from atom_repro.datatypes import AtomError
from atom_repro.report.paper import UNITS, Cell, Cells

Verdict = Literal["follows", "rounding", "does not follow", "contradicts", "cannot be checked"]
VERDICTS: Final[tuple[Verdict, ...]] = (
    "contradicts",
    "does not follow",
    "cannot be checked",
    "rounding",
    "follows",
)
PASS: Final[tuple[Verdict, ...]] = ("follows", "rounding")


@dataclass(frozen=True)
class Finding:
    """One checked claim. Numbers are text in the printed number's unit.

    `low` and `high` bound what the printed inputs allow; `by` is computed minus printed;
    `relative` is its size over the printed number, for ranking. `against` names the other
    places of a contradiction, or the inputs that are missing.
    """

    id: str
    family: str
    topic: str
    kind: str
    where: str
    what: str
    quote: str
    reading: str
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
    relative: float
    against: str
    consequence: str


@dataclass(frozen=True)
class _Outcome:
    """One reading of a claim compared with its printed number, in base units."""

    reading: str
    expression: Expression
    computed: Quantity | str
    printed: Quantity | str
    level: int  # 0 follows, 1 rounding, 2 fails
    gap: Fraction
    external: bool = False
    problem: str = ""

    @property
    def relative(self) -> Fraction:
        if not isinstance(self.printed, Quantity) or not self.printed.mid:
            return Fraction(self.level, 2)
        return abs(self.gap / self.printed.mid)


def audit(cells: Cells, claims: Iterable[Claim]) -> list[Finding]:
    """Check every claim, in order.

    Raises:
        AtomError: a claim names a cell that does not exist, or an operation without a value.
    """
    findings = []
    for claim in claims:
        try:
            findings.append(_check(claim, cells))
        except AtomError as error:
            raise AtomError(f"claim {claim.id}: {error}") from error
    return findings


def unused_cells(cells: Cells, claims: Iterable[Claim]) -> list[Cell]:
    """Cells that no claim refers to."""
    used = {
        cell.key
        for claim in claims
        for expression in (*claim.readings.values(), claim.printed)
        for cell in expression.references(cells)
    }
    return [cell for cell in cells if cell.key not in used]


def _check(claim: Claim, cells: Cells) -> Finding:
    missing = [
        cell
        for expression in (*claim.readings.values(), claim.printed)
        for cell in expression.references(cells)
        if not cell.printed
    ]
    if missing:
        return _uncheckable(claim, cells, missing)
    outcomes = [_compare(claim, name, e, cells) for name, e in claim.readings.items()]
    best = min(outcomes, key=lambda o: (o.level, o.relative))
    verdict = _verdict(claim, best)
    texts = _OutcomeText(claim, best, cells)
    against = _conflicting_places(claim, best, cells) if verdict == "contradicts" else ""
    reading = best.reading if len(outcomes) == 1 else f"{best.reading} (of {len(outcomes)})"
    return Finding(
        id=claim.id,
        family=claim.family,
        topic=claim.topic,
        kind=claim.kind,
        where=claim.where,
        what=claim.what,
        quote=claim.quote,
        reading=reading,
        formula=best.expression.source,
        numbers=best.expression.with_numbers(cells),
        computed=texts.computed,
        low=texts.low,
        high=texts.high,
        relation=claim.relation,
        printed=texts.printed,
        unit=texts.unit,
        verdict=verdict,
        by=best.problem or ("" if verdict == "follows" else texts.by),
        relative=float(best.relative),
        against=against,
        consequence=_consequence(claim, verdict, texts, against, best),
    )


def _compare(claim: Claim, name: str, expression: Expression, cells: Cells) -> _Outcome:
    printed = claim.printed.evaluate(cells)
    external = any(c.table == "facts" for c in expression.references(cells))
    external |= any(c.table == "facts" for c in claim.printed.references(cells))
    try:
        computed = expression.evaluate(cells)
        if isinstance(computed, str) and isinstance(printed, str):
            level = 0 if computed == printed else 2
            return _Outcome(name, expression, computed, printed, level, Fraction(0))
        if not (isinstance(computed, Quantity) and isinstance(printed, Quantity)):
            raise AtomError("computed and printed must both be single numbers, or both words")
        require_same_dimension(computed, printed)
    except IncompatibleUnits as error:
        problem = f"units disagree, {error}"
        return _Outcome(name, expression, "", "", 2, Fraction(0), external, problem)
    level = _level(claim.relation, computed, printed)
    gap = computed.mid - printed.mid
    return _Outcome(name, expression, computed, printed, level, gap, external)


def _level(relation: str, computed: Quantity, printed: Quantity) -> int:
    if relation == "equals":
        if printed.low <= computed.mid <= printed.high:
            return 0
        return 1 if computed.low <= printed.high and printed.low <= computed.high else 2
    if relation in ("at least", "above"):
        computed, printed = _negated(computed), _negated(printed)
    if relation in ("at most", "at least"):
        holds, possible = computed.mid <= printed.mid, computed.low <= printed.high
    else:
        holds, possible = computed.mid < printed.mid, computed.low < printed.high
    return 0 if holds else 1 if possible else 2


def _negated(q: Quantity) -> Quantity:
    return Quantity(-q.high, -q.mid, -q.low, q.dimension, q.unit)


def _verdict(claim: Claim, outcome: _Outcome) -> Verdict:
    if outcome.level == 0:
        return "follows"
    if outcome.level == 1:
        return "rounding"
    if outcome.problem or claim.kind == "consistency":
        return "contradicts"
    return "does not follow"


class _OutcomeText:
    """The numbers of an outcome as text, with one decimal more than printed."""

    def __init__(self, claim: Claim, outcome: _Outcome, cells: Cells) -> None:
        cell = claim.printed.single_cell(cells)
        self.unit = cell.unit if cell else claim.unit
        if not self.unit:
            raise AtomError("needs the key unit, because `printed` is not a single cell")
        computed, printed = outcome.computed, outcome.printed
        self.low = self.high = self.by = ""
        self.truncated = False
        if isinstance(computed, str) or isinstance(printed, str):
            self.computed = str(computed)
            self.printed = cell.printed if cell else str(printed)
            return
        used = outcome.expression.references(cells) + claim.printed.references(cells)
        digits = [c.digits_after_point for c in used if c.unit == self.unit]
        decimals = cell.digits_after_point if cell else max(digits, default=2)
        self._decimals = decimals + (0 if computed.low == computed.high and not cell else 1)
        self._scale = UNITS[self.unit].factor
        self.printed = cell.printed if cell else self._text(printed.mid)
        self.computed = self._text(computed.mid)
        self.low, self.high = self._text(computed.low), self._text(computed.high)
        self.by = self._text(outcome.gap, sign=True)
        truncated = int(abs(computed.mid) / self._scale * 10**decimals)
        self.truncated = truncated == abs(printed.mid) / self._scale * 10**decimals

    def _text(self, value: Fraction, sign: bool = False) -> str:
        return decimal_text(value / self._scale, self._decimals, sign)


def decimal_text(value: Fraction, decimals: int, sign: bool = False) -> str:
    """Format a fraction in decimals, halves rounded away from zero; small ones get more digits."""
    while value and abs(value) * 10**decimals < 1 and decimals < 12:
        decimals += 1
    scaled = abs(value) * 10**decimals
    whole = int(scaled + Fraction(1, 2))
    digits = f"{whole:0{decimals + 1}d}"
    text = f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
    if value < 0 and whole:
        return f"-{text}"
    return f"+{text}" if sign else text


def _conflicting_places(claim: Claim, outcome: _Outcome, cells: Cells) -> str:
    """Places of the numbers that conflict with the claim, without its own unless it is the only."""
    own = {cell.key for cell in claim.printed.references(cells)}
    involved = [c for c in outcome.expression.references(cells) if c.key not in own]
    involved += claim.printed.references(cells)
    if outcome.external:
        involved = [cell for cell in involved if cell.table == "facts"]
    places = dict.fromkeys(cell.place for cell in involved)
    return "; ".join(place for place in places if place != claim.where) or claim.where


def _uncheckable(claim: Claim, cells: Cells, missing: list[Cell]) -> Finding:
    name, expression = next(iter(claim.readings.items()))
    inputs = "; ".join(f"{c.column} ({c.note.split(';', 1)[1].strip()})" for c in missing)
    printed_cell = claim.printed.single_cell(cells)
    topic = TOPICS[claim.topic]
    return Finding(
        id=claim.id,
        family=claim.family,
        topic=claim.topic,
        kind=claim.kind,
        where=claim.where,
        what=claim.what,
        quote=claim.quote,
        reading=name,
        formula=expression.source,
        numbers=expression.with_numbers(cells),
        computed="",
        low="",
        high="",
        relation=claim.relation,
        printed=printed_cell.printed if printed_cell else "",
        unit=printed_cell.unit if printed_cell else claim.unit,
        verdict="cannot be checked",
        by="",
        relative=0.0,
        against=inputs,
        consequence=(
            f"For {topic}, this stays the authors' word: the paper does not print "
            f"{' or '.join(c.column for c in missing)}."
        ),
    )


def _consequence(
    claim: Claim, verdict: Verdict, texts: _OutcomeText, against: str, outcome: _Outcome
) -> str:
    """One sentence on what the verdict means for quoting the number, by rule."""
    start = f"For {TOPICS[claim.topic]},"
    if outcome.problem:
        return f"{start} nothing can be concluded: {outcome.problem}."
    if verdict in PASS:
        return f"{start} {_passing_text(claim, verdict, texts)}."
    if isinstance(outcome.computed, str):
        return f"{start} it is open whether {texts.computed} or {texts.printed} is meant."
    gap = with_unit(texts.by.lstrip("+-"), texts.unit, gap=True)
    computed = with_unit(texts.computed, texts.unit)
    printed = with_unit(texts.printed, texts.unit)
    if verdict == "contradicts":
        return f"{start} {_contradiction_text(claim, against, outcome, gap)}."
    if len(claim.readings) > 1:
        return f"{start} no reading gives {printed}; the nearest gives {computed}."
    if claim.relation != "equals":
        return f"{start} the sentence fails by {gap}: the numbers give {computed}, not {printed}."
    if texts.truncated:
        return f"{start} quote {computed}: {printed} is that figure cut off, not rounded."
    return f"{start} do not quote {printed}: the numbers behind it give {computed}."


def _passing_text(claim: Claim, verdict: Verdict, texts: _OutcomeText) -> str:
    if claim.relation != "equals":
        holds = verdict == "follows"
        return "the limit holds" if holds else "the limit holds only by the inputs' rounding"
    printed = with_unit(texts.printed, texts.unit)
    if verdict == "follows":
        return f"{printed} may be quoted"
    gap = with_unit(texts.by.lstrip("+-"), texts.unit, gap=True)
    return f"{printed} may be quoted: the inputs' own rounding covers the gap of {gap}"


def _contradiction_text(claim: Claim, against: str, outcome: _Outcome, gap: str) -> str:
    section = section_name(claim.where)
    if against == claim.where:
        return f"the numbers of {section} cannot all be right, by {gap}"
    if outcome.external:
        return f"{section} is {gap} away from what stands outside the paper ({against})"
    others = " and ".join(section_name(place) for place in against.split("; "))
    number = "both" if "; " not in against else "all"
    return f"{section} and {others} cannot {number} be right, by {gap}"


def section_name(where: str) -> str:
    """Name a place: "section 5.3, Table 3", "appendix F.1" or "the abstract"."""
    if where.startswith("abstract"):
        return f"the {where}"
    return f"{'section' if where[0].isdigit() else 'appendix'} {where}"


def with_unit(number: str, unit: str, *, gap: bool = False) -> str:
    """Format a number with its unit; a gap between percentages is in percentage points."""
    names = {"1": "", "count": "", "name": "", "K": " thousand", "frame": " frames"}
    names |= {"Mparam": "M parameters", "Bparam": "B parameters", "point": " points"}
    names |= {"percent": " percentage points" if gap else " %"}
    return number + names.get(unit, f" {unit}")


def count_by_verdict(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """Number of findings by verdict, gravest first."""
    verdicts = [finding.verdict for finding in findings]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}
