"""`fetch` and `check` as their users see them; what each asset is, tests/trainwright/test_store_assets.py holds."""

from collections.abc import Callable
import os
from pathlib import Path
import socket
import subprocess
import sys

import pytest

from infra.assets import _refuse_other_host  # the host's own name cannot be chosen
from infra.download import Download
from trainwright.spec.exits import MissingError
from trainwright.spec.load import load_experiment
from trainwright.store.assets import GPT2_FILES

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


def test_check_names_what_is_missing_and_ends_with_69(
    said: Said, root: Path, experiment_file: Callable[..., Path]
) -> None:
    code, out, _ = said("check", str(experiment_file()), "tokenizer.kind=gpt2")
    assert code == 69
    name = GPT2_FILES["vocab.bpe"].path
    assert f"tokenizer: gpt2 vocab.bpe (456,318 bytes): {root}/assets/tiktoken/{name}: missing" in out
    assert out.endswith("0 in place, 2 missing\n")


def test_check_of_what_needs_nothing_is_content(said: Said, root: Path, experiment_file: Callable[..., Path]) -> None:
    del root
    assert said("check", str(experiment_file()))[:2] == (0, "0 in place, 0 missing\n")


def test_fetch_takes_over_the_cache_of_another_project_and_only_the_same_files(
    said: Said, root: Path, experiment_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from trainwright.store.files import FileEntry

    monkeypatch.setattr("infra.assets.download_all", lambda _: ["no network here"])
    files = {what: FileEntry(e.path, 5, hashlib.sha256(b"image").hexdigest()) for what, e in GPT2_FILES.items()}
    monkeypatch.setattr("trainwright.store.assets.GPT2_FILES", files)
    cache = tmp_path / "home/tiktoken_cache"
    cache.mkdir(parents=True)
    (cache / files["vocab.bpe"].path).write_bytes(b"image")
    (cache / files["encoder.json"].path).write_bytes(b"other")
    code, out, _ = said("fetch", str(experiment_file()), "tokenizer.kind=gpt2")
    assert code == 69
    assert "no network here" in out
    assert out.endswith("1 in place, 1 missing\n")
    assert [path.name for path in (root / "assets/tiktoken").iterdir()] == [files["vocab.bpe"].path]


def test_fetch_brings_what_a_trained_tokenizer_is_compared_with_and_does_not_need_it(
    said: Said, root: Path, experiment_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Download] = []
    monkeypatch.setattr("infra.assets.download_all", lambda files: asked.extend(files) or ["no network here"])
    code, out, _ = said("fetch", str(experiment_file()), "tokenizer.kind=bpe")
    assert (code, out) == (0, "no network here\n0 in place, 0 missing\n")
    assert [download.path.parent for download in asked] == [root / "assets" / "tiktoken"] * 3


def test_a_host_without_internet_names_those_that_have_it(experiment_file: Callable[..., Path]) -> None:
    words = ["targets.slurm.fetch_hosts=ptolemy-devel-*", "targets.slurm.site=ptolemy"]
    loaded = load_experiment(experiment_file(), words)
    with pytest.raises(MissingError, match=r"^ptolemy-login-1: is no host of ptolemy .* on ptolemy-devel-\*$"):
        _refuse_other_host(loaded, "ptolemy-login-1")
    _refuse_other_host(loaded, "ptolemy-devel-2.arc.msstate.edu")


def test_fetch_on_the_wrong_host_brings_nothing(said: Said, root: Path, experiment_file: Callable[..., Path]) -> None:
    words = ["targets.slurm.fetch_hosts=elsewhere*", "tokenizer.kind=gpt2"]
    code, _, err = said("fetch", str(experiment_file()), "--target", "slurm", *words)
    assert (code, f"{socket.gethostname()}: is no host of" in err) == (69, True)
    assert not root.exists()


def test_a_boot_without_internet_names_what_is_missing_in_seconds(
    root: Path, experiment_file: Callable[..., Path]
) -> None:
    words = [str(experiment_file()), "resources.device=cpu", "tokenizer.kind=gpt2"]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "infra.boot", *words]
    done = subprocess.run(
        command, env=environ, cwd=root.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 69
    assert "run `trainwright fetch small` on a host with internet" in done.stderr
    assert "stage=shard start" not in done.stderr
