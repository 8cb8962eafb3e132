"""Errors become one line and the right exit code."""

from collections.abc import Callable
import errno
import sys

import pytest

from trainwright.spec.exits import Exit, Interrupted, MissingError, UserError, describe_os_error, guarded


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


def test_the_codes_are_those_that_schedulers_were_told() -> None:
    assert {code.name: code.value for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "MISSING": 69,
        "INTERRUPTED": 75,
        "REFUSED": 78,
    }


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a=1: wrong; try 2"), 78, "tool: a=1: wrong; try 2"),
        (MissingError("/data: not mounted"), 69, "tool: /data: not mounted"),
        (Interrupted("step 8 is saved"), 75, "tool: interrupted: step 8 is saved"),
        (Interrupted(), 75, "tool: interrupted"),
        (KeyboardInterrupt(), 75, "tool: interrupted"),
        (OSError(errno.EACCES, "Permission denied", "/runs/x"), 1, "tool: /runs/x: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/x"),
            1,
            "tool: /runs/x: No space left on device; free some space, then run the same command again",
        ),
        (OSError("odd"), 1, "tool: odd"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_its_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded("tool", raising(error)) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{line}\n")


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded("tool", raising(ZeroDivisionError()))


def test_the_code_of_a_sound_end_passes_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("tool", lambda: 3) == 3
    assert capsys.readouterr().err == ""


def test_an_operating_system_error_names_its_file() -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        open("/nowhere/at/all")  # noqa: SIM115 - there is no file to close
    assert describe_os_error(caught.value) == "/nowhere/at/all: No such file or directory"


def test_codes_reach_the_parent_process() -> None:
    import subprocess

    program = "import sys; from trainwright.spec.exits import *; sys.exit(guarded('t', lambda: exec(sys.argv[1])))"
    for words, code in (("raise UserError('x')", 78), ("raise MissingError('x')", 69), ("raise Interrupted", 75)):
        done = subprocess.run([sys.executable, "-c", program, words], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
