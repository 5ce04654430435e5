"""The paper's numbers as data: `results/paper/*.csv`, read and checked.

A cell keeps the digits as printed, because the digits are the only statement of precision that
the paper makes: "5.57" is some value between 5.565 and 5.575. This file handles units and
digits; claims about the numbers are computed in `atom_repro.audit`.

The columns are `table,row,column,value,unit,better,where,note`. `table` is the file's stem;
`row` and `column` are the keys that our own tables join on. `where` begins with the section
("5.3, Table 3"), and ends in "x3" when the section prints the number three times. A note may
begin with marks, each closed by ";":

- `exact`: an assumption or a setting, not a measurement; its value is exact.
- `in words`: not printed as digits ("four", "nearly half"), or counted from printed text.
- `extraction 10.27`: our copy of the text shows these characters in the number's place.
- `not printed`: the paper does not give it; `value` is empty.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, cast

from atom_repro.datatypes import AtomError

_SECTION: Final = re.compile(r"(abstract|[1-6](\.\d)?|[A-G](\.\d)?)(, .+)?( x\d+)?")
COLUMNS: Final = ("table", "row", "column", "value", "unit", "better", "where", "note")
Better = Literal["higher", "lower", ""]
Dimension = tuple[tuple[str, int], ...]

NAME: Final = "name"
"""The unit of a cell that holds a word, such as the model that a caption names."""


@dataclass(frozen=True)
class Unit:
    """Unit of a cell: `factor` converts to the base unit; a counted unit has no rounding error."""

    factor: Fraction
    dimension: Dimension = ()
    counted: bool = False


UNITS: Final[dict[str, Unit]] = {
    "1": Unit(Fraction(1)),
    "count": Unit(Fraction(1), counted=True),
    "K": Unit(Fraction(1000)),
    "percent": Unit(Fraction(1, 100)),
    "param": Unit(Fraction(1), counted=True),
    "Mparam": Unit(Fraction(10**6)),
    "Bparam": Unit(Fraction(10**9)),
    "s": Unit(Fraction(1), (("s", 1),)),
    "W": Unit(Fraction(1), (("W", 1),)),
    "J": Unit(Fraction(1), (("W", 1), ("s", 1))),
    "bit": Unit(Fraction(1, 8), (("byte", 1),), counted=True),
    "byte": Unit(Fraction(1), (("byte", 1),)),
    "MB": Unit(Fraction(10**6), (("byte", 1),)),
    "GB": Unit(Fraction(10**9), (("byte", 1),)),
    "MiB": Unit(Fraction(2**20), (("byte", 1),)),
    "GiB": Unit(Fraction(2**30), (("byte", 1),)),
    "frame": Unit(Fraction(1), counted=True),
    "fps": Unit(Fraction(1), (("s", -1),)),
    "px": Unit(Fraction(1), (("px", 1),), counted=True),
    "token": Unit(Fraction(1), counted=True),
    "point": Unit(Fraction(1), (("point", 1),)),
    "score": Unit(Fraction(1), (("score", 1),)),
    NAME: Unit(Fraction(1)),
}


@dataclass(frozen=True)
class Cell:
    """One number of the paper. `printed` is its text; `value` is None if that has no number."""

    table: str
    row: str
    column: str
    printed: str
    unit: str
    better: Better
    where: str
    note: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.table, self.row, self.column

    @property
    def value(self) -> float | None:
        return None if self.unit == NAME or not self.printed else float(self.printed)

    @property
    def section(self) -> str:
        """The section that prints it: "5.3", "F.4", "abstract"."""
        return self.where.split(",")[0].split(" ")[0]

    @property
    def place(self) -> str:
        """`where` without its repeat count."""
        head, _, suffix = self.where.rpartition(" ")
        return head if _is_times(suffix) else self.where

    @property
    def times(self) -> int:
        """How often the section prints the number as digits."""
        suffix = self.where.rpartition(" ")[2]
        return int(suffix[1:]) if _is_times(suffix) else 1

    def marked(self, mark: str) -> bool:
        return mark in self._marks()

    @property
    def extraction(self) -> str:
        """Characters of this number in our copy of the paper's text; its digits if not garbled."""
        for mark in self._marks():
            if mark.startswith("extraction "):
                return mark.removeprefix("extraction ")
        return self.printed

    @property
    def digits_after_point(self) -> int:
        exponent = Decimal(self.printed).as_tuple().exponent
        assert isinstance(exponent, int)
        return max(0, -exponent)

    @property
    def half_unit(self) -> Fraction:
        """Rounding error: half a unit of the last digit, in the cell's unit; 0 if exact."""
        if UNITS[self.unit].counted or self.marked("exact"):
            return Fraction(0)
        exponent = Decimal(self.printed).as_tuple().exponent
        assert isinstance(exponent, int)
        return Fraction(10) ** exponent / 2

    def _marks(self) -> list[str]:
        return [part.strip() for part in self.note.split(";")[:-1]]


def _is_times(suffix: str) -> bool:
    return len(suffix) > 1 and suffix[0] == "x" and suffix[1:].isdigit()


class Cells:
    """All cells by (table, row, column); iterates in the order of the files."""

    def __init__(self, cells: list[Cell]) -> None:
        self._by_key = {cell.key: cell for cell in cells}
        self._by_table: dict[str, list[Cell]] = {}
        for cell in cells:
            self._by_table.setdefault(cell.table, []).append(cell)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __getitem__(self, key: tuple[str, str, str]) -> Cell:
        try:
            return self._by_key[key]
        except KeyError:
            table, row, column = key
            raise AtomError(f"results/paper/{table}.csv has no cell {row!r}, {column!r}") from None

    def of(self, table: str) -> list[Cell]:
        """The cells of one table, in the order of its file."""
        return list(self._by_table.get(table, []))


def load_cells(folder: Path) -> Cells:
    """Read every cell file of `folder` (`table01.csv` … `table10.csv`, `text.csv`, `energy.csv`,
    `facts.csv`).

    Raises:
        AtomError: a file is missing or its header differs, a key is repeated or not ASCII, a
            unit is unknown, a value is no number; the line is named.
    """
    names = [f"table{n:02d}" for n in range(1, 11)] + ["text", "energy", "facts"]
    cells: list[Cell] = []
    seen: dict[tuple[str, str, str], str] = {}
    for name in names:
        path = folder / f"{name}.csv"
        for line, cell in _read(path):
            location = f"{path}:{line}"
            if cell.key in seen:
                raise AtomError(f"{location}: {cell.key} is already defined at {seen[cell.key]}")
            seen[cell.key] = location
            cells.append(cell)
    return Cells(cells)


def _read(path: Path) -> Iterator[tuple[int, Cell]]:
    if not path.is_file():
        raise AtomError(f"{path} is missing; restore it from version control")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise AtomError(f"{path}:1: the header must be {','.join(COLUMNS)}")
        for fields in reader:
            location = f"{path}:{reader.line_num}"
            if len(fields) != len(COLUMNS):
                raise AtomError(f"{location}: {len(fields)} fields, not {len(COLUMNS)}")
            table, row, column, value, unit, better, where, note = fields
            if table != path.stem:
                raise AtomError(f"{location}: the table is {table!r}, but the file is {path.name}")
            if not (row and column and where):
                raise AtomError(f"{location}: row, column and where must not be empty")
            if not (row + column).isascii():
                raise AtomError(f"{location}: row and column are keys and must be ASCII")
            if table != "facts" and not _SECTION.fullmatch(where):
                raise AtomError(f"{location}: where must begin with a section, not {where!r}")
            if better not in ("higher", "lower", ""):
                raise AtomError(f"{location}: better is higher, lower or empty, not {better!r}")
            direction = cast(Better, better)
            cell = Cell(table, row, column, value, unit, direction, where, note)
            _check_value(location, cell)
            yield reader.line_num, cell


def _check_value(location: str, cell: Cell) -> None:
    if cell.unit not in UNITS:
        raise AtomError(f"{location}: unknown unit {cell.unit!r}; one of {', '.join(UNITS)}")
    if not cell.printed:
        if not cell.marked("not printed"):
            raise AtomError(f"{location}: an empty value needs the mark 'not printed;' in its note")
        return
    if cell.marked("not printed"):
        raise AtomError(f"{location}: marked 'not printed;' and yet has the value {cell.printed}")
    if cell.unit == NAME:
        return
    try:
        finite = Decimal(cell.printed).is_finite()
    except InvalidOperation:
        finite = False
    if not finite:
        raise AtomError(f"{location}: {cell.printed!r} is not a number")


def value_of(cells: Iterable[Cell], table: str, row: str, column: str) -> float | None:
    """The number in a cell; None where the paper has none."""
    return next(
        (c.value for c in cells if (c.table, c.row, c.column) == (table, row, column)), None
    )
