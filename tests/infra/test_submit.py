from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.job import Job, Rendered
from infra.submit import stale, submit, write_rendered
from infra.targets import TARGETS, Target

JOB = Job("small", "name: small\n", ("train.steps=20",), (), nodes=1, ranks_per_node=1)


def files_in(folder: Path) -> list[Rendered]:
    return sorted(
        (Rendered(path.name, path.read_text()) for path in folder.iterdir()), key=lambda rendered: rendered.path
    )


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_submit_sends_exactly_what_render_shows(tmp_path: Path, name: str) -> None:
    target, commands = TARGETS[name], []

    def run(command: Sequence[str]) -> int:
        commands.append(command)
        return 42

    assert submit(target, JOB, tmp_path, run) == 42
    assert files_in(tmp_path) == sorted(target.render(JOB), key=lambda rendered: rendered.path)
    assert commands == [target.start(tmp_path, JOB)]


def test_submit_really_starts_the_command_with_this_installation_first_on_the_path(tmp_path: Path) -> None:
    program = "command -v trainwright > found; exit 7"
    target = Target(lambda _: (), lambda folder, _: ["bash", "-c", f"cd {folder} && {program}"])
    assert submit(target, JOB, tmp_path) == 7
    assert Path((tmp_path / "found").read_text().strip()).is_file()


def test_what_was_rendered_is_up_to_date_until_a_byte_differs(tmp_path: Path) -> None:
    files = (Rendered("a.sh", "one\n"), Rendered("b.yaml", "two\n"))
    assert stale(files, tmp_path / "nowhere") == ["a.sh", "b.yaml"]
    write_rendered(files, tmp_path)
    assert stale(files, tmp_path) == []
    (tmp_path / "b.yaml").write_text("two")
    assert stale(files, tmp_path) == ["b.yaml"]
