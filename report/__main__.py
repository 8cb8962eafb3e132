"""`python -m report RUN_FOLDER`: write the report of a run."""

import sys
from collections.abc import Sequence
from pathlib import Path

from report import write_report
from trainwright.spec.arguments import WordParser
from trainwright.spec.exits import Exit, guarded
from trainwright.spec.paths import RunFolder
from trainwright.store.process import die_with_boot


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of the run folder that the command line names."""
    parser = WordParser(prog="python -m report", description="Write report.md and report.html of a run.")
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder of a run, such as workspace/runs/demo")
    run = RunFolder(parser.parse_args(argv).run)
    write_report(run)
    print(f"{run.report_md}\n{run.report_html}")
    return Exit.OK


if __name__ == "__main__":
    die_with_boot()
    sys.exit(guarded("report", main))
