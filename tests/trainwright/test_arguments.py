"""Laws of the command lines' parser."""

import pytest

from trainwright.spec.arguments import WordParser
from trainwright.spec.exits import Exit, UserError


def test_wrong_words_end_with_the_code_that_nobody_tries_again() -> None:
    parser = WordParser(prog="trainwright show")
    parser.add_argument("--json", action="store_true")
    with pytest.raises(UserError, match=r"--jsn.*see `trainwright show --help`") as caught:
        parser.parse_args(["--jsn"])
    assert caught.value.exit == Exit.REFUSED
