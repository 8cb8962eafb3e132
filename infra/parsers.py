"""The parser that every word of the command line starts from, and what is said of the environment that it followed."""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping

from trainwright.spec.arguments import WordParser
from trainwright.spec.load import Loaded
from trainwright.spec.variables import BOOT_VARIABLES, RUN_CONFIG, RUN_CONFIG_TEXT


def word_parser(word: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a word, its help no wider than a reader likes."""
    width = min(100, shutil.get_terminal_size().columns)
    return WordParser(
        prog=f"trainwright {word}",
        description=description,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=width),
    )


def say_followed(name: str | None, loaded: Loaded, environ: Mapping[str, str] = os.environ) -> None:
    """Say in one line which variables of the environment decided what a word does; a stray one is seen here.

    They are stronger than the file and the command line, and pods are set by them; so they are followed everywhere.
    """
    found = [variable for variable, path in BOOT_VARIABLES.items() if loaded.origin(path) == variable]
    if name is None:
        found.append(RUN_CONFIG if environ.get(RUN_CONFIG) else RUN_CONFIG_TEXT)
    if found:
        shown = ", ".join(v if v == RUN_CONFIG_TEXT else f"{v}={environ.get(v)}" for v in found)
        print(f"note: follows {shown} of this environment", file=sys.stderr)  # noqa: T201 - beside the word's answer
