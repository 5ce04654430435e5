"""Numbers as text: plain decimals, at most one unit behind them.

Everything that the audit prints goes through `plain`, so that no page can show an exponent, a
zero with decimals, or a small number rounded to nothing.
"""

from fractions import Fraction
from typing import Final

from atom_repro.report.paper import NAME, UNITS, Cell

MOST_DIGITS: Final = 5
"""Digits of a computed number; one with as many before its point has no decimals."""
MOST_DECIMALS: Final = 6
_UNIT_NAMES: Final[dict[str, str]] = {
    "1": "",
    "count": "",
    NAME: "",
    "percent": " %",
    "K": " thousand",
    "frame": " frames",
    "token": " tokens",
    "point": " points",
    "param": " parameters",
    "Mparam": "M parameters",
    "Bparam": "B parameters",
    "bit": " bits",
    "byte": " bytes",
}


def plain(value: Fraction, decimals: int, *, sign: bool = False, grouped: bool = True) -> str:
    """Format a number in decimals, halves rounded away from zero.

    A number too small for `decimals` gets as many as its first digit needs, up to six; below that
    it is "less than 0.000001" of its size. A large one loses decimals that nobody reads.
    """
    if value == 0:
        return "0"
    whole_digits = len(str(int(abs(value))))
    decimals = max(0, min(decimals, MOST_DIGITS - whole_digits))
    while round_half_up(abs(value), decimals) == 0:
        if decimals == MOST_DECIMALS:
            return f"less than {plain(Fraction(1, 10**MOST_DECIMALS), MOST_DECIMALS)}"
        decimals += 1
    digits = f"{round_half_up(abs(value), decimals):0{decimals + 1}d}"
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    text = f"{int(whole):,}" if grouped else whole
    text = f"{text}.{fraction}" if fraction else text
    return f"-{text}" if value < 0 else f"+{text}" if sign else text


def round_half_up(value: Fraction, decimals: int) -> int:
    """The number of units of the last decimal, halves rounded up."""
    return int(value * 10**decimals + Fraction(1, 2))


def printed_text(cell: Cell, *, grouped: bool = True) -> str:
    """The cell's number with the digits as printed, "?" if the paper does not print it."""
    if not cell.printed:
        return "?"
    if cell.unit == NAME:
        return cell.printed
    value = Fraction(cell.printed)
    if value == 0:
        return "0"
    digits = cell.digits_after_point
    whole = plain(Fraction(int(abs(value))), 0, grouped=grouped)
    if not digits:
        return f"-{whole}" if value < 0 else whole
    return f"{'-' if value < 0 else ''}{whole}.{_decimals(abs(value), digits)}"


def _decimals(value: Fraction, digits: int) -> str:
    return f"{int(value % 1 * 10**digits):0{digits}d}"


def with_unit(number: str, unit: str, *, gap: bool = False) -> str:
    """Append the unit; a gap between percentages is in percentage points."""
    if unit == "percent" and gap:
        return f"{number} percentage points"
    return number + _UNIT_NAMES.get(unit, f" {unit}")


def in_unit(value: Fraction, unit: str) -> Fraction:
    """A value in base units, in `unit`."""
    return value / UNITS[unit].factor
