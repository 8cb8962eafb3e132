from pathlib import Path
import tempfile

import pytest

from infra.boot.environment import person, room_folders, scratch
from trainwright.spec.exits import MissingError
from trainwright.spec.load import validate
from trainwright.spec.paths import Places

NOBODY = 54321


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_user_that_the_system_does_not_know_gets_a_name_and_a_home_in_scratch(temporary: Path) -> None:
    found = person({}, NOBODY)
    assert found == {"HOME": str(temporary / f"home-{NOBODY}"), "USER": "user54321", "LOGNAME": "user54321"}
    assert (temporary / f"home-{NOBODY}").stat().st_mode & 0o777 == 0o700
    assert person({}, NOBODY) == found


@pytest.mark.parametrize("home", ["/", "/nonexistent", ""])
def test_a_home_of_no_use_is_replaced(temporary: Path, home: str) -> None:
    assert person({"HOME": home, "USER": "a", "LOGNAME": "a"}, NOBODY) == {"HOME": str(temporary / f"home-{NOBODY}")}


def test_what_is_there_stays(temporary: Path) -> None:
    assert person({"HOME": str(temporary), "USER": "a", "LOGNAME": "a"}, NOBODY) == {}


def test_no_scratch_is_said_with_its_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(MissingError, match="mount a tmpfs"):
        scratch()


def test_caches_lie_in_the_root_unless_they_are_set() -> None:
    experiment = validate({"name": "small", "train": {"steps": "1", "global_batch_sequences": "8"}}, "here")
    places = Places(Path("/root-volume"), experiment)
    found = room_folders(places, {"TRITON_CACHE_DIR": "/mine"})
    assert found["TRITON_CACHE_DIR"] == "/mine"
    rest = {name: value for name, value in found.items() if name != "TRITON_CACHE_DIR"}
    assert all(value.startswith("/root-volume") for value in rest.values())
    assert {"HF_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"} <= set(found)
