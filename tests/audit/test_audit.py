"""The audit: its language, its verdicts, and that a wrong number in the data is found."""

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from atom_repro.audit.check import (
    VERDICTS,
    Finding,
    audit,
    count_by_verdict,
    decimal_text,
    unused_cells,
    with_unit,
)
from atom_repro.audit.claims import Claim, load_claims
from atom_repro.audit.expressions import Expression, Quantity
from atom_repro.audit.page import to_csv, to_html, to_markdown
from atom_repro.datatypes import AtomError
from atom_repro.report.paper import Cell, Cells, load_cells

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "results/paper"
TEXT = ROOT / "../shared/seeds/002_820ca9244b055487.txt"


@pytest.fixture(scope="module")
def cells() -> Cells:
    return load_cells(PAPER)


@pytest.fixture(scope="module")
def claims() -> list[Claim]:
    return load_claims(PAPER / "claims.toml")


@pytest.fixture(scope="module")
def findings(cells: Cells, claims: list[Claim]) -> dict[str, Finding]:
    return {finding.id: finding for finding in audit(cells, claims)}


def made(*printed: str, unit: str = "s") -> Cells:
    """Cells c0, c1, … of table 3, row "r"."""
    return Cells(
        [
            Cell("table03", "r", f"c{n}", value, unit, "", "5.3, Table 3", "")
            for n, value in enumerate(printed)
        ]
    )


def claim(computed: str, relation: str = "equals", kind: str = "claim", unit: str = "") -> Claim:
    """`computed` against the cell c0."""
    readings = {"": Expression(computed)}
    printed = Expression("t3['r', 'c0']")
    return Claim("id", "id", "5.3", "what", "", kind, "latency", readings, relation, printed, unit)


def verdict(cells: Cells, made_claim: Claim) -> str:
    (finding,) = audit(cells, [made_claim])
    return finding.verdict


# --- the language


def value(source: str, cells: Cells) -> Quantity:
    result = Expression(source).evaluate(cells)
    assert isinstance(result, Quantity)
    return result


def test_digits_become_intervals_and_go_through_the_arithmetic() -> None:
    cells = made("10.0", "5.0")
    drop = value("drop(t3['r', 'c0'], t3['r', 'c1'])", cells)
    assert drop.mid == Fraction(1, 2)
    assert drop.low == 1 - Fraction(505, 995)
    assert drop.high == 1 - Fraction(495, 1005)
    difference = value("t3['r', 'c0'] - t3['r', 'c1']", cells)
    assert (difference.low, difference.high) == (Fraction(49, 10), Fraction(51, 10))


def test_patterns_make_lists_in_the_order_of_the_file() -> None:
    cells = made("1", "2", "4")
    assert value("sum(t3['r', '*'])", cells).mid == 7
    assert value("max(t3['*', 'c0|c2'] - t3['r', 'c0|c1'])", cells).mid == 2
    assert value("negative(t3['r', 'c0|c1'] - t3['r', 'c1|c2'])", cells).mid == 2
    with pytest.raises(AtomError, match="lists of 3 and 2 numbers do not pair up"):
        value("max(t3['r', '*'] - t3['r', 'c0|c1'])", cells)


def test_bytes_are_parameters_times_width() -> None:
    cells = made("1.5", unit="Bparam")
    assert value("t3['r', 'c0'] * bits(32)", cells).mid == 6 * 10**9
    assert value("as_gib(t3['r', 'c0'] * bits(32))", cells).mid == Fraction(6 * 10**18, 2**30)


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "t3['r', 'c0'].value",
        "[q for q in (1, 2)]",
        "(lambda: 1)()",
        "t3['r', 'c0'] ** 9",
        "'text'",
        "True",
        "t99['r', 'c0']",
        "max(t3['r', '*'], key=1)",
        "1 +",
    ],
)
def test_what_is_not_arithmetic_over_cells_is_refused(source: str) -> None:
    with pytest.raises(AtomError):
        Expression(source)


def test_a_formula_shows_its_numbers(cells: Cells) -> None:
    formula = Expression("drop(t3['a40/fp32/baseline', 'load'], t3['a40/fp32/atom', 'load'])")
    assert formula.with_numbers(cells) == "drop(8.66, 4.38)"


# --- the verdicts


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("44.43", "follows"),  # 1 - 3.44 / 6.19 = 44.4265 %
        ("44.44", "rounding"),  # within what 3.435 … 3.445 and 6.185 … 6.195 give
        ("44.62", "does not follow"),
    ],
)
def test_a_percentage_is_judged_by_the_digits_of_its_inputs(printed: str, expected: str) -> None:
    percent = Cell("table03", "r", "c0", printed, "percent", "", "5.3, Table 3", "")
    times = list(made("0", "6.19", "3.44"))[1:]
    assert verdict(Cells([percent, *times]), claim("drop(t3['r','c1'], t3['r','c2'])")) == expected


@pytest.mark.parametrize(
    ("relation", "computed", "expected"),
    [
        ("at most", "12.12", "follows"),
        ("at most", "12.13", "rounding"),
        ("at most", "12.20", "does not follow"),
        ("at least", "12.20", "follows"),
        ("at least", "12.00", "does not follow"),
        ("above", "12.12", "rounding"),
        ("below", "12.11", "follows"),
    ],
)
def test_limits(relation: str, computed: str, expected: str) -> None:
    assert verdict(made("12.12", computed), claim("t3['r', 'c1']", relation)) == expected


def test_a_failed_consistency_contradicts_and_names_the_other_place() -> None:
    there = Cell("table05", "r", "c", "5.75", "s", "", "F.1, Table 5", "")
    both = Cells([*made("5.57"), there])
    (finding,) = audit(both, [claim("t5['r', 'c']", kind="consistency")])
    assert finding.verdict == "contradicts"
    assert finding.against == "F.1, Table 5; 5.3, Table 3"
    assert finding.by == "+0.180"


def test_unlike_units_contradict() -> None:
    watts = Cell("table05", "r", "c", "5.57", "W", "", "F.1, Table 5", "")
    (finding,) = audit(Cells([*made("5.57"), watts]), [claim("t5['r', 'c']")])
    assert finding.verdict == "contradicts"
    assert "units disagree, W against s" in finding.consequence


def test_an_input_that_is_not_printed_cannot_be_checked() -> None:
    unknown = Cell("table05", "r", "c", "", "s", "", "F.1, Table 5", "not printed; the spread")
    (finding,) = audit(Cells([*made("1"), unknown]), [claim("t5['r', 'c']")])
    assert finding.verdict == "cannot be checked"
    assert finding.against == "c (the spread)"


def test_the_reading_that_serves_the_paper_best_decides() -> None:
    two = replace(
        claim("1"), readings={"a": Expression("t3['r', 'c1']"), "b": Expression("t3['r', 'c2']")}
    )
    (finding,) = audit(made("3", "9", "3"), [two])
    assert (finding.verdict, finding.reading) == ("follows", "b (of 2)")


def test_a_figure_cut_off_is_told_from_another_figure() -> None:
    (finding,) = audit(made("0.81", "0.8156"), [claim("t3['r', 'c1']")])
    assert finding.verdict == "does not follow"
    assert "cut off, not rounded" in finding.consequence


def test_numbers_as_text() -> None:
    assert decimal_text(Fraction(2, 3), 2) == "0.67"
    assert decimal_text(Fraction(-1, 8), 2, sign=True) == "-0.13"
    assert decimal_text(Fraction(1, 1000), 1) == "0.001"
    assert with_unit("1.5", "percent") == "1.5 %"


# --- the paper's own findings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t3-saving [retrieval, pixel5a/int8]", "follows"),
        ("latency-range-max [abstract]", "follows"),
        ("peak-increase [1]", "follows"),
        ("over-91 [4]", "follows"),
        ("mplug2plus-sum", "follows"),
        ("t9-conv3d", "follows"),
        ("caption-gain-min [CIDEr]", "follows"),
        ("load-up-to-50", "follows"),
        ("energy-nearly-half", "follows"),
        ("t3-saving [retrieval, s23/int8]", "rounding"),
        ("latency-range-every-row", "does not follow"),
        ("cider-drop-first [max]", "does not follow"),
        ("reload-overhead", "does not follow"),
        ("energy-new", "does not follow"),
        ("lower-drop-retrieval [MSVD/R@10]", "does not follow"),
        ("one-input-fits [baseline, retrieval, index, a40/fp32]", "contradicts"),
        ("saving-explained [retrieval, pixel5a/int8]", "contradicts"),
        ("rouge-over-meteor [MSR-VTT, mPLUG2/fp32]", "contradicts"),
        ("t5-default-latency", "contradicts"),
        ("mplug2-at-8-bits", "contradicts"),
        ("t9-embedding", "contradicts"),
        ("minilm-file", "follows"),
        ("quantised-loads-faster [x86-cpu, baseline]", "contradicts"),
        ("frames-of-a-clip", "contradicts"),
        ("free-memory", "cannot be checked"),
    ],
)
def test_known_findings(findings: dict[str, Finding], name: str, expected: str) -> None:
    assert findings[name].verdict == expected


def test_it_is_thorough(findings: dict[str, Finding], cells: Cells, claims: list[Claim]) -> None:
    assert len(findings) >= 400
    assert all(number > 0 for number in count_by_verdict(findings.values()).values())
    assert [c.key for c in unused_cells(cells, claims) if c.table.startswith("table")] == []


def test_no_unit_of_the_committed_data_disagrees(findings: dict[str, Finding]) -> None:
    assert [f.id for f in findings.values() if "units disagree" in f.consequence] == []


PLANTS = [
    # file, row, column, field, planted, finding, before, after
    ("table03", "pixel5a/int8/atom", "retrieval", "value", "118.66",
     "t3-saving [retrieval, pixel5a/int8]", "follows", "does not follow"),
    ("table03", "x86-cpu/fp32/atom", "load_saving", "value", "43.44",
     "t3-load-saving [x86-cpu/fp32]", "follows", "does not follow"),
    ("table03", "s23/int8/atom", "encode", "value", "6.38",
     "stages-alike [s23/int8]", "follows", "contradicts"),
    ("table03", "x86-cpu/fp32/baseline", "retrieval", "value", "16.05",
     "one-input-fits [baseline, retrieval, index, x86-cpu/fp32]", "follows", "contradicts"),
    ("table08", "peak", "atom", "value", "5.371", "t8-sum [atom]", "follows", "does not follow"),
    ("table06", "total", "storage", "value", "1238", "t6-sum", "follows", "does not follow"),
    ("table09", "Embedding", "share", "value", "16.07",
     "t9-share [Embedding]", "follows", "does not follow"),
    ("table09", "Conv3d", "parameters", "value", "61", "t9-conv3d", "follows", "contradicts"),
    ("table01", "mPLUG2+/fp32", "MSVD/CIDEr", "value", "164.6",
     "caption-gain-min [CIDEr]", "follows", "does not follow"),
    ("table02", "mPLUG2+/int8", "MSR-VTT/R@1", "value", "58.5",
     "int8-r1-gain [max]", "follows", "does not follow"),
    ("table10", "mPLUG2/int8", "DiDeMo/R@5", "value", "51.7",
     "recall-grows-with-k-10 [R@1, R@5]", "follows", "contradicts"),
    ("table05", "batch4", "MSR-VTT/CIDEr", "value", "85.2",
     "t5-batch-cider", "follows", "does not follow"),
    ("table07", "all-MiniLM-L6-v2/fp32", "STS-B/Pearson", "value", "0.8827",
     "pearson-in-text [fp32]", "follows", "does not follow"),
    ("energy", "calculation", "baseline energy", "value", "24",
     "energy-baseline", "follows", "does not follow"),
    ("text", "5.1", "MSVD test", "value", "760", "msvd-sum", "follows", "does not follow"),
    ("text", "6", "latency saving/max", "value", "43",
     "latency-range-max [6]", "follows", "does not follow"),
    ("text", "5.1", "epochs", "value", "20", "hyperparameters [epochs]", "follows", "contradicts"),
    ("table08", "activations", "atom", "unit", "MB", "t8-sum [atom]", "follows", "does not follow"),
    ("table08", "activations", "atom", "unit", "s", "t8-sum [atom]", "follows", "contradicts"),
    ("text", "F.1", "default latency", "value", "5.57",
     "t5-default-latency", "contradicts", "follows"),
    ("text", "5.4", "free RAM of a 6 GB phone", "value", "4.1",
     "free-memory", "cannot be checked", "does not follow"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "row", "column", "field", "planted", "name", "before", "after"),
    PLANTS,
    ids=[f"{p[0]}-{p[2]}-{p[3]}".replace(" ", "_") for p in PLANTS],
)
def test_a_planted_error_is_found(
    tmp_path: Path,
    findings: dict[str, Finding],
    file: str,
    row: str,
    column: str,
    field: str,
    planted: str,
    name: str,
    before: str,
    after: str,
) -> None:
    folder = Path(shutil.copytree(PAPER, tmp_path / "paper"))
    path = folder / f"{file}.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    hits = [r for r in rows if (r["row"], r["column"]) == (row, column)]
    assert len(hits) == 1
    hits[0][field] = planted
    hits[0]["note"] = hits[0]["note"].removeprefix("not printed;")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    claims = [c for c in load_claims(folder / "claims.toml") if c.id == name]
    (found,) = audit(load_cells(folder), claims)
    assert findings[name].verdict == before
    assert found.verdict == after


def test_no_verdict_is_typed_in(cells: Cells, claims: list[Claim]) -> None:
    """Whatever number follows, another number in its place does not."""
    checked = 0
    for each in claims:
        cell = each.printed.single_cell(cells)
        if cell is None or each.relation != "equals" or cell.value is None:
            continue
        (finding,) = audit(cells, [each])
        if finding.verdict != "follows":
            continue
        wrong = replace(cell, printed=str(3 * cell.value + 1000), unit=cell.unit)
        changed = Cells([wrong if c.key == cell.key else c for c in cells])
        if cell.key in {c.key for e in each.readings.values() for c in e.references(changed)}:
            continue
        assert verdict(changed, each) in ("does not follow", "contradicts"), each.id
        checked += 1
    assert checked >= 150


def test_exchanged_columns_are_told_from_right_ones(cells: Cells, claims: list[Claim]) -> None:
    names = {"ROUGE-L": "METEOR", "METEOR": "ROUGE-L"}

    def exchange(cell: Cell) -> Cell:
        data, _, metric = cell.column.partition("/")
        if cell.table != "table01" or metric not in names:
            return cell
        return replace(cell, column=f"{data}/{names[metric]}")

    exchanged = audit(Cells([exchange(cell) for cell in cells]), claims)
    ratios = {f.verdict for f in exchanged if f.family == "rouge-over-meteor"}
    assert ratios == {"follows"}


# --- the claims file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t + "colour = 1\n", "unknown key colour"),
        (lambda t: t.replace('kind = "claim"', 'kind = "hunch"'), "kind 'hunch'"),
        (lambda t: t.replace("latency", "weather"), "topic 'weather'"),
        (lambda t: t.replace("equals", "resembles"), "relation 'resembles'"),
        (lambda t: t.replace("a quote", "word " * 13), "more than 12 words"),
        (lambda t: t.replace("1 + 1", "eval('1')"), "is not supported"),
        (lambda t: t + t, "two claims have the id x"),
        (lambda t: t.replace('computed = "1 + 1"\n', ""), "either computed or readings"),
        (lambda t: t + "=", "claims.toml: "),
    ],
)
def test_a_bad_claim_is_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    good = (
        '[[claim]]\nid = "x"\nwhere = "1"\nwhat = "w"\nquote = "a quote"\nkind = "claim"\n'
        'topic = "latency"\ncomputed = "1 + 1"\nrelation = "equals"\nprinted = "2"\nunit = "s"\n'
    )
    path = tmp_path / "claims.toml"
    path.write_text(good, encoding="utf-8")
    assert len(load_claims(path)) == 1
    path.write_text(change(good), encoding="utf-8")
    with pytest.raises(AtomError, match=re.escape(message)):
        load_claims(path)


def test_a_claim_on_a_cell_that_does_not_exist_is_named() -> None:
    with pytest.raises(AtomError, match=r"claim id: .*no cell 'r', 'c7'"):
        audit(made("1"), [claim("t3['r', 'c7']")])


@pytest.mark.skipif(not TEXT.is_file(), reason=f"the paper's text is not at {TEXT}")
def test_quotes_are_the_papers_words(claims: list[Claim]) -> None:
    def letters(text: str) -> str:
        text = re.sub(r"\\[a-z]+", "", text).replace("Recall@kk", "Recall@k")
        return re.sub(r"[^a-z0-9]", "", text.lower())

    paper = letters(TEXT.read_text(encoding="utf-8"))
    assert [c.quote for c in claims if letters(c.quote) not in paper] == []


# --- the pages


def test_the_committed_pages_are_what_the_data_give(findings: dict[str, Finding]) -> None:
    found = list(findings.values())
    for suffix, write in (("csv", to_csv), ("md", to_markdown), ("html", to_html)):
        committed = (ROOT / f"results/audit/audit.{suffix}").read_text(encoding="utf-8")
        assert write(found) == committed, f"audit.{suffix} is stale: make audit"


def test_the_same_data_give_the_same_bytes(findings: dict[str, Finding]) -> None:
    again = audit(load_cells(PAPER), load_claims(PAPER / "claims.toml"))
    assert to_html(again) == to_html(list(findings.values()))
    assert to_markdown(again) == to_markdown(list(findings.values()))


def test_pages_escape_what_they_show(findings: dict[str, Finding]) -> None:
    finding = replace(findings["t6-sum"], what="<script>alert('x')</script>", quote='a "b" | c')
    page = to_html([finding])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a “a" not in page
    row = next(line for line in to_markdown([finding]).splitlines() if "alert" in line)
    assert "<script>" not in row
    assert r"\| c" in row


def test_the_page_counts_what_it_shows(findings: dict[str, Finding]) -> None:
    page = to_markdown(list(findings.values()))
    for name, number in count_by_verdict(findings.values()).items():
        assert f"| {name} | {number} |" in page
    assert set(count_by_verdict([])) == set(VERDICTS)
