"""Draws a document as Markdown: tables that line up as plain text, and curves as lines of blocks."""

import re
from collections.abc import Iterator, Sequence
from typing import assert_never

from report.document import Bars, Block, Code, Column, Continuation, Curve, Document, Items, Paragraph, Table
from report.printable import one_line, printable

BAR_CHARACTERS = 30


def render_markdown(document: Document) -> str:
    """Return a document as Markdown (the dialect of GitHub); all text in it is escaped."""
    lines = [f"# {prose(document.title)}", "", f"**{prose(document.status)}.** {prose(document.verdict)}"]
    for section in document.sections:
        lines += ["", f"## {prose(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block)]
    return "\n".join(lines) + "\n"


def prose(text: str) -> str:
    """Return text in which neither Markdown nor HTML finds anything to interpret."""
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code_span(text: str) -> str:
    """Return text as an inline code span for a table's cell."""
    line = one_line(text)
    if not line:
        return ""
    ticks = "`" * (_longest_run(line) + 1)
    # A span that starts or ends with a backtick needs a space there, which readers take off again.
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}".replace("|", "\\|")


def fenced(text: str, language: str = "") -> list[str]:
    """Return text in a fenced block, whose fence is longer than any row of backticks in the text."""
    body = printable(text)
    fence = "`" * max(3, _longest_run(body) + 1)
    return [f"{fence}{language}", *body.removesuffix("\n").split("\n"), fence]


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            yield prose(block.text)
        case Items():
            yield from (f"- {prose(text)}" for text in block.texts)
        case Table():
            yield from ([f"{prose(block.summary)}:", ""] if block.summary else [])
            yield from _table(block.columns, block.rows)
        case Bars():
            yield from _bars(block)
        case Code():
            yield from ([f"{prose(block.summary)}:", ""] if block.summary else [])
            yield from fenced(block.text, block.language)
        case Curve():
            yield from (f"**{prose(block.title)}.** {prose(block.caption)}", "", *fenced(block.sparkline, "text"))
        case Continuation():
            yield from (
                f"Prompt ({prose(block.note)}):" if block.note else "Prompt:",
                "",
                *fenced(block.prompt, "text"),
                "",
            )
            yield from ("Continuation:", "", *fenced(block.text, "text"))
        case _:
            assert_never(block)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [[_cell(column, text) for column, text in zip(columns, row, strict=True)] for row in rows]
    titles = [prose(column.title) for column in columns]
    widths = [max(3, *(len(row[index]) for row in [titles, *cells])) for index in range(len(columns))]
    rules = [
        f"{'-' * (width - 1)}{':' if column.right else '-'}" for column, width in zip(columns, widths, strict=True)
    ]
    for row in (titles, rules, *cells):
        padded = [
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(row, widths, columns, strict=True)
        ]
        yield f"| {' | '.join(padded)} |"


def _cell(column: Column, text: str) -> str:
    return code_span(text) if column.code else prose(text)


def _bars(block: Bars) -> Iterator[str]:
    label, value, note = block.columns
    columns = (Column(label), Column(value, right=True), Column(""), Column(note))
    rows = [(row.label, row.value, "█" * round(row.share * BAR_CHARACTERS), row.note) for row in block.rows]
    yield from _table(columns, rows)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
