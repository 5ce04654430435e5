"""Which numerals of the paper no cell covers: the list is exact, short, and each has a reason.

The text of the paper is not part of this repository; without it these tests are skipped. A
numeral is a run of digits that stands as a quantity. Not numerals: digits inside a name
(mPLUG2, A40, 5a, Recall@1, L-14), references (Table 3, Appendix F.1), list and row counters.
Every occurrence counts: a section that prints 40 MB three times needs a cell that says x3.
"""

import csv
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from atom_repro.report.paper import Cell, load_cells

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "results/paper"
TEXT = ROOT / "../shared/seeds/002_820ca9244b055487.txt"

needs_text = pytest.mark.skipif(not TEXT.is_file(), reason=f"the paper's text is not at {TEXT}")

HEADING = re.compile(r"^(?:(Abstract)$|([1-6](?:\.\d)?) [A-Z]|Appendix ([A-G]) |([A-F]\.\d) [A-Z])")
REFERENCE = re.compile(
    r"(?:Tables?|Figures?|Sections?|Appendix|Appendices) ?"
    r"(?:[A-G]\.)?\d[\d.]*(?:\([a-z]\))?(?:(?:,| and) (?:[A-G]\.)?\d[\d.]*(?:\([a-z]\))?)*"
    r"|(?:and )?[A-G]\.\d"
)
COUNTER = re.compile(r"^\s*(?:\d+\. \d+\.|\d+ (?=(?:a|showing|turning) ))|^[a-z]?Figure \d:")
ENUMERATION = re.compile(r"\(\d\) |_\{[^}]*\}")  # "(1) the shared model", and subscripts
LATEX = re.compile(r"\\(?:leq|geq|times|approx|downarrow|uparrow|sim|ell|text|%)")
UNIT = r"(?:%|GBs?|MBs?|[BKMsWJ]|th|-bit|-core|-grams?|s=)"
NUMERAL = re.compile(
    rf"(?<![\w@#.\-])(\d{{1,3}}(?:,\d{{3}})+|\d+(?:\.\d+)*(?:e-?\d+)?)(?={UNIT}|[^\w]|$)"
)


def sections(text: str) -> dict[str, list[str]]:
    """The lines under each heading, "abstract" to "G"."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in text.splitlines():
        heading = HEADING.match(line)
        if heading:
            current = next(group for group in heading.groups() if group).lower()
            current = current if current == "abstract" else current.upper()
            found[current] = []
        elif current:
            found[current].append(line)
    return found


def numerals(line: str) -> list[str]:
    """The numerals of one line, thousands separators removed."""
    line = re.sub(r"\\displaystyle\\therefore\\text\{[^}]*\}", " ", line)
    line = line.split(r"\displaystyle")[0]  # the second copy of a formula, its digits garbled
    line = line.replace("\N{NO-BREAK SPACE}", " ")
    line = ENUMERATION.sub(" ", COUNTER.sub(" ", line))
    line = LATEX.sub(" ", line)
    line = REFERENCE.sub(" ", line)
    line = re.sub(r"\(1,3,6,224,224\)", "(1, 3, 6, 224, 224)", line)
    line = line.replace("–", " ").replace("×", " ").replace("=", " ").replace("≈", " ")
    line = re.sub(r"(?<=[\d%])-(?=\d)", " ", line)  # a range written with a hyphen
    return [found.replace(",", "") for found in NUMERAL.findall(line)]


def as_number(numeral: str) -> Decimal | str:
    """5 and 5.0 are one number; what is no number (6.77.3) stays as it is."""
    return Decimal(numeral).normalize() if numeral.count(".") < 2 else numeral


def printed_numerals() -> dict[str, Counter[Decimal | str]]:
    text = TEXT.read_text(encoding="utf-8")
    return {
        name: Counter(as_number(n) for line in lines for n in numerals(line))
        for name, lines in sections(text).items()
    }


def covered_numerals(cells: list[Cell]) -> dict[str, Counter[Decimal | str]]:
    covered: dict[str, Counter[Decimal | str]] = {}
    for cell in cells:
        if cell.table == "facts" or not cell.printed or cell.marked("in words"):
            continue
        numeral = as_number(cell.extraction)
        covered.setdefault(cell.section, Counter())[numeral] += cell.times
    return covered


def uncovered_list() -> dict[tuple[str, Decimal | str], int]:
    with (PAPER / "uncovered.csv").open(newline="", encoding="utf-8") as file:
        return {
            (row["section"], as_number(row["numeral"])): int(row["times"])
            for row in csv.DictReader(file)
        }


@needs_text
def test_every_numeral_of_the_paper_is_a_cell_or_is_listed_with_a_reason() -> None:
    covered = covered_numerals(list(load_cells(PAPER)))
    left = {
        (name, numeral): times
        for name, counts in printed_numerals().items()
        for numeral, times in (counts - covered.get(name, Counter())).items()
    }
    assert left == uncovered_list()


@needs_text
def test_no_cell_claims_a_number_that_its_section_does_not_print() -> None:
    printed = printed_numerals()
    surplus = {
        (name, numeral): times
        for name, counts in covered_numerals(list(load_cells(PAPER))).items()
        for numeral, times in (counts - printed.get(name, Counter())).items()
    }
    assert surplus == {}


@needs_text
@pytest.mark.parametrize("table", [f"table{n:02d}" for n in (1, 2, 3, 5, 6, 7, 8, 9, 10)])
def test_a_row_of_a_table_is_a_row_of_the_paper(table: str) -> None:
    """The numbers of each row stand in the paper one after the other, in the row's order."""
    rows: dict[str, list[Cell]] = {}
    for cell in load_cells(PAPER).of(table):
        rows.setdefault(cell.row, []).append(cell)
    text = sections(TEXT.read_text(encoding="utf-8"))
    for row, cells in rows.items():
        wanted = [as_number(cell.printed) for cell in cells]
        printed = [as_number(n) for line in text[cells[0].section] for n in numerals(line)]
        starts = range(len(printed) - len(wanted) + 1)
        assert any(printed[at : at + len(wanted)] == wanted for at in starts), row


def test_the_uncovered_list_is_short_and_reasoned() -> None:
    with (PAPER / "uncovered.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) <= 12
    assert all(len(row["reason"].split()) >= 3 for row in rows)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("by 27–33% on a Pixel 5a with 6GB and an A40", ["27", "33", "6"]),
        ("In Table 3 and Appendix F.1, Figure 2(a), of 1,970 clips, 2e-5", ["1970", "2e-5"]),
        (r"(\leq2.3 Recall@1), 224×\times224, int8, 8-bit", ["2.3", "224", "224", "8"]),
        ("  1. 1.", []),
        ("differ by 0.1-1 across, top-5, all-MiniLM-L6-v2", ["0.1", "1"]),
    ],
)
def test_numerals_are_told_from_names_and_references(line: str, expected: list[str]) -> None:
    assert numerals(line) == expected
