"""Writes the report of a run; boot's last stage and `trainwright report` end here."""

from report.contents import compose
from report.facts import read_facts
from report.markdown import render_markdown
from report.page import render_page
from trainwright.spec.paths import RunFolder
from trainwright.store.files import write_text


def write_report(run: RunFolder) -> None:
    """Write `report.md` and `report.html` into a run folder; the same inputs give the same bytes.

    A young or interrupted run gets a report too, which says what is missing. Raises `UserError` only when the folder
    is no run folder.
    """
    document = compose(read_facts(run))
    write_text(run.report_md, render_markdown(document))
    write_text(run.report_html, render_page(document))
