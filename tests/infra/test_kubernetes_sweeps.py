"""A sweep on a cluster: one Indexed Job whose indexes boot the points, each with words of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.boot.__main__ import _parser
from infra.job import Job
from infra.kubernetes.sweeps import send_sweep, sweep_files
from infra.launches import find_launch
from infra.sweep import grid
from kubernetes_cluster import CLAIM, Kubectl, claim, ended
from recorder import IMAGE, a_job
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.kubernetes import KubernetesTarget
from trainwright.spec.load import load_experiment, split_words
from trainwright.spec.targets import Targets

GOLDEN = Path(__file__).with_name("golden")


def points(number: int = 3, chosen: dict[str, Any] | None = None, **changes: Any) -> list[Job]:
    target = Targets(kubernetes=KubernetesTarget.model_validate(chosen or {}))
    words = [("train.steps=20", f"optimizer.lr={one}e-3", f"name=small-{one}") for one in range(1, number + 1)]
    fixed = {"targets": target, "secrets": (), "flags": (), **changes}
    return [a_job(name=f"small-{one}", overrides=words[one - 1], **fixed) for one in range(1, number + 1)]


def documents(jobs: list[Job], at_once: int = 2) -> dict[str, list[dict[str, Any]]]:
    return {file.path: list(yaml.safe_load_all(file.text)) for file in sweep_files(jobs, "small-sweep", at_once)}


def test_the_whole_text(golden: Callable[[Path, str], None]) -> None:
    found = sweep_files(points(), "small-sweep", 2)
    golden(GOLDEN / "kubernetes-sweep.txt", "\n".join(f"# --- {file.path}\n{file.text}" for file in found))


def test_every_point_boots_with_its_own_words(tmp_path: Path, experiment_file: Callable[..., Path]) -> None:
    path = experiment_file()
    base = load_experiment(path, ["train.steps=20"])
    tried = grid(base, ["optimizer.lr=1e-3,3e-3", "seed=1,2"])
    jobs = [a_job(name=one.name, overrides=one.words, secrets=(), flags=()) for one in tried]
    found = documents(jobs)
    (job,) = found["train.yaml"]
    spec = job["spec"]["template"]["spec"]["containers"][0]
    data = found["config.yaml"][0]["data"]
    assert job["spec"]["completions"] == len(tried)
    names = []
    for index, point in enumerate(tried):
        for file, text in data.items():
            (tmp_path / file).write_text(text)
        told = [word.replace("$(TRAINWRIGHT_INDEX)", str(index)) for word in spec["args"]]
        arguments = [word.replace("/experiment", str(tmp_path)) for word in told]
        words = _parser().parse_intermixed_args(arguments[1:]).words
        assert words[1:] == list(point.words)
        (tmp_path / "experiment.yaml").write_text(base.source)
        names.append(load_experiment(tmp_path / "experiment.yaml", split_words(words)[1]).experiment.name)
    assert names == [point.name for point in tried]
    # Boot variables are stronger than words, and would give every point the name of the first.
    assert [one["name"] for one in spec["env"]] == ["TRAINWRIGHT_INDEX", "TRAINWRIGHT_STOP_FILE"]


def test_points_are_counted_one_by_one() -> None:
    (job,) = documents(points(6), at_once=2)["train.yaml"]
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 6, 2)
    assert "backoffLimit" not in spec
    assert documents(points(2), at_once=9)["train.yaml"][0]["spec"]["parallelism"] == 2


def test_one_preparation_serves_all_points() -> None:
    (job,) = documents(points())["prepare.yaml"]
    assert job["metadata"]["name"] == "small-sweep-prepare"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][1:5] == [
        "/experiment/small-sweep.yaml",
        "train.steps=20",
        "optimizer.lr=1e-3",
        "name=small-1",
    ]


def test_a_sweep_is_sent_and_found_again_by_its_own_name(tmp_path: Path) -> None:
    def completes(kubectl: Kubectl) -> None:
        if (key := ("job", "small-sweep-prepare")) in kubectl.objects:
            kubectl.objects[key]["status"] = ended("Complete")

    kubectl = Kubectl(objects={CLAIM: claim("ReadWriteMany")}, looked=completes)
    assert send_sweep(points(), "small-sweep", tmp_path, kubectl, 2) == "job/small-sweep --namespace=trainwright"
    found = find_launch(tmp_path, "small-sweep")
    assert found is not None
    assert (found.target, sorted(kubectl.objects)[1:3]) == (
        "kubernetes",
        [("job", "small-sweep"), ("job", "small-sweep-prepare")],
    )


def test_points_that_run_at_once_need_a_volume_that_all_may_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is ReadWriteOnce, and several pods write to it at once"):
        send_sweep(points(), "small-sweep", tmp_path, Kubectl(), 2)
    kubectl = Kubectl()
    send_sweep(points(chosen={"prepare": "off"}), "small-sweep", tmp_path, kubectl, 1)
    (claimed,) = documents(points(chosen={"volume_gib": 10}))["volume.yaml"]
    assert claimed["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        (points(resources=Resources(nodes=2)), "resources.nodes=2: a point of a sweep is one pod"),
        ([a_job(overrides=("a.b=c\nd",), flags=(), secrets=())], "is more than one line"),
        ([a_job(overrides=("a.b=c\u2028d",), flags=(), secrets=())], "is more than one line"),
        (points(image="x/y:1"), "a tag may mean another image tomorrow"),
    ],
)
def test_what_a_sweep_cannot_pass_on_is_refused(tmp_path: Path, jobs: list[Job], words: str) -> None:
    with pytest.raises(UserError, match=words):
        send_sweep(jobs, "small-sweep", tmp_path, Kubectl(), 1)


def test_a_name_that_leaves_no_room_for_the_number_of_points_is_refused() -> None:
    with pytest.raises(UserError, match=r"with 12 points its last pod would be called a+-sweep-11, 64 characters"):
        sweep_files(points(12), f"{'a' * 55}-sweep", 2)


def test_the_image_of_all_points_is_one() -> None:
    (job,) = documents(points())["train.yaml"]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
