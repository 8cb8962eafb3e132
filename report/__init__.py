"""The report: a run folder in, `report.md` and one self-contained `report.html` out. Imports no torch."""

from report.write import write_report

__all__ = ["write_report"]
