import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.shell import command_line

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def test_simple_words_stay_readable() -> None:
    assert command_line(["boot", "demo.yaml", "train.steps=100"]) == "boot demo.yaml train.steps=100"


@settings(max_examples=12)
@given(st.lists(words, min_size=1, max_size=6))
def test_every_word_arrives_as_it_is(given_words: list[str]) -> None:
    program = "import sys; sys.stdout.write(ascii(sys.argv[1:]))"
    line = command_line([sys.executable, "-I", "-S", "-X", "utf8", "-c", program, *given_words])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == ascii(given_words)
