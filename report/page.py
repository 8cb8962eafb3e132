"""Draws a document as one HTML page that needs nothing else: no script, no font, no picture from outside.

The page's own policy forbids every load, so that even a mistake here could fetch nothing.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import assert_never

from report.document import Bars, Block, Code, Column, Continuation, Curve, Document, Highlight, Items, Paragraph
from report.document import Section, Table
from report.printable import one_line, printable
from report.style import CSS

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render_page(document: Document) -> str:
    """Return a document as an HTML page; all text in it is escaped."""
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{text(document.title)}: {text(document.status)}</title>",
        f"<style>\n{CSS}</style>",
        "</head>",
        "<body>",
        *_header(document),
        "<main>",
        *(line for section in document.sections for line in _section(section)),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def text(value: str) -> str:
    """Return text of one line, escaped for elements and attributes."""
    return escape(one_line(value))


def _header(document: Document) -> Iterator[str]:
    yield "<header>"
    yield f'<p class="eyebrow">{text(document.kind)}</p><h1>{text(document.title)}</h1>'
    badge = f'<span class="badge {document.tone}">{text(document.status)}</span>'
    yield f'<p class="verdict">{badge} {text(document.verdict)}</p>'
    yield '<dl class="highlights">'
    yield from (_highlight(highlight) for highlight in document.highlights)
    yield "</dl>"
    links = (f'<a href="#{_anchor(section)}">{text(section.title)}</a>' for section in document.sections)
    yield f"<nav>{' '.join(links)}</nav>"
    yield "</header>"


def _highlight(highlight: Highlight) -> str:
    value, note = text(highlight.value), text(highlight.note)
    return f'<div><dt>{text(highlight.label)}</dt><dd>{value}</dd><dd class="note">{note}</dd></div>'


def _anchor(section: Section) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in section.title.lower())


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{_anchor(section)}">'
    yield f"<h2>{text(section.title)}</h2>"
    # Curves that follow each other share a grid.
    for are_curves, blocks in groupby(section.blocks, key=lambda block: isinstance(block, Curve)):
        lines = [line for block in blocks for line in _block(block)]
        yield from ['<div class="curves">', *lines, "</div>"] if are_curves else lines
    yield "</section>"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            yield f"<p>{text(block.text)}</p>"
        case Items():
            yield from ("<ul>", *(f"<li>{text(item)}</li>" for item in block.texts), "</ul>")
        case Table():
            yield from _folded(block.summary, _table(block.columns, block.rows))
        case Bars():
            yield from _bars(block)
        case Code():
            yield from _folded(block.summary, [f"<pre><code>{escape(printable(block.text))}</code></pre>"])
        case Curve():
            yield from _curve(block)
        case Continuation():
            prompt, words = escape(printable(block.prompt)), escape(printable(block.text))
            yield '<figure class="sample">'
            # A line break right after <pre> is not shown, so the text keeps one that it starts with.
            yield f'<pre dir="auto">\n<span class="prompt">{prompt}</span>{words}</pre>'
            yield f"<figcaption>{text(block.note)}</figcaption></figure>" if block.note else "</figure>"
        case _:
            assert_never(block)


def _folded(summary: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    if not summary:
        yield from lines
        return
    yield from (f"<details><summary>{text(summary)}</summary>", *lines, "</details>")


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    heads = "".join(f'<th scope="col"{_class(column)}>{text(column.title)}</th>' for column in columns)
    yield f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>'
    for row in rows:
        cells = (f"<td{_class(column)}>{_cell(column, value)}</td>" for column, value in zip(columns, row, strict=True))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _class(column: Column) -> str:
    return ' class="number"' if column.right else ""


def _cell(column: Column, value: str) -> str:
    return f"<code>{text(value)}</code>" if column.code and value else text(value)


def _bars(block: Bars) -> Iterator[str]:
    label, value, note = (text(title) for title in block.columns)
    heads = (
        f'<th scope="col">{label}</th><th scope="col" class="number">{value}</th><td></td><th scope="col">{note}</th>'
    )
    yield f'<div class="scroll"><table class="bars"><thead><tr>{heads}</tr></thead><tbody>'
    for row in block.rows:
        bar = f'<div class="bar" style="width: {100 * min(1.0, max(0.0, row.share)):.1f}%"></div>'
        cells = f'<td>{text(row.label)}</td><td class="number">{text(row.value)}</td><td>{bar}</td>'
        yield f"<tr>{cells}<td>{text(row.note)}</td></tr>"
    yield "</tbody></table></div>"


def _curve(curve: Curve) -> Iterator[str]:
    keys = "".join(f'<li><i class="{key.style}"></i>{text(key.label)}</li>' for key in curve.keys)
    yield f'<figure class="curve{" wide" if curve.wide_svg else ""}">'
    yield f"<h3>{text(curve.title)}</h3>"
    yield f"<figcaption>{text(curve.caption)}</figcaption>"
    yield f'<ul class="keys">{keys}</ul>' if keys else ""
    yield f'<div class="small">{curve.svg}</div>'
    yield f'<div class="large">{curve.wide_svg}</div>' if curve.wide_svg else ""
    yield "</figure>"
