"""The parser that every word of the command line starts from."""

import argparse
import shutil

from trainwright.spec.arguments import WordParser


def word_parser(word: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a word, its help no wider than a reader likes."""
    width = min(100, shutil.get_terminal_size().columns)
    return WordParser(
        prog=f"trainwright {word}",
        description=description,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=width),
    )
