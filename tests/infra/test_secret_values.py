from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from infra.secret_values import secret_values
from trainwright.spec.exits import Exit, MissingError, UserError

VALUE = "planted-value"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.touch(mode=0o600)
    return path


def test_the_environment_goes_before_the_file(env_file: Path) -> None:
    env_file.write_text("A=file\nB=file\n")
    assert secret_values(["A", "B"], {"A": "environment", "B": ""}, env_file) == {"A": "environment", "B": "file"}


def test_only_what_is_named_is_taken(env_file: Path) -> None:
    env_file.write_text("A=1\nB=2\n")
    assert secret_values(["B"], {"C": "3"}, env_file) == {"B": "2"}
    assert secret_values([], {}, env_file) == {}


def test_a_file_that_is_not_needed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff")
    (tmp_path / ".env").chmod(0o644)
    assert secret_values(["A"], {"A": "1"}, tmp_path / ".env") == {"A": "1"}


def test_all_that_is_missing_is_told_at_once_and_no_value_with_it(env_file: Path) -> None:
    env_file.write_text(f"A=\nB={VALUE}\n")
    with pytest.raises(MissingError) as caught:
        secret_values(["A", "B", "C", "D"], {"D": VALUE}, env_file)
    way = "add NAME=value there, or set it in the environment"
    assert str(caught.value) == f"{env_file}: no value for A, C; {way}"
    assert caught.value.exit == Exit.MISSING


def test_without_a_file_the_same_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no value for A"):
        secret_values(["A"], {}, tmp_path / ".env")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_may_read_is_refused(env_file: Path, mode: int) -> None:
    env_file.write_text(f"A={VALUE}\n")
    env_file.chmod(mode)
    with pytest.raises(UserError) as caught:
        secret_values(["A"], {}, env_file)
    assert str(caught.value) == f"{env_file}: others may read it (mode {mode:04o}); run chmod 600 {env_file}"


def test_a_file_that_is_no_text_is_refused_without_its_bytes(env_file: Path) -> None:
    env_file.write_bytes(b"A=abc\xff\n")
    with pytest.raises(UserError) as caught:
        secret_values(["A"], {}, env_file)
    assert str(caught.value) == f"{env_file}: byte 5 is not UTF-8; save the file as UTF-8"


WRITTEN = {
    "A=plain": "plain",
    "export A=exported": "exported",
    "# A=comment\nA=after": "after",
    "A='single $HOME \"x\"'": 'single $HOME "x"',
    'A="two\\nlines"': "two\nlines",
    "A=$HOME/${HOME}": "$HOME/${HOME}",
    "A = spaced  ": "spaced",
    "A=trailing # comment": "trailing",
    "A=hash#inside": "hash#inside",
    "A=eq=ual": "eq=ual",
    "A=first\nA=last": "last",
    "A=with\r\nB=2\r\n": "with",
}


@pytest.mark.parametrize("text", WRITTEN)
def test_the_file_is_read_as_people_write_it_and_nothing_is_expanded(env_file: Path, text: str) -> None:
    env_file.write_bytes(text.encode())
    assert secret_values(["A"], {}, env_file) == {"A": WRITTEN[text]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="\0\r'\\", exclude_categories=["Cs"]), min_size=1))
def test_any_value_in_single_quotes_arrives(env_file: Path, value: str) -> None:
    env_file.write_text(f"A='{value}'\n", encoding="utf-8")
    assert secret_values(["A"], {}, env_file) == {"A": value}
