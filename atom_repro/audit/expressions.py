"""Parse and evaluate arithmetic over the paper's cells, in exact interval arithmetic.

    drop(t3['a40/fp32/baseline', 'load'], t3['a40/fp32/atom', 'load'])
    min(t1['mPLUG2+/fp32', '*/CIDEr'] - t1['mPLUG2/fp32', '*/CIDEr'])

`t1` … `t10`, `text`, `energy` and `facts` are the files of `results/paper`; a subscript names row
and column. `*` stands for any characters and `|` for "or", and makes a list in the file's order.
A cell's value is the interval of its printed digits (5.57 is 5.565 to 5.575) in base units with
its dimension, so that seconds are never added to watts. Numbers are rational: no result depends
on a machine's rounding.

The text of an expression is parsed, never executed: only operators and functions defined here are
accepted.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from atom_repro.audit.numerals import printed_text
from atom_repro.datatypes import AtomError
from atom_repro.report.paper import NAME, UNITS, Cell, Cells, Dimension

TABLES: Final[dict[str, str]] = {f"t{n}": f"table{n:02d}" for n in range(1, 11)} | {
    name: name for name in ("text", "energy", "facts")
}
_MEBI: Final = Fraction(2**20, 10**6)
_GIBI: Final = Fraction(2**30, 10**9)


class IncompatibleUnits(Exception):
    """Two quantities of different dimensions were added or compared."""


@dataclass(frozen=True)
class Quantity:
    """An interval in base units. `unit` is a cell's own unit, empty for computed values."""

    low: Fraction
    mid: Fraction
    high: Fraction
    dimension: Dimension = ()
    unit: str = ""


Value = Quantity | str | list[Quantity]
"""A number, a word, or the numbers of several cells."""


def cell_quantity(cell: Cell) -> Quantity:
    """Interval of a cell's printed digits, in base units."""
    unit = UNITS[cell.unit]
    mid, half = Fraction(cell.printed), cell.half_unit
    low, high = (mid - half) * unit.factor, (mid + half) * unit.factor
    return Quantity(low, mid * unit.factor, high, unit.dimension, cell.unit)


def _exact_quantity(value: Fraction, dimension: Dimension = ()) -> Quantity:
    return Quantity(value, value, value, dimension)


def require_same_dimension(a: Quantity, b: Quantity) -> None:
    if a.dimension != b.dimension:
        raise IncompatibleUnits(f"{_dimension_text(a)} against {_dimension_text(b)}")


def _dimension_text(q: Quantity) -> str:
    return " ".join(n if p == 1 else f"{n}^{p}" for n, p in q.dimension) or "a plain number"


def _combine_dimensions(a: Dimension, b: Dimension, sign: int) -> Dimension:
    powers = dict(a)
    for name, power in b:
        powers[name] = powers.get(name, 0) + sign * power
    return tuple(sorted((n, p) for n, p in powers.items() if p))


def _add(a: Quantity, b: Quantity) -> Quantity:
    require_same_dimension(a, b)
    return Quantity(a.low + b.low, a.mid + b.mid, a.high + b.high, a.dimension)


def _negate(a: Quantity) -> Quantity:
    return Quantity(-a.high, -a.mid, -a.low, a.dimension)


def _subtract(a: Quantity, b: Quantity) -> Quantity:
    return _add(a, _negate(b))


def _multiply(a: Quantity, b: Quantity) -> Quantity:
    ends = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high]
    dimension = _combine_dimensions(a.dimension, b.dimension, 1)
    return Quantity(min(ends), a.mid * b.mid, max(ends), dimension)


def _divide(a: Quantity, b: Quantity) -> Quantity:
    if b.low <= 0 <= b.high:
        raise AtomError("division by a number whose interval contains 0")
    inverse = _combine_dimensions((), b.dimension, -1)
    return _multiply(a, Quantity(1 / b.high, 1 / b.mid, 1 / b.low, inverse))


_OPERATORS: Final[dict[type, Callable[[Quantity, Quantity], Quantity]]] = {
    ast.Add: _add,
    ast.Sub: _subtract,
    ast.Mult: _multiply,
    ast.Div: _divide,
}


def _number(value: Value) -> Quantity:
    if isinstance(value, Quantity):
        return value
    raise AtomError(f"a number is needed, not {'a word' if isinstance(value, str) else 'a list'}")


def _numbers(values: list[Value]) -> list[Quantity]:
    flat = [q for v in values for q in (v if isinstance(v, list) else [_number(v)])]
    if not flat:
        raise AtomError("a list of numbers is empty")
    return flat


def _extreme(choose: Callable[..., Fraction]) -> Callable[[list[Value]], Quantity]:
    def apply(values: list[Value]) -> Quantity:
        numbers = _numbers(values)
        for q in numbers[1:]:
            require_same_dimension(numbers[0], q)
        low, mid, high = (
            choose(getattr(q, end) for q in numbers) for end in ("low", "mid", "high")
        )
        return Quantity(low, mid, high, numbers[0].dimension)

    return apply


def _sum(values: list[Value]) -> Quantity:
    numbers = _numbers(values)
    total = numbers[0]
    for q in numbers[1:]:
        total = _add(total, q)
    return total


def _drop(values: list[Value]) -> Quantity:
    """Relative drop 1 - b / a, each number used once for the narrowest interval."""
    before, after = _arguments(values, 2)
    require_same_dimension(before, after)
    return _subtract(_exact_quantity(Fraction(1)), _divide(after, before))


def _square(values: list[Value]) -> Quantity:
    (q,) = _arguments(values, 1)
    ends = [q.low**2, q.high**2]
    low = Fraction(0) if q.low <= 0 <= q.high else min(ends)
    return Quantity(low, q.mid**2, max(ends), _combine_dimensions(q.dimension, q.dimension, 1))


def _absolute(values: list[Value]) -> list[Quantity] | Quantity:
    numbers = [
        Quantity(
            Fraction(0) if q.low <= 0 <= q.high else min(abs(q.low), abs(q.high)),
            abs(q.mid),
            max(abs(q.low), abs(q.high)),
            q.dimension,
        )
        for q in _numbers(values)
    ]
    return numbers if isinstance(values[0], list) else numbers[0]


def _count(values: list[Value]) -> Quantity:
    return _exact_quantity(Fraction(len(_numbers(values))))


def _negative(values: list[Value]) -> Quantity:
    """Number of negative values of a list."""
    return _exact_quantity(Fraction(sum(q.mid < 0 for q in _numbers(values))))


def _nonzero(values: list[Value]) -> Quantity:
    """Number of non-zero values of a list."""
    return _exact_quantity(Fraction(sum(q.mid != 0 for q in _numbers(values))))


def _units(values: list[Value]) -> Quantity:
    """Number of different units in which the cells of a list are printed."""
    return _exact_quantity(Fraction(len({q.unit for q in _numbers(values)})))


def _bits(values: list[Value]) -> Quantity:
    (q,) = _arguments(values, 1)
    return _exact_quantity(q.mid / 8, (("byte", 1),))


def _rescale(factor: Fraction) -> Callable[[list[Value]], Quantity]:
    """Function that divides by `factor`, for MiB or GiB printed as if they were MB or GB."""

    def apply(values: list[Value]) -> Quantity:
        (q,) = _arguments(values, 1)
        return _divide(q, _exact_quantity(factor))

    return apply


def _arguments(values: list[Value], expected: int) -> list[Quantity]:
    if len(values) != expected:
        raise AtomError(f"a function has {len(values)} arguments, not {expected}")
    return [_number(v) for v in values]


FUNCTIONS: Final[dict[str, Callable[[list[Value]], Value]]] = {
    "min": _extreme(min),
    "max": _extreme(max),
    "sum": _sum,
    "abs": _absolute,
    "square": _square,
    "drop": _drop,
    "count": _count,
    "negative": _negative,
    "nonzero": _nonzero,
    "units": _units,
    "bits": _bits,
    "as_mib": _rescale(_MEBI),
    "as_gib": _rescale(_GIBI),
}


class Expression:
    """A parsed expression.

    Raises:
        AtomError: on construction, unsupported syntax; on evaluation, a cell that does not exist
            or an undefined operation.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self._tree = ast.parse(source, mode="eval").body
        except SyntaxError as error:
            raise AtomError(f"{source!r} is not an expression: {error.msg}") from error
        self._check(self._tree)

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                self._check(left)
                self._check(right)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._check(operand)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                for argument in args:
                    self._check(argument)
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                pass
            case ast.Subscript() if _address(node) is not None:
                pass
            case _:
                raise AtomError(
                    f"{self.source!r}: {ast.unparse(node)!r} is not supported; use numbers, cells, "
                    f"+ - * / and {', '.join(FUNCTIONS)}"
                )

    def references(self, cells: Cells) -> list[Cell]:
        """Distinct cells that the expression names, in the order of its text."""
        by_key: dict[tuple[str, str, str], Cell] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Subscript):
                for cell in _matching_cells(node, cells):
                    by_key.setdefault(cell.key, cell)
        return list(by_key.values())

    def single_cell(self, cells: Cells) -> Cell | None:
        """The cell, if the expression is a single cell."""
        if not isinstance(self._tree, ast.Subscript):
            return None
        matches = _matching_cells(self._tree, cells)
        return matches[0] if len(matches) == 1 else None

    def with_numbers(self, cells: Cells) -> str:
        """The expression with the printed digits in place of the cells' names."""

        class Fill(ast.NodeTransformer):
            def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
                matches = _matching_cells(node, cells)
                names = [ast.Name(id=printed_text(cell, grouped=False)) for cell in matches]
                return names[0] if not _is_list(node) else ast.List(elts=list(names))

        tree = ast.parse(self.source, mode="eval")
        return ast.unparse(Fill().visit(tree))

    def evaluate(self, cells: Cells) -> Value:
        return self._value(self._tree, cells)

    def _value(self, node: ast.expr, cells: Cells) -> Value:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return _combine(
                    _OPERATORS[type(op)], self._value(left, cells), self._value(right, cells)
                )
            case ast.UnaryOp(operand=operand):
                return _negate(_number(self._value(operand, cells)))
            case ast.Call(func=ast.Name(id=name), args=args):
                return FUNCTIONS[name]([self._value(a, cells) for a in args])
            case ast.Subscript():
                return _look_up(node, cells)
            case ast.Constant(value=value):
                return _exact_quantity(Fraction(str(value)))
            case _:
                raise AssertionError(f"{ast.dump(node)} passed the check")


def _combine(operate: Callable[[Quantity, Quantity], Quantity], left: Value, right: Value) -> Value:
    """Apply an operator elementwise: lists of equal length, or a list and a number."""
    if isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            raise AtomError(f"lists of {len(left)} and {len(right)} numbers do not pair up")
        return [operate(a, b) for a, b in zip(left, right, strict=True)]
    if isinstance(left, list):
        return [operate(a, _number(right)) for a in left]
    if isinstance(right, list):
        return [operate(_number(left), b) for b in right]
    return operate(_number(left), _number(right))


def _address(node: ast.Subscript) -> tuple[str, str, str] | None:
    match node:
        case ast.Subscript(
            value=ast.Name(id=table),
            slice=ast.Tuple(elts=[ast.Constant(value=str(row)), ast.Constant(value=str(column))]),
        ) if table in TABLES:
            return TABLES[table], row, column
    return None


def _is_list(node: ast.Subscript) -> bool:
    address = _address(node)
    assert address is not None
    return any(wildcard in part for part in address[1:] for wildcard in "*|")


def _pattern(text: str) -> re.Pattern[str]:
    options = [re.escape(option).replace(r"\*", ".*") for option in text.split("|")]
    return re.compile("|".join(options))


def _matching_cells(node: ast.Subscript, cells: Cells) -> list[Cell]:
    address = _address(node)
    assert address is not None
    if not _is_list(node):
        return [cells[address]]
    table, row, column = address
    rows, columns = _pattern(row), _pattern(column)
    matches = [c for c in cells.of(table) if rows.fullmatch(c.row) and columns.fullmatch(c.column)]
    if not matches:
        raise AtomError(f"results/paper/{table}.csv has no cell like {row!r}, {column!r}")
    return matches


def _look_up(node: ast.Subscript, cells: Cells) -> Value:
    matches = _matching_cells(node, cells)
    if _is_list(node):
        return [cell_quantity(cell) for cell in matches]
    (cell,) = matches
    return cell.printed if cell.unit == NAME else cell_quantity(cell)
