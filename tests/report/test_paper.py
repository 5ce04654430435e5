"""The loader of the paper's cells: what it gives, and that a bad file is one clear line."""

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.report.paper import UNITS, Cell, load_cells

PAPER = Path(__file__).parents[2] / "results/paper"
HEADER = "table,row,column,value,unit,better,where,note\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PAPER, tmp_path / "paper"))


def cell(printed: str, unit: str = "s", note: str = "", where: str = "5.3, Table 3") -> Cell:
    return Cell("table03", "row", "column", printed, unit, "lower", where, note)


def test_every_table_is_there_with_the_keys_that_ours_join_on() -> None:
    cells = load_cells(PAPER)
    assert {c.table for c in cells} == {f"table{n:02d}" for n in range(1, 11)} | {
        "text",
        "energy",
        "facts",
    }
    assert cells["table01", "mPLUG2+/int8", "MSR-VTT/CIDEr"].value == 82.5
    assert cells["table03", "a40/fp32/baseline", "retrieval"].printed == "12.12"
    assert len(cells.of("table02")) == 24
    assert ("table03", "pixel5a/int8/atom", "load_saving") in cells


def test_a_cell_knows_the_room_that_its_digits_leave() -> None:
    assert cell("5.57").half_unit == Fraction(5, 1000)
    assert cell("12.10").half_unit == Fraction(5, 1000)
    assert cell("5e1").half_unit == 5
    assert cell("5", "count").half_unit == 0
    assert cell("10", note="exact; an assumption").half_unit == 0


def test_marks_and_places_are_read_from_note_and_where() -> None:
    marked = cell("0.27", "1", "extraction 10.27; exact; its sign was lost", "F.7 x2")
    assert (marked.extraction, marked.section, marked.times) == ("10.27", "F.7", 2)
    assert marked.place == "F.7"
    assert cell("1", where="5.3, caption of Table 3").section == "5.3"
    assert cell("", note="not printed; why").value is None


def test_an_unknown_cell_is_named() -> None:
    with pytest.raises(AtomError, match=r"table03\.csv has no cell 'x', 'load'"):
        load_cells(PAPER)["table03", "x", "load"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("table07,a,b,1,s,,F.3,\ntable07,a,b,2,s,,F.3,\n", r"table07\.csv:3: .*already defined"),
        ("table07,a,b,1,furlong,,F.3,\n", r"table07\.csv:2: unknown unit 'furlong'"),
        ("table07,a,b,one,s,,F.3,\n", r"table07\.csv:2: 'one' is not a number"),
        ("table07,a,b,nan,s,,F.3,\n", r"table07\.csv:2: 'nan' is not a number"),
        ("table07,a,b,,s,,F.3,\n", r"table07\.csv:2: an empty value needs the mark"),
        ("table07,a,b,1,s,,F.3,not printed; and yet\n", r"marked 'not printed;' and yet has"),
        (
            "table06,a,b,1,s,,F.3,\n",
            r"table07\.csv:2: the table is 'table06', but the file is table07\.csv",
        ),
        ("table07,a,b,1,s,best,F.3,\n", r"table07\.csv:2: better is"),
        ("table07,a,b,1,s,,page 3,\n", r"table07\.csv:2: where must begin with a section"),
        ("table07,ä,b,1,s,,F.3,\n", r"table07\.csv:2: .*ASCII"),
        ("table07,,b,1,s,,F.3,\n", r"table07\.csv:2: row, column and where"),
        ("table07,a,b,1,s\n", r"table07\.csv:2: 5 fields, not 8"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(copy: Path, line: str, message: str) -> None:
    (copy / "table07.csv").write_text(HEADER + line, encoding="utf-8")
    with pytest.raises(AtomError, match=message):
        load_cells(copy)


def test_a_missing_file_and_a_wrong_header_are_refused(copy: Path) -> None:
    (copy / "table07.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(AtomError, match=r"table07\.csv:1: the header must be"):
        load_cells(copy)
    (copy / "table07.csv").unlink()
    with pytest.raises(AtomError, match=r"table07\.csv is missing"):
        load_cells(copy)


def test_units_lead_to_one_base() -> None:
    assert UNITS["GB"].factor == 1000 * UNITS["MB"].factor == 10**9 * UNITS["byte"].factor
    assert 8 * UNITS["bit"].factor == UNITS["byte"].factor
    assert UNITS["GB"].dimension == UNITS["bit"].dimension != UNITS["s"].dimension
