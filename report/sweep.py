"""`python -m report.sweep FOLDER NAME RUN_FOLDER VALUES ...`: the points of a sweep on one page, the best one first.

Every point is judged by bits per byte of its last evaluation, or by the moving average of its loss while no point has
been evaluated. Points that have recorded nothing yet stand last; `--unseen` says that this machine sees no run folder.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report.curves import Wanted, curve, smoothed
from report.document import Block, Column, Document, Highlight, Paragraph, Section, Table, Tone
from report.figures import plain_tick
from report.markdown import render_markdown
from report.metrics import Metrics, Series, read_metrics, series
from report.numbers import fixed, grouped
from report.page import render_page
from trainwright.spec.arguments import WordParser
from trainwright.spec.exits import Exit, UserError, guarded
from trainwright.spec.paths import RunFolder
from trainwright.store.files import write_text

UNSEEN = "The run folders are on a volume that is not visible from here, so nothing is known of their figures."


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep, and the values that it has of its own."""

    name: str
    values: str
    metrics: Metrics

    @property
    def bits(self) -> Series:
        """Return its evaluations."""
        return series(self.metrics.evaluations, lambda row: row.bits_per_byte)

    @property
    def loss(self) -> Series:
        """Return the moving average of its loss."""
        return smoothed(series(self.metrics.train, lambda row: row.loss))[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page of the sweep that the command line describes."""
    parser = WordParser(prog="python -m report.sweep", description="Write report.md and report.html of a sweep.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the page goes")
    parser.add_argument("name", metavar="NAME", help="the sweep's name")
    parser.add_argument("points", nargs="+", metavar="RUN_FOLDER VALUES", help="each point's folder and its values")
    parser.add_argument("--unseen", action="store_true", help="the run folders are on a volume that is elsewhere")
    arguments = parser.parse_args(argv)
    folders, values = arguments.points[::2], arguments.points[1::2]
    if len(folders) != len(values):
        raise UserError(f"{folders[-1]}: has no values; give each run folder its values in one word")
    points = [_read(Path(folder), words) for folder, words in zip(folders, values, strict=True)]
    document, page = compose(arguments.name, points, unseen=arguments.unseen), RunFolder(arguments.folder)
    write_text(page.report_md, render_markdown(document))
    write_text(page.report_html, render_page(document))
    print(page.report_html)  # noqa: T201 - the answer
    return Exit.OK


def _read(folder: Path, values: str) -> Point:
    path = RunFolder(folder).metrics
    return Point(folder.name, values, read_metrics(path) if path.is_file() else Metrics())


def compose(name: str, points: Sequence[Point], *, unseen: bool = False) -> Document:
    """Return the page of a sweep as data; the best point stands first. Of points that are `unseen` it knows no more."""
    by_bits = any(point.bits.steps for point in points)
    ranked = sorted(points, key=lambda point: _figure(point, by_bits=by_bits))
    begun = [point for point in ranked if _series(point, by_bits=by_bits).steps]
    best = begun[0] if begun else None
    by = "bits per byte of the last evaluation" if by_bits else "the moving average of the loss"
    nothing = UNSEEN if unseen else "No point has recorded a figure yet."
    verdict = f"{best.name} is the best by {by}: {best.values}." if best else nothing
    shown = _series(best, by_bits=by_bits).last if best else None
    highlights = (
        Highlight("best", fixed(shown, 4), best.values if best else ""),
        Highlight("points", grouped(len(points)), f"{len(begun)} with figures"),
    )
    sections = (Section("Points", (_table(ranked),)), _curves(begun))
    tone: Tone = "good" if begun else "warn"
    word = "Compared" if begun else "Not visible" if unseen else "Waiting"
    return Document(name, tone, word, verdict, highlights, sections, kind="Sweep")


def _series(point: Point, *, by_bits: bool) -> Series:
    return point.bits if by_bits else point.loss


def _figure(point: Point, *, by_bits: bool) -> float:
    last = _series(point, by_bits=by_bits).last
    return float("inf") if last is None else last


def _table(points: Sequence[Point]) -> Table:
    numbers = (Column(title, right=True) for title in ("step", "bits per byte", "loss"))
    columns = (Column("run", code=True), Column("values", code=True), *numbers)
    rows = (
        (
            point.name,
            point.values,
            grouped(point.metrics.last_step),
            fixed(point.bits.last, 4),
            fixed(point.loss.last, 4),
        )
        for point in points
    )
    return Table(columns, tuple(rows))


def _curves(begun: Sequence[Point]) -> Section:
    """Return the loss and the bits per byte of all points, the best one before the others."""
    if not begun:
        return Section("Curves", (Paragraph("No figures have been recorded, so there is nothing to draw."),))
    blocks: list[Block] = []
    for title, by_bits in (("Loss", False), ("Bits per byte", True)):
        drawn = [point for point in begun if _series(point, by_bits=by_bits).steps]
        if not drawn:
            continue
        others = [("other", "", _series(point, by_bits=by_bits)) for point in reversed(drawn[1:])]
        if others:
            others[-1] = ("other", "other points", others[-1][2])
        lines = (*others, ("smooth", f"{drawn[0].name}: {drawn[0].values}", _series(drawn[0], by_bits=by_bits)))
        caption = "Validation, by point." if by_bits else "Moving average of each point's loss."
        wanted = Wanted(title.split(" ", maxsplit=1)[0].lower(), title, caption, lines, _four, plain_tick, "log")
        blocks.append(curve(wanted))
    return Section("Curves", tuple(blocks))


def _four(value: float | None) -> str:
    return fixed(value, 4)


if __name__ == "__main__":
    sys.exit(guarded("report.sweep", main))
