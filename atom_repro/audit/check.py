"""The audit of the paper: cells and claims in, findings out. Pure; no verdict is typed in.

A printed number stands for an interval, its digits ± half a unit of the last one, and so does
whatever is computed from printed numbers. Verdicts:

- follows: computed from the printed inputs, it rounds to the printed digits (or keeps the limit).
- rounding: it does not, but inputs within their own digits could make it so.
- does not follow: no inputs within their digits give what a sentence derives from them.
- contradicts: the same, where two places state what cannot both hold; the places are named.
- cannot be checked: an input is not printed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from atom_repro.audit.claims import TOPICS, Claim
from atom_repro.audit.expressions import Expression, Quantity, UnlikeUnits, require_alike
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
    """One reading compared with the print, in base units."""

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
    """The cells that no claim touches."""
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
        return _unchecked(claim, cells, missing)
    outcomes = [_compare(claim, name, e, cells) for name, e in claim.readings.items()]
    best = min(outcomes, key=lambda o: (o.level, o.relative))
    verdict = _verdict(claim, best)
    shown = _Shown(claim, best, cells)
    against = _other_places(claim, best, cells) if verdict == "contradicts" else ""
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
        computed=shown.computed,
        low=shown.low,
        high=shown.high,
        relation=claim.relation,
        printed=shown.printed,
        unit=shown.unit,
        verdict=verdict,
        by=best.problem or ("" if verdict == "follows" else shown.by),
        relative=float(best.relative),
        against=against,
        consequence=_consequence(claim, verdict, shown, against, best),
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
            raise AtomError("computed and printed must both be one number, or both a word")
        require_alike(computed, printed)
    except UnlikeUnits as error:
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
        computed, printed = _mirrored(computed), _mirrored(printed)
    if relation in ("at most", "at least"):
        holds, could = computed.mid <= printed.mid, computed.low <= printed.high
    else:
        holds, could = computed.mid < printed.mid, computed.low < printed.high
    return 0 if holds else 1 if could else 2


def _mirrored(q: Quantity) -> Quantity:
    return Quantity(-q.high, -q.mid, -q.low, q.dimension, q.unit)


def _verdict(claim: Claim, outcome: _Outcome) -> Verdict:
    if outcome.level == 0:
        return "follows"
    if outcome.level == 1:
        return "rounding"
    if outcome.problem or claim.kind == "consistency":
        return "contradicts"
    return "does not follow"


class _Shown:
    """An outcome as text, one digit finer than the print."""

    def __init__(self, claim: Claim, outcome: _Outcome, cells: Cells) -> None:
        cell = claim.printed.single_cell(cells)
        self.unit = cell.unit if cell else claim.unit
        if not self.unit:
            raise AtomError("needs a unit, as what it is compared with is not one cell")
        computed, printed = outcome.computed, outcome.printed
        self.low = self.high = self.by = ""
        self.cut_off = False
        if isinstance(computed, str) or isinstance(printed, str):
            self.computed = str(computed)
            self.printed = cell.printed if cell else str(printed)
            return
        used = outcome.expression.references(cells) + claim.printed.references(cells)
        digits = [c.digits_after_point for c in used if c.unit == self.unit]
        places = cell.digits_after_point if cell else max(digits, default=2)
        self._places = places + (0 if computed.low == computed.high and not cell else 1)
        self._scale = UNITS[self.unit].factor
        self.printed = cell.printed if cell else self._text(printed.mid)
        self.computed = self._text(computed.mid)
        self.low, self.high = self._text(computed.low), self._text(computed.high)
        self.by = self._text(outcome.gap, sign=True)
        cut = int(abs(computed.mid) / self._scale * 10**places)
        self.cut_off = cut == abs(printed.mid) / self._scale * 10**places

    def _text(self, value: Fraction, sign: bool = False) -> str:
        return decimal_text(value / self._scale, self._places, sign)


def decimal_text(value: Fraction, places: int, sign: bool = False) -> str:
    """A fraction as decimals, halves rounded away from zero; small ones get more digits."""
    while value and abs(value) * 10**places < 1 and places < 12:
        places += 1
    scaled = abs(value) * 10**places
    whole = int(scaled + Fraction(1, 2))
    digits = f"{whole:0{places + 1}d}"
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    if value < 0 and whole:
        return f"-{text}"
    return f"+{text}" if sign else text


def _other_places(claim: Claim, outcome: _Outcome, cells: Cells) -> str:
    """Where the numbers stand that clash with the claim's own place; that place if none else."""
    own = {cell.key for cell in claim.printed.references(cells)}
    involved = [c for c in outcome.expression.references(cells) if c.key not in own]
    involved += claim.printed.references(cells)
    if outcome.external:
        involved = [cell for cell in involved if cell.table == "facts"]
    places = dict.fromkeys(cell.place for cell in involved)
    return "; ".join(place for place in places if place != claim.where) or claim.where


def _unchecked(claim: Claim, cells: Cells, missing: list[Cell]) -> Finding:
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
    claim: Claim, verdict: Verdict, shown: _Shown, against: str, outcome: _Outcome
) -> str:
    """One sentence, by rule."""
    start = f"For {TOPICS[claim.topic]},"
    if outcome.problem:
        return f"{start} nothing can be concluded: {outcome.problem}."
    if verdict in PASS:
        return f"{start} {_harmless(claim, verdict, shown)}."
    if isinstance(outcome.computed, str):
        return f"{start} it is open whether {shown.computed} or {shown.printed} is meant."
    gap = with_unit(shown.by.lstrip("+-"), shown.unit, gap=True)
    computed = with_unit(shown.computed, shown.unit)
    printed = with_unit(shown.printed, shown.unit)
    if verdict == "contradicts":
        return f"{start} {_clash(claim, against, outcome, gap)}."
    if len(claim.readings) > 1:
        return f"{start} no reading gives {printed}; the nearest gives {computed}."
    if claim.relation != "equals":
        return f"{start} the sentence fails by {gap}: the numbers give {computed}, not {printed}."
    if shown.cut_off:
        return f"{start} quote {computed}: {printed} is that figure cut off, not rounded."
    return f"{start} do not quote {printed}: the numbers behind it give {computed}."


def _harmless(claim: Claim, verdict: Verdict, shown: _Shown) -> str:
    if claim.relation != "equals":
        holds = verdict == "follows"
        return "the limit holds" if holds else "the limit holds only by the inputs' rounding"
    printed = with_unit(shown.printed, shown.unit)
    if verdict == "follows":
        return f"{printed} may be quoted"
    gap = with_unit(shown.by.lstrip("+-"), shown.unit, gap=True)
    return f"{printed} may be quoted: the inputs' own rounding covers the gap of {gap}"


def _clash(claim: Claim, against: str, outcome: _Outcome, gap: str) -> str:
    here = in_words(claim.where)
    if against == claim.where:
        return f"the numbers of {here} cannot all be right, by {gap}"
    if outcome.external:
        return f"{here} is {gap} away from what stands outside the paper ({against})"
    others = " and ".join(in_words(place) for place in against.split("; "))
    number = "both" if "; " not in against else "all"
    return f"{here} and {others} cannot {number} be right, by {gap}"


def in_words(where: str) -> str:
    """ "5.3, Table 3" as "section 5.3, Table 3"; appendices and the abstract likewise."""
    if where.startswith("abstract"):
        return f"the {where}"
    return f"{'section' if where[0].isdigit() else 'appendix'} {where}"


def with_unit(number: str, unit: str, *, gap: bool = False) -> str:
    """A number and its unit as a reader writes them; a gap of percentages is in points."""
    names = {"1": "", "count": "", "name": "", "K": " thousand", "frame": " frames"}
    names |= {"Mparam": "M parameters", "Bparam": "B parameters", "point": " points"}
    names |= {"percent": " percentage points" if gap else " %"}
    return number + names.get(unit, f" {unit}")


def counts(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """How many findings have each verdict, gravest first."""
    found = [finding.verdict for finding in findings]
    return {verdict: found.count(verdict) for verdict in VERDICTS}
