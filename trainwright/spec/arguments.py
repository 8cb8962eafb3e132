"""The parser of every command line here: wrong words end with the exit code that schedulers do not try again."""

import argparse
from typing import NoReturn

from trainwright.spec.exits import UserError


class WordParser(argparse.ArgumentParser):
    """An argument parser whose complaints are a `UserError` (exit 78) rather than argparse's own exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint as a sentence that names the help."""
        raise UserError(f"{message}; see `{self.prog} --help`")
