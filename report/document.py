"""What a report consists of, as data: both renderers, `page` and `markdown`, draw the same document.

Every string here is plain text. The renderers escape all of it; nothing in a document is markup, except the SVG of a
`Curve`, which `figures` made from numbers alone.
"""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence or several."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: numbers stand right, identifiers are set in a fixed-width face."""

    title: str
    right: bool = False
    code: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; with a `summary` the page shows the table only when asked."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its share of the longest one, and the words around it."""

    label: str
    share: float
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A horizontal bar chart in words and blocks."""

    columns: tuple[str, str, str]
    rows: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be shown as it is; with a `summary` the page shows it only when asked."""

    text: str
    language: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a curve's legend; the style names the line in `figures.STYLES`."""

    style: str
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure over steps: drawn (for pages), and as a line of blocks (for plain text)."""

    title: str
    caption: str
    keys: tuple[Key, ...]
    svg: str
    """For about 440 pixels."""
    wide_svg: str
    """For twice that, or empty when the figure shares its row."""
    sparkline: str


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote after a prompt."""

    note: str
    prompt: str
    text: str


Block = Paragraph | Items | Table | Bars | Code | Curve | Continuation


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Highlight:
    """One of the few figures that a reader looks for first."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    tone: Tone
    status: str
    """One or two words: Complete, Interrupted, ..."""
    verdict: str
    """One sentence."""
    highlights: tuple[Highlight, ...]
    sections: tuple[Section, ...]
    kind: str = "Training run"
    """What the title is the name of."""
