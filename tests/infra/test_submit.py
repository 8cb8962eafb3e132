from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.engine import Answer, Engine
from infra.job import Job, Rendered
from infra.launches import Launch, State, find_launch, launch_folder
from infra.submit import stale, submit, write_rendered
from infra.targets import TARGETS, Target
from recorder import IN_CONTAINER, Recorder, a_job
from trainwright.spec.exits import UserError

JOB = a_job()


def files_in(folder: Path) -> list[Rendered]:
    found = [path for path in folder.iterdir() if path.name != "launch.json"]
    return sorted((Rendered(path.name, path.read_text()) for path in found), key=lambda rendered: rendered.path)


@pytest.mark.parametrize("job", [JOB, a_job(targets=IN_CONTAINER)], ids=["script", "container"])
def test_submit_sends_exactly_what_render_shows(tmp_path: Path, job: Job) -> None:
    engine = Recorder(programs=("docker",), answers=lambda word: Answer("inspect" in word, "", "no such container"))
    launch = submit("local", job, tmp_path, engine)
    folder = launch_folder(tmp_path, "small")
    assert files_in(folder) == sorted(TARGETS["local"].render(job), key=lambda rendered: rendered.path)
    assert str(folder / TARGETS["local"].render(job)[0].path) in engine.commands[-1]
    assert find_launch(tmp_path, "small") == launch
    assert launch.id == ("trainwright-small" if job.targets.local.container else "4242")


def test_a_run_whose_launch_lives_is_not_launched_again(tmp_path: Path) -> None:
    job, answers = a_job(targets=IN_CONTAINER), {"up": Answer(0, "", ""), "inspect": Answer(1, "", "no such container")}
    engine = Recorder(programs=("docker",), answers=lambda word: answers["inspect" if "inspect" in word else "up"])
    first = submit("local", job, tmp_path, engine)
    answers["inspect"] = Answer(0, "running 0\n", "")
    before = first.record.read_bytes()
    with pytest.raises(UserError) as caught:
        submit("local", a_job(targets=IN_CONTAINER, overrides=()), tmp_path, engine)
    assert str(caught.value) == (
        "small: is running on target local (trainwright-small); "
        "follow it with `trainwright logs small -f`, or stop it first"
    )
    assert first.record.read_bytes() == before
    assert files_in(first.path) == sorted(TARGETS["local"].render(job), key=lambda rendered: rendered.path)
    answers["inspect"] = Answer(0, "exited 75\n", "")
    assert submit("local", job, tmp_path, engine).time >= first.time


@pytest.mark.parametrize(
    ("changes", "run"),
    [
        ({}, "ROOT/runs/small"),
        ({"runs": "/scratch/runs"}, "/scratch/runs/small"),
        ({"targets": IN_CONTAINER}, "ROOT/runs/small"),
        ({"targets": IN_CONTAINER, "runs": "/workspace/elsewhere"}, ""),
    ],
)
def test_a_launch_says_where_its_run_folder_will_be_seen(tmp_path: Path, changes: dict[str, Any], run: str) -> None:
    engine = Recorder(programs=("docker",), answers=lambda word: Answer("inspect" in word, "", "no such container"))
    assert submit("local", a_job(**changes), tmp_path, engine).run == run.replace("ROOT", str(tmp_path))


def test_an_image_that_may_move_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a tag may mean another image tomorrow"):
        submit("local", a_job(targets=IN_CONTAINER, image="registry.invalid/x:1"), tmp_path / "root", Recorder())
    assert not (tmp_path / "root").exists()


def test_what_cannot_be_started_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(job: Job, folder: Path, engine: Engine) -> str:
        del job, folder, engine
        raise UserError("no")

    of_local = TARGETS["local"]
    broken = SimpleNamespace(render=of_local.render, image_of=of_local.image_of, send=send, state=never)
    monkeypatch.setitem(TARGETS, "local", cast("Target", broken))
    with pytest.raises(UserError, match=r"^no$"):
        submit("local", JOB, tmp_path, Recorder())
    assert find_launch(tmp_path, "small") is None


def never(launch: Launch, engine: Engine) -> State:
    raise AssertionError((launch, engine))


def test_what_was_rendered_is_up_to_date_until_a_byte_differs(tmp_path: Path) -> None:
    files = (Rendered("a.sh", "one\n"), Rendered("b.yaml", "two\n"))
    assert stale(files, tmp_path / "nowhere") == ["a.sh", "b.yaml"]
    write_rendered(files, tmp_path)
    assert stale(files, tmp_path) == []
    for other in (b"two", b"two\r\n", b"\xff", b""):
        (tmp_path / "b.yaml").write_bytes(other)
        assert stale(files, tmp_path) == ["b.yaml"]
    (tmp_path / "a.sh").unlink()
    (tmp_path / "a.sh").mkdir()
    assert stale(files, tmp_path) == ["a.sh", "b.yaml"]


def test_files_may_lie_in_folders(tmp_path: Path) -> None:
    write_rendered([Rendered("base/a.yaml", "x\n")], tmp_path / "new")
    assert (tmp_path / "new" / "base" / "a.yaml").read_text() == "x\n"
