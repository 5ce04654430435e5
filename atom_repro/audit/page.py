"""Render the audit's findings as a table (CSV) and as a page (Markdown and HTML).

Same findings, same bytes: no clock, no machine. Counts and sentences come from the findings.
"""

import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Final

from atom_repro.audit.check import PASS, VERDICTS, Finding, count_by_verdict, with_unit
from atom_repro.audit.claims import TOPICS

_VERDICT_MEANINGS: Final = {
    "contradicts": "two places cannot both hold; the other place is named",
    "does not follow": "the sentence is not what its own inputs give, whatever their rounding",
    "cannot be checked": "an input is not printed",
    "rounding": "only the rounding of the inputs can explain the gap",
    "follows": "recomputed, to the printed digits",
}
_METHOD_TEXT: Final = (
    "A printed number stands for an interval, its digits ± half a unit of the last one; the same "
    "intervals go through every formula, in exact fractions. Where a sentence can be read in "
    "several ways, the reading that serves the paper best decides, and it is named. No verdict is "
    "typed in: change a cell in `results/paper` and run `make audit`."
)
_COLUMNS: Final = ("claim", "where", "formula", "computed", "printed", "verdict", "consequence")
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid #c8c8c8; padding: .25rem .5rem; text-align: left; vertical-align: top; }
th { background: #f1f1f1; }
td.number { text-align: right; white-space: nowrap; }
code { font-size: 12px; overflow-wrap: anywhere; }
small { color: #555; }
tr.contradicts td.verdict { background: #f9d0c9; }
tr.does-not-follow td.verdict { background: #fbe3c0; }
tr.cannot-be-checked td.verdict { background: #e4e4e4; }
tr.rounding td.verdict { background: #dce9f7; }
tr.follows td.verdict { background: #d6eed9; }
"""


def to_csv(findings: Iterable[Finding]) -> str:
    """Every field of every finding; `relative` to six digits."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(Finding)], lineterminator="\n")
    writer.writeheader()
    for finding in findings:
        writer.writerow(asdict(finding) | {"relative": f"{finding.relative:.6g}"})
    return stream.getvalue()


def to_markdown(findings: Sequence[Finding]) -> str:
    """Render the page as Markdown: counts, failures by family, then every finding."""
    lines = ["# The paper, recomputed from its own numbers", "", _METHOD_TEXT, ""]
    for title, header, rows in _summaries(findings):
        lines += [f"## {title}", "", *_grid(header, rows), ""]
    for topic, of_topic in _by_topic(findings):
        rows = [[_escape_markdown(text) for text in _row_texts(f)] for f in of_topic]
        lines += [f"## {_title(topic)}", "", *_grid(_COLUMNS, rows), ""]
    return "\n".join(lines)


def to_html(findings: Sequence[Finding]) -> str:
    """Render the same page as one HTML file without scripts; all text is escaped."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>The paper, recomputed</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>The paper, recomputed from its own numbers</h1>\n<p>{_escape_html(_METHOD_TEXT)}</p>",
    ]
    for title, header, rows in _summaries(findings):
        parts.append(
            f"<h2>{_escape_html(title)}</h2>\n<div class=wide><table>{_html_header(header)}"
        )
        for row in rows:
            parts.append("<tr>" + "".join(f"<td>{_escape_html(c)}</td>" for c in row) + "</tr>")
        parts.append("</table></div>")
    for topic, of_topic in _by_topic(findings):
        parts.append(f"<h2 id={topic}>{_escape_html(_title(topic))}</h2>")
        parts.append(f"<div class=wide><table>{_html_header(_COLUMNS)}")
        parts += [_html_row(f) for f in of_topic]
        parts.append("</table></div>")
    return "\n".join(parts) + "\n</body>\n</html>\n"


def _summaries(
    findings: Sequence[Finding],
) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    verdicts = [[v, str(n), _VERDICT_MEANINGS[v]] for v, n in count_by_verdict(findings).items()]
    topics = [
        [_title(topic), *(str(n) for n in count_by_verdict(of_topic).values())]
        for topic, of_topic in _by_topic(findings)
    ]
    return [
        (f"{len(findings)} checks", ("verdict", "checks", "meaning"), verdicts),
        ("By subject", ("subject", *VERDICTS), topics),
        (
            "What fails",
            ("what is checked", "where", "verdict", "of", "the widest gap", "by"),
            _failures(findings),
        ),
    ]


def _failures(findings: Sequence[Finding]) -> list[list[str]]:
    """One row per family of claims with a failure, with its widest gap, in the claims' order."""
    families: dict[str, list[Finding]] = {}
    for finding in findings:
        families.setdefault(finding.family, []).append(finding)
    rows = []
    for family in families.values():
        failed = [f for f in family if f.verdict in ("contradicts", "does not follow")]
        if failed:
            worst = max(failed, key=lambda f: f.relative)
            rows.append(
                [
                    worst.what,
                    worst.where,
                    worst.verdict,
                    f"{len(failed)} of {len(family)}",
                    worst.consequence,
                    with_unit(worst.by, worst.unit, gap=True),
                ]
            )
    return rows


def _by_topic(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    groups = [(topic, [f for f in findings if f.topic == topic]) for topic in TOPICS]
    return [(topic, of_topic) for topic, of_topic in groups if of_topic]


def _title(topic: str) -> str:
    return TOPICS[topic].removeprefix("the ").capitalize()


def _row_texts(f: Finding) -> list[str]:
    """Cell texts in the order of `_COLUMNS`."""
    return [
        _claim_text(f),
        f.where,
        f"{f.numbers} — {f.reading}" if f.reading else f.numbers,
        _range_text(f),
        f"{f.relation} {with_unit(f.printed or '?', f.unit)}",
        _verdict_text(f),
        f.consequence,
    ]


def _claim_text(f: Finding) -> str:
    return f"{f.what}: “{f.quote}”" if f.quote else f.what


def _range_text(f: Finding) -> str:
    if not f.computed or f.low == f.high:
        return with_unit(f.computed, f.unit) if f.computed else "?"
    return f"{with_unit(f.computed, f.unit)} ({f.low} to {f.high})"


def _verdict_text(f: Finding) -> str:
    if f.verdict in PASS:
        return f.verdict
    if f.verdict == "cannot be checked":
        return f"{f.verdict}: {f.against}"
    gap = f" by {with_unit(f.by, f.unit, gap=True)}" if f.by else ""
    against = f" ({f.against})" if f.against else ""
    return f"{f.verdict}{against}{gap}"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|---" * len(header) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _escape_html(text: str) -> str:
    return html.escape(text, quote=True)


def _html_header(header: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<th scope=col>{_escape_html(name)}</th>" for name in header) + "</tr>"


def _html_row(f: Finding) -> str:
    claim, where, _, computed, printed, verdict, consequence = (
        _escape_html(t) for t in _row_texts(f)
    )
    reading = f"<br><small>{_escape_html(f.reading)}</small>" if f.reading else ""
    formula = f"<code>{_escape_html(f.numbers)}</code>{reading}"
    return (
        f'<tr class="{f.verdict.replace(" ", "-")}">'
        f"<td>{claim}<br><small>{_escape_html(f.id)}</small>"
        f"</td><td>{where}</td><td>{formula}</td><td class=number>{computed}</td>"
        f"<td class=number>{printed}</td><td class=verdict>{verdict}</td>"
        f"<td>{consequence}</td></tr>"
    )
