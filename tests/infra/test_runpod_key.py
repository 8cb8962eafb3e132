"""The key comes from the environment or from the file that RunPod's own programs write, and is never shown."""

from pathlib import Path

import pytest

from infra.runpod.key import Key, find_key
from trainwright.spec.exits import MissingError, UserError

WAYS = {
    "python": '[default]\napi_key = "rpa_file"\n',
    "go": 'apikey = "rpa_file"\napiurl = "https://api.runpod.io/graphql"\n',
}


@pytest.mark.parametrize("way", WAYS)
def test_the_file_of_either_program_is_read(way: str, tmp_path: Path) -> None:
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod/config.toml").write_text(WAYS[way])
    assert find_key({}, tmp_path).value == "rpa_file"
    assert find_key({"RUNPOD_API_KEY": "rpa_env"}, tmp_path) == Key("rpa_env", "RUNPOD_API_KEY")


@pytest.mark.parametrize("text", [None, "", "[default]\n", "[default]\napi_key = 3\n"])
def test_no_key_names_both_places(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / ".runpod").mkdir()
        (tmp_path / ".runpod/config.toml").write_text(text)
    with pytest.raises(MissingError, match=r"RUNPOD_API_KEY: is not set, and .*\.runpod/config\.toml holds no api_key"):
        find_key({}, tmp_path)


def test_a_broken_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod/config.toml").write_text("api_key = rpa")
    with pytest.raises(UserError, match="is not valid TOML"):
        find_key({}, tmp_path)


def test_a_key_is_not_shown() -> None:
    assert repr(Key("rpa_secret", "RUNPOD_API_KEY")) == "Key(from RUNPOD_API_KEY)"
