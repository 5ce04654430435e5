"""The audit as a table (CSV) and as a page: the weightiest findings, each subject, all checks.

Same findings, same bytes: no clock, no machine. Counts and sentences come from the findings.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Final

from atom_repro.audit.check import (
    ABOUT,
    FAILED,
    PASS,
    VERDICTS,
    WORDS_APART,
    Finding,
    Verdict,
    count_by_verdict,
)
from atom_repro.audit.claims import CARRIES, TOPICS
from atom_repro.audit.document import (
    Block,
    Code,
    Heading,
    Inline,
    Items,
    Line,
    Link,
    Paragraph,
    Strong,
    Table,
    to_html,
    to_markdown,
)
from atom_repro.audit.families import Family, by_topic, group, weightiest
from atom_repro.audit.numerals import with_unit
from atom_repro.audit.sentences import place_name
from atom_repro.audit.unsaid import Unsaid

TITLE: Final = "The paper, recomputed from its own numbers"
UNSAID_TITLE: Final = "What a reproduction needs and the paper does not say"
_PAPER: Final = "../paper"
_MEANINGS: Final[dict[Verdict, str]] = {
    "contradicts": "the paper's own numbers disagree: two places cannot both hold",
    "does not follow": "the paper's own numbers disagree: a sentence is not what its inputs give, "
    "whatever their rounding",
    "differs from a source": "the paper disagrees with a fact from outside, whose source is named",
    "unexplained": "the conclusion rests on an assumption of ours, which is named",
    "cannot be checked": "an input is not printed",
    "rounding": "only the rounding of the inputs can explain the gap",
    "follows in one reading": "recomputed, in the reading that serves the paper best",
    "follows": "recomputed, to the printed digits",
}
_KINDS: Final[tuple[tuple[str, tuple[Verdict, ...]], ...]] = (
    ("the paper disagrees with itself", ("contradicts", "does not follow")),
    ("differs from a source", ("differs from a source",)),
    ("rests on an assumption of ours", ("unexplained",)),
    ("cannot be checked", ("cannot be checked",)),
    ("follows", PASS),
)
"""Columns of the table by subject."""
_SILENT: Final[tuple[Verdict, ...]] = ("rounding", "follows")
"""Verdicts of which a subject lists the ids alone."""
_LONGEST_FORMULA: Final = 120
"""Characters up to which a row shows its formula with numbers; the table (CSV) shows all."""


def to_csv(findings: Iterable[Finding]) -> str:
    """Every field of every finding; `off` to four decimals."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(Finding)], lineterminator="\n")
    writer.writeheader()
    for finding in findings:
        writer.writerow(asdict(finding) | {"off": f"{finding.off:.4f}"})
    return stream.getvalue()


def pages(findings: Sequence[Finding], unsaid: Sequence[Unsaid]) -> dict[str, str]:
    """Texts of the files by name: the table, and the page in both forms."""
    blocks = page(group(findings), unsaid)
    return {
        "audit.csv": to_csv(findings),
        "audit.md": to_markdown(blocks),
        "audit.html": to_html(TITLE, blocks),
    }


def page(families: Sequence[Family], unsaid: Sequence[Unsaid]) -> list[Block]:
    """The whole page. What stands before "How to read this" is its first page."""
    return [
        Heading(1, TITLE),
        *_first_page(families),
        *_reading_guide(families),
        Heading(2, "By subject", "subjects"),
        _subject_counts(families),
        *(block for topic, of_topic in by_topic(families) for block in _subject(topic, of_topic)),
        Heading(2, UNSAID_TITLE, "unsaid"),
        *_unsaid_list(unsaid),
        Heading(2, "All checks", "checks"),
        *(block for family in families for block in _family(family)),
    ]


def _first_page(families: Sequence[Family]) -> list[Block]:
    counts = count_by_verdict(family.verdict for family in families)
    disagree = counts["contradicts"] + counts["does not follow"]
    summary: Line = [
        f"{len(families)} checks of the paper, each over as many rows as it has. In {disagree} the "
        f"paper's own numbers disagree; in {counts['differs from a source']} the paper differs "
        f"from a named source; {counts['unexplained']} rest on an assumption of ours; "
        f"{counts['cannot be checked']} need a number that is not printed. The reading that "
        "serves the paper best decides. These weigh most; each id leads to its inputs. Then: ",
        Link("by subject", "#subjects"),
        ", ",
        Link("what is not said", "#unsaid"),
        ", ",
        Link("all checks", "#checks"),
        ".",
    ]
    items: list[Line] = [
        [Strong(TOPICS[f.topic]), ": ", _sentences(f), _id(f)] for f in weightiest(families)
    ]
    return [Paragraph(summary), Items(items, numbered=True)]


def _sentences(family: Family) -> str:
    return f"{family.shown.says} {family.shown.gives} "


def _id(family: Family) -> Link:
    return Link(family.id, f"#{family.id}")


def _reading_guide(families: Sequence[Family]) -> list[Block]:
    of_families = count_by_verdict(family.verdict for family in families)
    of_rows = count_by_verdict(f.verdict for family in families for f in family.checks)
    rows: list[list[Line]] = [
        [[v], [str(of_families[v])], [str(of_rows[v])], [_MEANINGS[v]]] for v in VERDICTS
    ]
    levels = ", ".join(f"{name} {factor}" for name, factor in CARRIES.items())
    return [
        Heading(2, "How to read this"),
        Table(("verdict", "checks", "rows", "meaning"), rows),
        Paragraph(
            [
                "A check has a row for each line and column of a table that it goes through, and "
                "the verdict of its gravest row. A printed number stands for an interval, its "
                "digits ± half a unit of the last one; the same intervals go through every "
                "formula, in exact fractions. Where a sentence can be read in several ways, one "
                "reading decides for all rows, the one with the fewest failures; the others are "
                f"listed. “About” means within {int(ABOUT * 100)} %. A weight is what the claim "
                f"carries ({levels}) times how far off it is: the gap as a share of the larger of "
                f"the two numbers, or {float(WORDS_APART)} between words. No verdict is typed in: "
                "change a cell in ",
                Link("results/paper", _PAPER),
                " and run ",
                Code("make audit"),
                ". What the last revision changed: ",
                Link("changes.csv", "changes.csv"),
                ".",
            ]
        ),
    ]


def _subject_counts(families: Sequence[Family]) -> Table:
    rows: list[list[Line]] = []
    for topic, of_topic in by_topic(families):
        counts = count_by_verdict(family.verdict for family in of_topic)
        rows.append(
            [
                [Link(TOPICS[topic], f"#subject-{topic}")],
                *([str(sum(counts[v] for v in verdicts))] for _, verdicts in _KINDS),
            ]
        )
    return Table(("subject", *(name for name, _ in _KINDS)), rows)


def _subject(topic: str, families: Sequence[Family]) -> list[Block]:
    blocks: list[Block] = [Heading(3, TOPICS[topic], f"subject-{topic}")]
    told = [family for family in families if family.verdict not in _SILENT]
    ranked = sorted(told, key=lambda f: (VERDICTS.index(f.verdict), -f.shown.off))
    if ranked:
        blocks.append(Items([_subject_line(family) for family in ranked]))
    for verdict in _SILENT:
        alike = [family for family in families if family.verdict == verdict]
        if alike:
            ids: list[Inline] = [f"{verdict.capitalize()}: "]
            for family in alike:
                ids += [_id(family), ", "]
            blocks.append(Paragraph([*ids[:-1], "."]))
    return blocks


def _subject_line(family: Family) -> Line:
    rows = f", {family.alike} of {len(family.checks)} rows" if len(family.checks) > 1 else ""
    line: list[Inline] = [Strong(f"{family.verdict}{rows}"), ": ", _sentences(family)]
    if family.verdict == "unexplained":
        line.append(f"Assumed: {family.shown.assumption}. ")
    if family.verdict == "differs from a source":
        line.append(f"Source: {family.shown.sources}. ")
    return [*line, _id(family)]


def _unsaid_list(unsaid: Sequence[Unsaid]) -> list[Block]:
    rows: list[list[Line]] = [
        [
            [f"{entry.what}."],
            [entry.where],
            [f"{entry.choice}."],
            [Code(entry.setting), " of ", Code(entry.invocation)],
        ]
        for entry in unsaid
    ]
    header = ("not said", "where it is needed", "what we chose", "where to change it")
    return [Table(header, rows)]


def _family(family: Family) -> list[Block]:
    shown = family.shown
    blocks: list[Block] = [Heading(4, family.id, family.id)]
    several = len(family.checks) > 1
    place = place_name(shown.where)
    about: list[Inline] = [f"{place}{', such as' if several else ''}: {shown.what}"]
    if shown.quote:
        about.append(f", “{shown.quote}”")
    blocks.append(Paragraph([*about, "."]))
    if shown.verdict not in PASS or shown.verdict == "follows in one reading":
        blocks.append(Paragraph([_sentences(family).strip()]))
    if shown.assumption:
        blocks.append(Paragraph([f"Assumed: {shown.assumption}."]))
    blocks.append(
        Paragraph([f"Weight {family.weight:.2f}. " if family.weight else "", *_inputs(family)])
    )
    header = ("row", "from", "gives", "printed", "verdict")
    return [*blocks, Table(header, [_row(finding) for finding in family.checks])]


def _inputs(family: Family) -> list[Inline]:
    """The formula, and links to the files that its cells are in."""
    shown = family.shown
    files = dict.fromkeys(
        cell.split(" ", 1)[0]
        for finding in family.checks
        for cell in finding.inputs.split("; ")
        if cell
    )
    line: list[Inline] = [Code(shown.formula), " from "]
    for file in files:
        line += [Link(file, f"{_PAPER}/{file}"), ", "]
    line[-1] = f" ({shown.sources})." if shown.sources else "."
    return line


def _row(f: Finding) -> list[Line]:
    unit = f.unit
    number = with_unit(f.computed, unit) if f.computed else "?"
    spread = f" ({f.low} to {f.high})" if f.low != f.high and f.verdict not in PASS[1:] else ""
    relation = "" if f.relation == "equals" else f"{f.relation} "
    failed = f.verdict in FAILED and f.computed and f.by
    gap = f" by {with_unit(f.by.lstrip('+-'), unit, gap=True)}" if failed else ""
    return [
        [f.id.removeprefix(f.family).strip(" []")],
        _origin(f),
        [f"{number}{spread}"],
        [f"{relation}{with_unit(f.printed or '?', unit)}"],
        [f"{f.verdict}{gap}"],
    ]


def _origin(f: Finding) -> Line:
    """The formula with its numbers, the reading that decides, and what others would give."""
    short = len(f.numbers) <= _LONGEST_FORMULA
    line: list[Inline] = [Code(f.numbers) if short else "see audit.csv"]
    if f.reading:
        line.append(f" ({f.reading})")
    if f.others and f.verdict != "follows":
        line.append(f"; not decisive: {f.others}")
    return line
