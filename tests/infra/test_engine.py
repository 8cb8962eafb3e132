import os
from pathlib import Path
import subprocess
import sys
import time

import pytest

from infra.engine import Engine
from recorder import Recorder
from trainwright.spec.exits import MissingError

ECHO = ("bash", "-c", 'echo "$A $B"; echo complaint >&2; exit 7')


def test_an_answer_has_the_code_and_both_outputs() -> None:
    answer = Engine({"A": "one"}).given({"B": "two"}).ask(*ECHO)
    assert (answer.code, answer.out, answer.err) == (7, "one two\n", "complaint\n")


def test_what_is_given_later_wins_and_leaves_the_first_engine_alone() -> None:
    first = Engine({"A": "one", "B": "two"})
    assert first.given({"B": "three"}).ask(*ECHO).out == "one three\n"
    assert first.ask(*ECHO).out == "one two\n"


def test_an_engine_with_more_variables_stays_what_it_was() -> None:
    recorder = Recorder()
    more = recorder.given({"A": "one"})
    more.ask("x", "y z")
    assert isinstance(more, Recorder)
    assert recorder.said == [("x 'y z'", {"A": "one"})]


def test_output_that_is_no_text_is_still_an_answer() -> None:
    assert Engine().ask("printf", r"\xff.").out == "\N{REPLACEMENT CHARACTER}."


def test_a_question_of_a_program_is_not_waited_for() -> None:
    assert Engine().ask("bash", "-c", "read -r x || echo nobody").out == "nobody\n"


def test_this_installation_comes_first_on_the_path() -> None:
    found = Path(Engine().ask("bash", "-c", "command -v python").out.strip())
    assert found.parent == Path(sys.executable).parent
    assert Engine().has("python")
    assert not Engine().has("no-such-program")


@pytest.mark.parametrize("way", ["ask", "show"])
def test_a_program_that_is_not_there_is_named_with_a_way_out(way: str) -> None:
    engine = Engine()
    call = engine.ask if way == "ask" else engine.show
    with pytest.raises(MissingError, match=r"^no-such-program: not found on this machine; install it"):
        call("no-such-program", "--help")


def test_show_speaks_to_the_terminal_and_returns_the_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert Engine({"A": "one", "B": "two"}).show(*ECHO) == 7
    assert capfd.readouterr() == ("one two\n", "complaint\n")


def test_what_is_detached_has_a_session_of_its_own_and_appends_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    pid = Engine({"A": "one"}).detach(log, "bash", "-c", 'echo "$A $(tty)"; echo complaint >&2')
    assert os.waitpid(pid, 0)[1] == 0
    assert log.read_text() == "before\none not a tty\ncomplaint\n"


def test_what_is_detached_goes_on_when_whoever_started_it_is_gone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = f"from infra.engine import Engine; from pathlib import Path; import sys; \
sys.stdout.write(str(Engine().detach(Path({str(log)!r}), 'bash', '-c', 'sleep 0.4; echo done')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert os.getsid(int(done.stdout)) == int(done.stdout)
    assert log.read_text() == ""
    deadline = time.monotonic() + 20
    while log.read_text() != "done\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
