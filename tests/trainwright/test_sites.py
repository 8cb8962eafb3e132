"""Sites are a layer below the experiment; whatever is wrong with one is told with its file and line."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment, parse, read_source
from trainwright.spec.sites import site_values

TREE = {"targets": {"slurm": {"site": "here"}}}
PROFILE = "slurm:\n  partition: gpu\n  limits: {hours: 24}\n"


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    folder = tmp_path / "sites"
    folder.mkdir()
    (folder / "here.yaml").write_text(PROFILE)
    (folder / "there.yaml").write_text("kubernetes: {queue: q}\n")
    return folder


def values(folder: Path, tree: Mapping[str, Any] = TREE) -> list[tuple[str, Any, str]]:
    return list(site_values(tree, folder, lambda path: parse(read_source(path), str(path))))


def test_a_site_gives_every_value_with_its_file_and_line(sites: Path) -> None:
    assert values(sites) == [
        ("targets.slurm.partition", "gpu", f"{sites}/here.yaml:2"),
        ("targets.slurm.limits.hours", "24", f"{sites}/here.yaml:3"),
    ]


def test_a_users_own_values_come_before_those_of_the_profile(sites: Path) -> None:
    (sites / "local.yaml").write_text("there: {account: x}\nhere:\n  partition: mine\n")
    assert values(sites)[:2] == [
        ("targets.slurm.partition", "mine", f"{sites}/local.yaml:3"),
        ("targets.slurm.partition", "gpu", f"{sites}/here.yaml:2"),
    ]


@pytest.mark.parametrize(
    "tree", [{}, {"targets": "x"}, {"targets": {"slurm": "x"}}, {"targets": {"slurm": {"site": ""}}}]
)
def test_without_a_site_no_file_is_read(tmp_path: Path, tree: dict[str, Any]) -> None:
    assert values(tmp_path / "nowhere", tree) == []


@pytest.mark.parametrize("name", ["nowhere", "local", "../here", "HERE"])
def test_a_site_that_is_not_there_is_refused_with_those_that_are(sites: Path, name: str) -> None:
    (sites / "local.yaml").write_text("here: {account: x}\n")
    with pytest.raises(UserError) as caught:
        values(sites, {"targets": {"slurm": {"site": name}}})
    assert str(caught.value) == f"targets.slurm.site={name}: no such site in {sites}; sites here: here, there"


def test_a_folder_without_sites_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"; sites here: none$"):
        values(tmp_path)


def test_a_site_of_another_target_is_refused(sites: Path) -> None:
    with pytest.raises(UserError, match=r"there.yaml: has no block `slurm:`; this site is not for that target$"):
        values(sites, {"targets": {"slurm": {"site": "there"}}})


WRONG = {
    "here: [\n": "local.yaml:2: not valid YAML",
    "here: 3\n": "local.yaml:1: here must be a block of keys",
    "\nher: {account: x}\n": "local.yaml:2: her: no such site; sites here: here, there",
    "here: {a: 1}\nhere: {a: 2}\n": "local.yaml:2: here is given twice",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_in_a_users_own_file_is_told_with_file_and_line(sites: Path, text: str) -> None:
    (sites / "local.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        values(sites)
    assert str(caught.value).startswith(f"{sites}/{WRONG[text]}")


def test_a_misspelt_setting_of_a_site_is_told_with_the_sites_file_and_line(
    sites: Path, experiment_file: Callable[..., Path]
) -> None:
    (sites / "here.yaml").write_text("local:\n  containr: true\n")
    (sites / "local.yaml").write_text("# mine\nhere:\n  container: perhaps\n")
    path = experiment_file("targets: {local: {site: here}}\n")
    with pytest.raises(UserError) as caught:
        load_experiment(path, (), {}, sites)
    lines = str(caught.value).splitlines()
    assert f"  targets.local.container=perhaps: expected true or false ({sites}/local.yaml:3)" in lines
    assert (
        f"  targets.local.containr: unknown key; did you mean targets.local.container? ({sites}/here.yaml:2)" in lines
    )


def test_what_the_experiment_and_the_command_line_say_goes_before_the_site(
    sites: Path, experiment_file: Callable[..., Path]
) -> None:
    (sites / "here.yaml").write_text("local: {container: perhaps, site: other}\n")
    path = experiment_file("targets: {local: {site: here}}\n")
    with pytest.raises(UserError) as caught:
        load_experiment(path, ("targets.local.container=true",), {}, sites)
    # Only `site` itself is left to complain about: this target has none.
    assert "container" not in str(caught.value).replace("known here: container", "")


def test_boot_reads_no_sites(experiment_file: Callable[..., Path], sites: Path) -> None:
    (sites / "here.yaml").write_text("local: [\n")
    with pytest.raises(UserError, match=r"targets.local.site: unknown key"):
        load_experiment(experiment_file("targets: {local: {site: here}}\n"), (), {})
