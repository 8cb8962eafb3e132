"""The image as an Apptainer file: converted without root, run with nothing of the host but what is bound."""

import hashlib
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import time

import pytest

from infra.apptainer import Container
from machine import Sif

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHORT = ("train.steps=24", "evaluation.every_steps=12", "checkpoint.dump.every_steps=8", "logging.num_samples=1")
SMALL = ("model.dim=48", "model.num_layers=1", "model.num_heads=3", "model.num_kv_heads=3", "tokenizer.vocab_size=512")
WORDS = ("boot", "demo", *SMALL, *SHORT, "checkpoint.dump.keep=9")
FLAGS = ("--no-privs",)
"""This machine's root lacks a capability that Apptainer wants; a site's users need no such flag."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a root volume and scratch, below a folder that the other root sees too."""
    folder = tmp_path_factory.mktemp("sif")
    (folder / "root").mkdir()
    (folder / "scratch").mkdir()
    return folder


def words_of(sif: Sif, place: Path, *words: str) -> list[str]:
    """Return the one recipe's arguments, as a target renders them."""
    container = Container(str(sif.path), root=str(place / "root"), scratch=str(place / "scratch"), flags=FLAGS)
    return container.arguments(list(words), program=sif.apptainer)


def steps(place: Path) -> list[int]:
    path = place / "root/runs/demo/metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [row["step"] for line in text.splitlines() if "loss" in (row := json.loads(line))]


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def test_its_hash_lies_beside_it(sif: Sif) -> None:
    recorded = sif.path.with_name(f"{sif.path.name}.sha256").read_text().split()
    with sif.path.open("rb") as file:
        assert recorded == [hashlib.file_digest(file, "sha256").hexdigest(), sif.path.name]


def test_a_run_that_is_stopped_by_sigterm_is_finished_by_the_next_start(sif: Sif, place: Path) -> None:
    command = words_of(sif, place, *WORDS)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        limit = time.monotonic() + 200
        while len(steps(place)) < 3 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        text = process.communicate(timeout=120)[0]
    assert process.returncode == 75, text
    saved = max(int(path.name[5:]) for path in (place / "root/runs/demo/checkpoints").glob("step_*"))
    done = run(command)
    assert done.returncode == 0, done.stdout
    assert f"resume: from step_{saved:08d}" in done.stdout
    assert steps(place) == list(range(1, 25))


def test_run_works_as_typed(sif: Sif, place: Path) -> None:
    shutil.rmtree(place / "root/runs", ignore_errors=True)
    binds = ["--bind", f"{place / 'root'}:/workspace", "--bind", f"{place / 'scratch'}:/tmp"]
    words = ("boot", "demo", *SMALL, *SHORT, "--until", "tokenizer")
    done = run([sif.apptainer, "run", *FLAGS, "--containall", *binds, str(sif.path), *words])
    assert done.returncode == 0, done.stdout
    assert "stage=tokenizer done" in done.stdout


def test_nothing_of_the_hosts_environment_comes_in(sif: Sif, place: Path) -> None:
    command = words_of(sif, place, "show", "demo")
    environ = {**os.environ, "RUN_EXPERIMENT": "another", "SHARD_LINES": "7"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "another" not in done.stdout
