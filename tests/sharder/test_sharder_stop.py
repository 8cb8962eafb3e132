import signal
import subprocess
import sys

import pytest

from made_corpus import REPOSITORY
from sharder.stop import SIGNALS

SWALLOWED = """
import sys, time
from sharder.stop import check, obey_signals
from trainwright.spec.exits import guarded

def main():
    obey_signals()
    print("ready", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
        check()

sys.exit(guarded("test", main))
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_request_is_heard_even_when_a_library_swallows_it(number: signal.Signals) -> None:
    words = [sys.executable, "-c", SWALLOWED]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=REPOSITORY, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=90)
    assert process.returncode == 75
    assert err == f"test: interrupted: {number.name}\n"


IN_EXEC = """
import os, signal, sys
from sharder.stop import obey_signals, over
from trainwright.spec.exits import guarded

def main():
    obey_signals()
    exec("os.kill(os.getpid(), signal.SIGTERM)")

def late():
    obey_signals()
    over()
    os.kill(os.getpid(), signal.SIGTERM)
    return 3

sys.exit(guarded("test", late if sys.argv[1:] else main))
"""


@pytest.mark.parametrize(("words", "code"), [([], 75), (["late"], 3)])
def test_a_request_gives_the_exit_code_wherever_it_is_heard(words: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", IN_EXEC, *words], cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == code
