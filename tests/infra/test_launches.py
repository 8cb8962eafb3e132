from pathlib import Path

import pytest

from infra.launches import find_launch, launch_folder, launched, record
from trainwright.spec.exits import UserError


def test_a_launch_that_was_written_down_is_found_again(tmp_path: Path) -> None:
    folder = launch_folder(tmp_path, "small")
    written = record("small", "local", "4242", folder)
    assert find_launch(tmp_path, "small") == written
    assert (written.path, written.record) == (folder, folder / "launch.json")


def test_a_launch_of_before_run_folders_were_written_down_is_found(tmp_path: Path) -> None:
    path = launch_folder(tmp_path, "small") / "launch.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "small", "target": "local", "id": "4242", "folder": "/x", "time": 1}')
    found = find_launch(tmp_path, "small")
    assert found is not None
    assert (found.id, found.run) == ("4242", "")


def test_the_newest_launch_of_a_run_is_the_one_that_counts(tmp_path: Path) -> None:
    record("small", "local", "1", launch_folder(tmp_path, "small"))
    newest = record("small", "local", "2", launch_folder(tmp_path, "small"))
    assert find_launch(tmp_path, "small") == newest


def test_a_run_that_was_never_launched_has_no_launch(tmp_path: Path) -> None:
    assert find_launch(tmp_path, "small") is None
    launch_folder(tmp_path, "small").mkdir(parents=True)
    assert find_launch(tmp_path, "small") is None
    launch_folder(tmp_path, "file").touch()
    assert find_launch(tmp_path, "file") is None
    assert launched(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '"x"', "\0", '{"name": "small"}'),
        '{"name": "small", "target": "local", "id": 4242, "folder": "/x", "time": 1}',
        '{"name": "small", "target": ["local"], "id": "4242", "folder": "/x", "time": 1}',
        '{"name": "other", "target": "local", "id": "4242", "folder": "/x", "time": 1}',
        '{"name": "small", "target": "local", "id": "4242", "folder": "/x", "time": 1, "more": 2}',
    ],
)
def test_a_record_that_is_none_is_refused_by_name_with_a_way_out(tmp_path: Path, text: str) -> None:
    path = launch_folder(tmp_path, "small") / "launch.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        find_launch(tmp_path, "small")
    assert str(caught.value) == f"{path}: is no launch record; remove that folder"


def test_every_launch_is_listed_by_name_whatever_its_record_says(tmp_path: Path) -> None:
    for name in ("b", "a"):
        record(name, "local", "1", launch_folder(tmp_path, name))
    (launch_folder(tmp_path, "broken")).mkdir()
    (launch_folder(tmp_path, "broken") / "launch.json").write_text("{")
    assert launched(tmp_path) == ["a", "b", "broken"]
