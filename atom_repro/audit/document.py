"""A page as headings, paragraphs, lists and tables, rendered as Markdown and as HTML.

All text is escaped. Targets of links inside the page are anchors, which both forms have.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid #c8c8c8; padding: .25rem .5rem; text-align: left; vertical-align: top; }
th { background: #f1f1f1; }
li { margin: .5rem 0; }
code { font-size: 12px; overflow-wrap: anywhere; }
:target { background: #fff3b0; }
"""


@dataclass(frozen=True)
class Link:
    """Text that leads to `target`: "#anchor", or a relative path."""

    text: str
    target: str


@dataclass(frozen=True)
class Code:
    """Text that is shown letter by letter."""

    text: str


@dataclass(frozen=True)
class Strong:
    """Text that is set apart."""

    text: str


Inline = str | Link | Code | Strong
Line = Sequence[Inline]


@dataclass(frozen=True)
class Heading:
    """A heading; `anchor` is the name that links lead to, if any do."""

    level: int
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Paragraph:
    """One paragraph."""

    line: Line


@dataclass(frozen=True)
class Items:
    """A list, numbered or not."""

    lines: Sequence[Line]
    numbered: bool = False


@dataclass(frozen=True)
class Table:
    """A table of `header` and rows of as many cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[Line]]


Block = Heading | Paragraph | Items | Table


def to_markdown(blocks: Sequence[Block]) -> str:
    """Render as GitHub's Markdown."""
    return "\n\n".join(_markdown_block(block) for block in blocks) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Render as one HTML file without scripts."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(_html_block(block) for block in blocks) + "\n</body>\n</html>\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Heading(level, text, anchor):
            name = f'<a id="{html.escape(anchor)}"></a>' if anchor else ""
            return f"{'#' * level} {name}{_markdown_text(text)}"
        case Paragraph(line):
            return _markdown_line(line)
        case Items(lines, numbered):
            marks = [f"{n}." if numbered else "-" for n in range(1, len(lines) + 1)]
            return "\n".join(
                f"{mark} {_markdown_line(line)}" for mark, line in zip(marks, lines, strict=True)
            )
        case Table(header, rows):
            texts = [[_markdown_text(name) for name in header], ["---"] * len(header)]
            texts += [[_markdown_cell(cell) for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(row)} |" for row in texts)


def _markdown_line(line: Line) -> str:
    return "".join(_markdown_inline(part) for part in line)


def _markdown_cell(line: Line) -> str:
    """A line in which a bar ends no cell, in code too, where only tables read the backslash."""
    return "".join(
        _markdown_inline(part).replace("|", "\\|")
        if isinstance(part, Code)
        else _markdown_inline(part)
        for part in line
    )


def _markdown_inline(part: Inline) -> str:
    match part:
        case Link(text, target):
            return f"[{_markdown_text(text)}]({target})"
        case Code(text):
            return "`" + text.replace("`", "'") + "`"
        case Strong(text):
            return f"**{_markdown_text(text)}**"
        case _:
            return _markdown_text(part)


def _markdown_text(text: str) -> str:
    for mark in "\\|*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("<", "&lt;")


def _html_block(block: Block) -> str:
    match block:
        case Heading(level, text, anchor):
            name = f' id="{html.escape(anchor)}"' if anchor else ""
            return f"<h{level}{name}>{html.escape(text)}</h{level}>"
        case Paragraph(line):
            return f"<p>{_html_line(line)}</p>"
        case Items(lines, numbered):
            tag = "ol" if numbered else "ul"
            items = "".join(f"<li>{_html_line(line)}</li>\n" for line in lines)
            return f"<{tag}>\n{items}</{tag}>"
        case Table(header, rows):
            names = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in header)
            body = "".join(
                "<tr>" + "".join(f"<td>{_html_line(cell)}</td>" for cell in row) + "</tr>\n"
                for row in rows
            )
            return f"<div class=wide><table>\n<tr>{names}</tr>\n{body}</table></div>"


def _html_line(line: Line) -> str:
    return "".join(_html_inline(part) for part in line)


def _html_inline(part: Inline) -> str:
    match part:
        case Link(text, target):
            return f'<a href="{html.escape(target)}">{html.escape(text)}</a>'
        case Code(text):
            return f"<code>{html.escape(text)}</code>"
        case Strong(text):
            return f"<strong>{html.escape(text)}</strong>"
        case _:
            return html.escape(part)
