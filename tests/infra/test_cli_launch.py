"""What render warns of and launch refuses, before anything is made or sent."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


CONTAINER = "targets: {local: {container: true}}\n"
TAG = "registry.invalid/trainwright:1.0"


def test_an_image_without_a_digest_is_warned_of_by_render_and_refused_by_launch(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = str(experiment_file(CONTAINER + f"image: {TAG}\n"))
    problem = f"image={TAG}: a tag may mean another image tomorrow; push with `make push`, and use the digest it prints"
    code, out, err = said("render", path, "--target", "local")
    assert (code, err) == (0, f"warning: {problem}\n")
    assert TAG in out
    assert said("launch", path, "--target", "local") == (78, "", f"trainwright: {problem}\n")
    assert not (tmp_path / "workspace").exists()
    digest = f"image=registry.invalid/trainwright@sha256:{'0' * 64}"
    assert said("render", path, "--target", "local", digest)[2] == ""


def test_a_container_without_an_image_is_refused_with_a_way_out(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path]
) -> None:
    for word in ("render", "launch"):
        code, out, err = said(word, str(experiment_file(CONTAINER)), "--target", "local")
        assert (code, out) == (78, "")
        assert err.startswith("trainwright: image: this target runs the image, and none is named; `make push`")


def test_a_value_in_the_place_of_a_secrets_name_is_refused_and_not_repeated(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path]
) -> None:
    value = "hf_planted0value"
    for text in (
        f"[{value}]",
        f"[HF_TOKEN={value}]",
        f"{{HF_TOKEN: {value}}}",
        f"[{value * 20}]",
        f"[[{value}]]",
        value,
    ):
        for word in (["show"], ["render", "--target", "local"], ["launch", "--target", "local"]):
            code, out, err = said(*word, str(experiment_file(f"secrets: {text}\n")))
            assert (code, out) == (78, ""), text
            assert value not in err
            assert "secrets" in err


def test_the_laptops_boot_variables_rename_the_job_and_its_files_alike(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = f"image: registry.invalid/trainwright@sha256:{'0' * 64}\n"
    path = str(experiment_file(CONTAINER + image))
    monkeypatch.setenv("RUN_EXPERIMENT", "renamed")
    monkeypatch.setenv("SHARD_LINES", "77")
    code, out, _ = said("render", path, "--target", "local")
    assert code == 0
    document = yaml.safe_load(out.split("# --- renamed.yaml\n")[0])
    service = document["services"]["run"]
    assert (document["name"], service["container_name"]) == ("trainwright-renamed", "trainwright-renamed")
    assert service["command"] == ["boot", "/experiment/renamed.yaml"]
    assert service["volumes"][1]["source"] == "./renamed.yaml"
    assert service["environment"] == {"RUN_EXPERIMENT": "renamed", "RUN_SHARD": "1", "SHARD_LINES": "77"}


def test_a_site_that_is_not_there_is_refused_by_show(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path]
) -> None:
    path = str(experiment_file())
    for word in (["show"], ["render", "--target", "local"]):
        code, out, err = said(*word, path, "targets.local.site=mars")
        assert (code, out) == (78, "")
        assert err == "trainwright: targets.local.site=mars: no such site in experiments/sites; sites here: none\n"


def test_an_experiment_named_like_a_flag_is_found_behind_its_folder(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path], tmp_path: Path
) -> None:
    experiment_file().rename(tmp_path / "--json.yaml")
    assert said("show", "./--json.yaml")[0] == 0
    assert said("show", "--json.yaml")[0] == 78
    assert "Traceback" not in said("render", "--", "--json.yaml", "--target", "local")[2]
