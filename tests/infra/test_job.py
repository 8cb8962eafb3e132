from collections.abc import Callable
from pathlib import Path

from infra.job import build_job
from trainwright.spec.load import load_experiment


def test_a_job_carries_what_its_author_wrote_and_what_was_added(experiment_file: Callable[..., Path]) -> None:
    path = experiment_file("# a comment\nresources: {nodes: 2}\n")
    overrides = ("train.steps=20", "resources.ranks_per_node=2")
    job = build_job(load_experiment(path, overrides, {}), ["--fresh"])
    assert job.experiment_text == path.read_text()
    assert (job.name, job.nodes, job.ranks_per_node) == ("small", 2, 2)
    assert job.experiment_file == "small.yaml"
    assert job.boot_arguments("/in/the/image.yaml") == ("boot", "/in/the/image.yaml", *overrides, "--fresh")


def test_the_same_experiment_gives_the_same_job(experiment_file: Callable[..., Path]) -> None:
    path = experiment_file()
    assert build_job(load_experiment(path, (), {})) == build_job(load_experiment(path, (), {}))
