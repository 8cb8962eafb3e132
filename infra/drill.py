"""A rehearsed preemption: a short run of a user's own experiment, ended in every way in which its target ends runs.

All of it lies in `ROOT/drill/NAME`, away from the real run, and is gone at the end; only corpus and tokenizer are the
experiment's own, and are made where boot makes them when they are not there yet.
"""

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from infra.drill_course import Course, Drilled, end_all
from infra.drill_table import BLOWS, Pace, advice, as_json, reasons, shortened, table
from infra.parsers import word_parser
from trainwright.spec.exits import Exit
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import find_experiment, load_experiment, split_words
from trainwright.spec.paths import Places, root_from
from trainwright.store.lease import acquire


def drill(argv: Sequence[str]) -> int:
    """Rehearse the preemption of an experiment; return 0 only when everything was right."""
    parser = word_parser("drill", "Rehearse how a target ends runs, on a short run of your own experiment.")
    parser.add_argument("words", nargs="*", metavar="EXP [a.b=c ...]", help="experiment file or name, then overrides")
    parser.add_argument("--target", choices=sorted(BLOWS), default="local", help="whose signals are sent")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--keep", action="store_true", help="keep the drill's folder, with the logs of every boot")
    arguments = parser.parse_intermixed_args(argv)
    name, overrides = split_words(arguments.words)
    experiment = load_experiment(find_experiment(name), overrides).experiment
    places = Places(root_from(), experiment)
    shortened(experiment, places, Pace(steps=1000, save_every=10))  # refuses before anything is written
    with _clean_end(), _folder(places, keep=arguments.keep) as folder:
        return _report(arguments, experiment, Course(experiment, places, folder, BLOWS[arguments.target]).go())


@contextmanager
def _clean_end() -> Iterator[None]:
    """Let whoever ends the drill end it as Ctrl-C does, so that it clears away what it made."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def _folder(places: Places, *, keep: bool) -> Iterator[Path]:
    """Give the drill of one experiment a folder of its own, and at the end remove it and every process in it."""
    folder = places.root / "drill" / places.experiment.name
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, folder.parent)
        stack.enter_context(acquire(folder.with_suffix(".lease"), f"a drill of {places.experiment.name}"))
        # What a killed drill has left.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(end_all, folder)
        yield folder


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _report(arguments: argparse.Namespace, experiment: Experiment, drilled: Drilled) -> int:
    rows, every = drilled.rows, drilled.cut.save_every
    wrong = [f"{row.blow.what}: {reason}" for row in rows for reason in reasons(row, every)]
    wrong += [] if drilled.same else [drilled.verdict]
    notes = advice(rows, arguments.target, experiment, drilled.step_seconds)
    if arguments.json:
        document = {
            "experiment": experiment.name,
            "target": arguments.target,
            "steps": drilled.cut.steps,
            "save_every_steps": every,
            "step_seconds": drilled.step_seconds,
            "rows": [as_json(row, every) for row in rows],
            "same": drilled.same,
            "verdict": drilled.verdict,
            "notes": notes,
            "right": not wrong,
        }
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return Exit.FAILED if wrong else Exit.OK
    lines = [table(rows, every), "", drilled.verdict, *notes, *(f"WRONG: {each}" for each in wrong)]
    last = "run again with --keep and read the log of that boot; if it is ours, report it" if wrong else "all is right"
    sys.stdout.write("\n".join([*lines, last]) + "\n")
    return Exit.FAILED if wrong else Exit.OK
