"""The audit: its language, its verdicts, and what they are for the paper."""

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from atom_repro.audit.check import FAILED, Finding, audit, count_by_verdict, unused_cells
from atom_repro.audit.claims import Claim, Shown, load_claims
from atom_repro.audit.expressions import Expression, Quantity
from atom_repro.audit.numerals import plain, with_unit
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
    return Claim(
        id="id",
        family="id",
        where="5.3",
        what="what",
        quote="",
        kind=kind,
        topic="latency",
        carries="detail",
        assumption="",
        readings={"": Expression(computed)},
        reading_by_check=False,
        relation=relation,
        printed=Expression("t3['r', 'c0']"),
        unit=unit,
        says="",
        gives="",
        shown={},
    )


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
        ("about", "12.24", "follows"),
        ("about", "12.26", "does not follow"),
    ],
)
def test_limits(relation: str, computed: str, expected: str) -> None:
    assert verdict(made("12.12", computed), claim("t3['r', 'c1']", relation)) == expected


def test_a_failed_consistency_contradicts() -> None:
    there = Cell("table05", "r", "c", "5.75", "s", "", "F.1, Table 5", "")
    both = Cells([*made("5.57"), there])
    (finding,) = audit(both, [claim("t5['r', 'c']", kind="consistency")])
    assert finding.verdict == "contradicts"
    assert finding.inputs == "table05.csv r, c: 5.75 s; table03.csv r, c0: 5.57 s"
    assert finding.by == "+0.18"
    assert finding.off == pytest.approx(0.18 / 5.75)


def test_against_a_fact_it_differs_from_a_source() -> None:
    fact = Cell("facts", "r", "c", "5.75", "s", "", "a published file", "")
    (finding,) = audit(Cells([*made("5.57"), fact]), [claim("facts['r', 'c']", kind="consistency")])
    assert finding.verdict == "differs from a source"
    assert finding.sources == "a published file"


@pytest.mark.parametrize("kind", ["claim", "consistency"])
@pytest.mark.parametrize("table", ["table05", "facts"])
def test_with_an_assumption_of_ours_it_never_contradicts(kind: str, table: str) -> None:
    name = {"table05": "t5", "facts": "facts"}[table]
    there = Cell(table, "r", "c", "5.75", "s", "", "F.1", "")
    assumed = replace(claim(f"{name}['r', 'c']", kind=kind), assumption="the sky is blue")
    (finding,) = audit(Cells([*made("5.57"), there]), [assumed])
    assert (finding.verdict, finding.assumption) == ("unexplained", "the sky is blue")


def test_unlike_units_contradict() -> None:
    watts = Cell("table05", "r", "c", "5.57", "W", "", "F.1, Table 5", "")
    (finding,) = audit(Cells([*made("5.57"), watts]), [claim("t5['r', 'c']")])
    assert finding.verdict == "contradicts"
    assert "units disagree, W against s" in finding.gives


def test_an_input_that_is_not_printed_cannot_be_checked() -> None:
    unknown = Cell("table05", "r", "c", "", "s", "", "F.1, Table 5", "not printed; the spread")
    (finding,) = audit(Cells([*made("1"), unknown]), [claim("t5['r', 'c']")])
    assert finding.verdict == "cannot be checked"
    assert finding.gives == "The paper does not print the spread."


def test_the_reading_that_serves_the_paper_best_decides() -> None:
    two = replace(
        claim("1"), readings={"a": Expression("t3['r', 'c1']"), "b": Expression("t3['r', 'c2']")}
    )
    (finding,) = audit(made("3", "9", "3"), [two])
    assert (finding.verdict, finding.reading) == ("follows in one reading", "b")
    assert finding.others == "a: 9 s"
    (finding,) = audit(made("3", "3", "3"), [two])
    assert (finding.verdict, finding.reading) == ("follows", "a")


@pytest.mark.parametrize(
    ("by_check", "expected"),
    [
        (False, ["follows in one reading", "follows in one reading", "does not follow"]),
        (True, ["follows in one reading"] * 3),
    ],
)
def test_a_table_has_one_reading_unless_each_row_has_its_own(
    by_check: bool, expected: list[str]
) -> None:
    rows = [
        replace(
            claim("1"),
            id=f"id [{column}]",
            printed=Expression(f"t3['r', '{column}']"),
            readings={"a": Expression("t3['r', 'c3']"), "b": Expression("t3['r', 'c4']")},
            reading_by_check=by_check,
        )
        for column in ("c0", "c1", "c2")
    ]
    found = audit(made("3", "3", "9", "3", "9"), rows)
    assert [finding.verdict for finding in found] == expected


def test_sentences_are_filled_from_cells() -> None:
    told = replace(
        claim("t3['r', 'c1']"),
        says="Section 5.3 says {printed}.",
        gives="It is {computed}, {gap} more, in {failed} of {checks}, beside {other}.",
        shown={"other": Shown(Expression("t3['r', 'c1'] * 1000"), "s", 1)},
    )
    (finding,) = audit(made("5.57", "5.75"), [told])
    assert finding.says == "Section 5.3 says 5.57 s."
    assert finding.gives == "It is 5.75 s, 0.18 s more, in 1 of 1, beside 5,750.0 s."


def test_one_more_digit_shows_a_figure_that_was_cut_off() -> None:
    (finding,) = audit(made("0.81", "0.8156"), [claim("t3['r', 'c1']")])
    assert (finding.verdict, finding.computed) == ("does not follow", "0.816")


def test_numbers_as_text() -> None:
    assert plain(Fraction(2, 3), 2) == "0.67"
    assert plain(Fraction(-1, 8), 2, sign=True) == "-0.13"
    assert plain(Fraction(1, 1000), 1) == "0.001"
    assert plain(Fraction(0), 6) == "0"
    assert plain(Fraction(983251, 10), 1) == "98,325"
    assert plain(Fraction(1, 10**9), 2) == "less than 0.000001"
    assert with_unit("1.5", "percent") == "1.5 %"
    assert with_unit("1.5", "percent", gap=True) == "1.5 percentage points"


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
        ("cider-drop-first [max]", "does not follow"),
        ("energy-new", "does not follow"),
        ("one-input-fits [assembly, a40/fp32]", "contradicts"),
        ("t5-default-latency", "contradicts"),
        ("mplug2-at-8-bits", "contradicts"),
        ("quantised-loads-faster [x86-cpu, baseline]", "contradicts"),
        ("free-memory", "cannot be checked"),
        # What was missed.
        ("r1-drop-5.2 [min]", "follows in one reading"),
        ("drop-beside-the-saving", "does not follow"),
        ("below-naive-sum [pixel8a/int8]", "unexplained"),
        ("below-naive-sum [s23/int8]", "unexplained"),
        ("script-below-caption [pixel5a/int8]", "unexplained"),
        ("reload-overhead", "follows in one reading"),
        ("hyperparameters-of-mplug2 [frames]", "differs from a source"),
        ("hyperparameters-of-mplug2 [beams]", "differs from a source"),
        ("hyperparameters-of-mplug2 [caption length]", "differs from a source"),
        ("hyperparameters-of-mplug2 [learning rate]", "follows"),
        ("px112-positions", "unexplained"),
        ("tokens-against-latency", "unexplained"),
        ("t9-is-peak", "contradicts"),
        ("rouge-over-meteor [MSR-VTT, mPLUG2/fp32]", "differs from a source"),
        # What was overclaimed or inconsistent.
        ("saving-explained [retrieval, pixel5a/int8]", "follows in one reading"),
        ("index-work [pixel5a/int8]", "unexplained"),
        ("load-by-parameters [pixel5a/int8]", "unexplained"),
        ("t4-minute-differences [2]", "unexplained"),
        ("baseline-is-the-published [MSVD]", "unexplained"),
        ("mplug2-released-total", "follows in one reading"),
        ("weights-are-table-9", "follows in one reading"),
        ("weights-are-the-files", "unexplained"),
        ("latency-range-min [abstract]", "follows"),
        ("energy-saving-recomputed", "does not follow"),
        ("minilm-file", "unexplained"),
        ("r1-gain [5.2, max]", "follows in one reading"),
        ("lower-drop-retrieval", "follows in one reading"),
        ("t9-embedding", "differs from a source"),
        ("frames-of-a-clip [default]", "contradicts"),
        ("frames-of-a-clip [fps2]", "contradicts"),
    ],
)
def test_known_findings(findings: dict[str, Finding], name: str, expected: str) -> None:
    assert findings[name].verdict == expected


def test_it_is_thorough(findings: dict[str, Finding], cells: Cells, claims: list[Claim]) -> None:
    assert len(findings) >= 400
    counts = count_by_verdict(finding.verdict for finding in findings.values())
    assert all(number > 0 for number in counts.values())
    assert [c.key for c in unused_cells(cells, claims) if c.table.startswith("table")] == []


def test_no_unit_of_the_committed_data_disagrees(findings: dict[str, Finding]) -> None:
    assert [f.id for f in findings.values() if "units disagree" in f.gives] == []


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
        assert verdict(changed, each) in FAILED, each.id
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
        (lambda t: t + 'carries = "much"\n', "carries 'much'"),
        (lambda t: t + 'says = "a"\n', "needs says and gives, or neither"),
        (lambda t: t + 'says = "{a}"\ngives = "b"\n', "nothing gives {a}"),
        (lambda t: t + 'shown = { a = ["1", "ell", 0] }\n', "unknown unit 'ell'"),
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
