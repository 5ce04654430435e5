"""The audit's page: its first page, its links, its numerals, and that the committed one is it."""

import csv
import html
import random
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from atom_repro.audit.check import DISAGREE, FAILED, VERDICTS, Finding, audit, count_by_verdict
from atom_repro.audit.claims import CARRIES, Claim, load_claims
from atom_repro.audit.document import (
    Code,
    Heading,
    Items,
    Link,
    Paragraph,
    Table,
    to_html,
    to_markdown,
)
from atom_repro.audit.families import Family, group, weightiest
from atom_repro.audit.numerals import plain, printed_text
from atom_repro.audit.page import pages
from atom_repro.audit.unsaid import load_unsaid
from atom_repro.report.paper import UNITS, Cell, Cells, load_cells

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "results/paper"
AUDIT = ROOT / "results/audit"
NUMERAL = re.compile(r"-?(?:\d{1,3}(?:,\d{3})*)(?:\.\d+)?")
NONSENSE = re.compile(r"\d[eE][-+]?\d|(?<![\d.,])0\.0+(?![\d])|\bnan\b|\binf\b|may be quoted")


@pytest.fixture(scope="module")
def cells() -> Cells:
    return load_cells(PAPER)


@pytest.fixture(scope="module")
def claims() -> list[Claim]:
    return load_claims(PAPER / "claims.toml")


@pytest.fixture(scope="module")
def findings(cells: Cells, claims: list[Claim]) -> list[Finding]:
    return audit(cells, claims)


@pytest.fixture(scope="module")
def families(findings: list[Finding]) -> list[Family]:
    return group(findings)


@pytest.fixture(scope="module")
def written(findings: list[Finding]) -> dict[str, str]:
    return pages(findings, load_unsaid(PAPER / "unsaid.toml"))


def first_page(markdown: str) -> str:
    """Text that a reader sees before the next heading: a link is its text."""
    head, _, _ = markdown.partition("\n## ")
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head)


def sentence_count(text: str) -> int:
    return len(re.findall(r"[.!?](?= |$)", text))


# --- the first page


def test_the_first_page_is_short_and_has_ten_findings(written: dict[str, str]) -> None:
    text = first_page(written["audit.md"])
    assert len(text.split()) <= 600
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) == 10


def test_a_finding_is_two_sentences_the_first_with_its_place(families: list[Family]) -> None:
    for family in families:
        shown = family.shown
        assert sentence_count(shown.says) == sentence_count(shown.gives) == 1, family.id
        assert re.search(r"Section \d|Appendix [A-G]|[Aa]bstract|conclusion|Table \d", shown.says)


def test_sentences_state_numbers_and_judge_nobody(families: list[Family]) -> None:
    verdicts = re.compile(
        r"\b(wrong|false|error|mistake|claims? falsely|invent|fail)", re.IGNORECASE
    )
    for family in families:
        text = f"{family.shown.says} {family.shown.gives}"
        assert not verdicts.search(text), family.id
        if family.verdict == "unexplained":
            assert "contradict" not in text, family.id


def test_the_ten_are_in_the_order_of_weight(families: list[Family]) -> None:
    ten = weightiest(families)
    weights = [family.weight for family in ten]
    assert weights == sorted(weights, reverse=True)
    assert min(weights) >= max(f.weight for f in families if f not in ten)
    for family in ten:
        assert family.verdict in DISAGREE
        assert family.weight == CARRIES[family.shown.carries] * family.shown.off


def test_a_larger_gap_or_a_weightier_claim_comes_first(families: list[Family]) -> None:
    by_id = {family.id: family for family in families}
    light = by_id["t5-default-latency"]
    assert light not in weightiest(families)
    (finding,) = light.checks
    heavy = Family(light.id, (replace(finding, carries="headline", off=0.9),))
    assert weightiest([heavy, *families])[0] is heavy


def test_checks_of_a_family_count_once(families: list[Family], written: dict[str, str]) -> None:
    text = first_page(written["audit.md"])
    assert f"{len(families)} checks of the paper" in text
    for family in families:
        assert text.count(f" {family.id}\n") <= 1
    counts = count_by_verdict(family.verdict for family in families)
    rows = count_by_verdict(finding.verdict for f in families for finding in f.checks)
    for verdict in VERDICTS:
        assert f"| {verdict} | {counts[verdict]} | {rows[verdict]} |" in written["audit.md"]


# --- the three kinds


def test_the_kinds_are_told_apart(findings: list[Finding]) -> None:
    for f in findings:
        if f.verdict == "differs from a source":
            assert f.sources
            assert not f.assumption
        if f.verdict in ("contradicts", "does not follow"):
            assert not f.sources
            assert not f.assumption
        if f.assumption:
            assert f.verdict not in DISAGREE
    kinds = {f.verdict for f in findings}
    assert {"contradicts", "does not follow", "differs from a source", "unexplained"} <= kinds


def test_sources_and_assumptions_stand_beside_their_findings(
    families: list[Family], written: dict[str, str]
) -> None:
    lines = html.unescape(written["audit.html"])
    for family in families:
        if family.verdict == "unexplained":
            assert f"Assumed: {family.shown.assumption}. " in lines, family.id
        if family.verdict == "differs from a source":
            assert f"Source: {family.shown.sources}. " in lines, family.id


# --- links


def test_every_id_leads_to_its_inputs(families: list[Family], written: dict[str, str]) -> None:
    for name, anchor, target in (
        ("audit.md", r'<a id="([^"]+)"></a>', r"\]\(([^)]+)\)"),
        ("audit.html", r' id="([^"]+)"', r'href="([^"]+)"'),
    ):
        anchors = re.findall(anchor, written[name])
        assert len(anchors) == len(set(anchors))
        targets = set(re.findall(target, written[name]))
        assert {f"#{family.id}" for family in families} <= targets
        for link in targets:
            if link.startswith("#"):
                assert link.removeprefix("#") in anchors
            else:
                assert (AUDIT / link).exists(), link


def test_a_check_names_its_files_and_shows_its_numbers(written: dict[str, str]) -> None:
    markdown = written["audit.md"]
    block = markdown[markdown.index('<a id="t9-embedding"></a>') :].split("\n#### ")[0]
    for text in ("(../paper/table09.csv)", "(../paper/facts.csv)", "`128256 * 2048`", "161M"):
        assert text in block


# --- numerals


def test_a_number_is_a_plain_decimal_that_is_near() -> None:
    draw = random.Random(0)
    values = [Fraction(draw.randint(-(10**9), 10**9), draw.randint(1, 10**8)) for _ in range(2000)]
    values += [Fraction(1, 10**n) for n in range(12)] + [Fraction(10**n) for n in range(12)]
    for value in [*values, Fraction(0), Fraction(-1, 3)]:
        for decimals in range(5):
            text = plain(value, decimals)
            number = text.removeprefix("less than ")
            assert not NONSENSE.search(text)
            assert NUMERAL.fullmatch(number)
            shown = float(number.replace(",", ""))
            if text == number:
                assert abs(shown - float(value)) <= max(0.5, abs(float(value)) / 10**4)
                assert (shown == 0) == (value == 0)
            else:
                assert abs(value) < Fraction(1, 10**6)


@pytest.mark.parametrize(
    ("printed", "unit", "expected"),
    [
        ("5e1", "percent", "50"),
        ("3e2", "byte", "300"),
        ("2e-5", "1", "0.00002"),
        ("0", "score", "0"),
        ("0.00", "s", "0"),
        ("7.0", "s", "7.0"),
        ("0.057", "1", "0.057"),
        ("1230", "MB", "1,230"),
        ("12.10", "s", "12.10"),
        ("", "GB", "?"),
        ("assembly", "name", "assembly"),
    ],
)
def test_a_cell_is_shown_with_its_printed_digits(printed: str, unit: str, expected: str) -> None:
    assert printed_text(Cell("table03", "r", "c", printed, unit, "", "5.3", "")) == expected


def test_every_cell_of_the_paper_has_a_plain_text(cells: Cells) -> None:
    for cell in cells:
        if cell.printed and cell.unit != "name":
            text = printed_text(cell)
            assert NUMERAL.fullmatch(text), cell
            assert float(text.replace(",", "")) == cell.value


def test_no_page_holds_a_nonsensical_numeral(written: dict[str, str]) -> None:
    # Keys of cells (learning rate tried/1e-3), a commit and file names are no numerals.
    for name, text in written.items():
        text = re.sub(r"[\w ]*tried/\d\w-\d|[xX]-PLUG/mPLUG-2 at \w+", "", text)
        assert NONSENSE.findall(text) == [], name


def test_a_sentence_has_no_number_that_is_typed_in(claims: list[Claim]) -> None:
    names = re.compile(
        r"Tables? \d+(?:(?:,| and) \d+)*|[Ss]ections? \d(?:\.\d)?(?: and [A-G]\.\d)?"
        r"|[Aa]ppendix [A-G](?:\.\d)?|mPLUG-?2|Llama[- ]3\.2[- ]1B|Recall@1|int8|fp32|F\.\d|"
        r"\d+-bit|\d+ bits?|5 %|112 px|ViT-L/14|Pixel \d\w|S23|at 8 take|"
        r"\{[^}]*\}"
    )
    for claim in claims:
        if not claim.says:
            continue
        for text in (claim.says, claim.gives):
            left = names.sub("", text)
            # Values of `each` are already filled in: names of rows and data sets, not numbers.
            assert not re.search(r"\d[\d.,]*\d|(?<![\w+.])\d(?!\w)", left) or claim.family in (
                "t4-minute-differences",
            ), (claim.id, left)


# --- rendering


def test_text_is_escaped_and_links_stay() -> None:
    blocks = [
        Heading(2, "a < b", "x"),
        Paragraph(["<script>alert('x')</script> a|b *c* ", Link("to [x]", "#x")]),
        Items([[Code("f(a | b)")]]),
        Table(("a|b",), [[["c|d"]], [[Code("e|f")]]]),
    ]
    page = to_html("t", blocks)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert '<a href="#x">to [x]</a>' in page
    markdown = to_markdown(blocks)
    assert "<script>" not in markdown
    assert r"[to \[x\]](#x)" in markdown
    assert "- `f(a | b)`" in markdown
    assert r"| c\|d |" in markdown
    assert r"| `e\|f` |" in markdown


def test_the_committed_pages_are_what_the_data_give(written: dict[str, str]) -> None:
    for name, text in written.items():
        committed = (AUDIT / name).read_text(encoding="utf-8")
        assert text == committed, f"{name} is stale: make audit"


def test_the_same_data_give_the_same_bytes(written: dict[str, str]) -> None:
    again = audit(load_cells(PAPER), load_claims(PAPER / "claims.toml"))
    assert pages(again, load_unsaid(PAPER / "unsaid.toml")) == written


def test_the_table_has_every_check(findings: list[Finding], written: dict[str, str]) -> None:
    rows = list(csv.DictReader(written["audit.csv"].splitlines()))
    assert [row["id"] for row in rows] == [f.id for f in findings]
    assert all(row["says"] and row["gives"] and row["inputs"] for row in rows)
    assert all(row["unit"] in UNITS for row in rows)


# --- what changed


def test_changes_name_ids_that_are_or_are_no_longer_there(families: list[Family]) -> None:
    ids = {family.id for family in families}
    with (AUDIT / "changes.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["change"] for row in rows} == {"new", "changed", "removed"}
    for row in rows:
        assert (row["id"] in ids) == (row["change"] != "removed"), row["id"]
        assert len(row["reason"].split()) >= 3, row["id"]


def test_a_family_is_judged_by_its_gravest_row(families: list[Family]) -> None:
    for family in families:
        verdicts = {finding.verdict for finding in family.checks}
        assert family.verdict == next(v for v in VERDICTS if v in verdicts)
        assert family.failed == bool(verdicts & set(FAILED))
