from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from infra.job import Job, build_job, movable_image
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment

DIGEST = f"registry.invalid/trainwright@sha256:{'0' * 64}"


@pytest.fixture
def job(experiment_file: Callable[..., Path]) -> Job:
    return build_job(load_experiment(experiment_file(), (), {}))


def test_a_job_carries_what_its_author_wrote_and_what_was_added(experiment_file: Callable[..., Path]) -> None:
    path = experiment_file("# a comment\nresources: {nodes: 2}\nsecrets: [HF_TOKEN]\nregistry: mine\n")
    overrides = ("train.steps=20", "resources.ranks_per_node=2")
    job = build_job(load_experiment(path, overrides, {}), ["--fresh"])
    assert job.experiment_text == path.read_text()
    assert (job.name, job.resources.nodes, job.resources.ranks_per_node) == ("small", 2, 2)
    assert (job.image, job.registry, job.secrets) == (None, "mine", ("HF_TOKEN",))
    assert job.experiment_file == "small.yaml"
    assert job.boot_arguments("/in/the/image.yaml") == ("boot", "/in/the/image.yaml", *overrides, "--fresh")


def test_the_same_experiment_gives_the_same_job(experiment_file: Callable[..., Path]) -> None:
    path = experiment_file()
    assert build_job(load_experiment(path, (), {})) == build_job(load_experiment(path, (), {}))


def test_the_boot_variables_travel_with_the_values_that_were_decided(experiment_file: Callable[..., Path]) -> None:
    path = experiment_file("data: {shard: false}\n")
    environ = {"RUN_EXPERIMENT": "of-the-laptop", "SHARD_LINES": "12"}
    job = build_job(load_experiment(path, ("data.documents_per_shard=3",), environ))
    travels = {"RUN_EXPERIMENT": "of-the-laptop", "RUN_SHARD": "0", "SHARD_LINES": "12"}
    assert dict(job.environ) == travels
    assert (job.name, job.experiment_file) == ("of-the-laptop", "of-the-laptop.yaml")
    # Boot, which gets them, the text and the overrides, decides the same.
    arrived = load_experiment(path, job.overrides, dict(job.environ)).experiment
    assert arrived == load_experiment(path, ("data.documents_per_shard=3",), environ).experiment


def test_a_target_that_needs_an_image_refuses_a_job_without_one(job: Job) -> None:
    with pytest.raises(UserError, match=r"^image: .*`make push`"):
        job.needed_image()
    assert replace(job, image=DIGEST).needed_image() == DIGEST


def test_only_a_digest_or_an_image_of_this_machine_alone_cannot_move() -> None:
    for image in (None, DIGEST, "localhost/trainwright", "localhost/trainwright:cpu"):
        assert movable_image(image) is None
    for image in ("trainwright", "registry.invalid/trainwright:1.0", "localhost.example/x:1", "registry:5000/x"):
        assert (movable_image(image) or "").startswith(f"image={image}: a tag may mean another image tomorrow")
