"""The real Dockerfile, built here, and run as sites run it: any user, a read-only root, no network, one volume."""

from dataclasses import dataclass
import json
from pathlib import Path
import re
import shutil
import signal
import subprocess
import time

import pytest

import machine
from machine import container, podman

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHORT = ("train.steps=24", "evaluation.every_steps=12", "checkpoint.dump.every_steps=8", "logging.num_samples=1")
SMALL = ("model.dim=48", "model.num_layers=1", "model.num_heads=3", "model.num_kv_heads=3", "tokenizer.vocab_size=512")
DEMO = ("boot", "demo", *SMALL, *SHORT, "checkpoint.dump.keep=9")
LIMITS_MB = {"sharder": 600, "trainer-cpu": 1800}
SECRET = "planted-7f3a9c-value"


@dataclass(frozen=True)
class Said:
    """How a container ended."""

    code: int
    text: str


def run(*arguments: str, limit_s: float = 300) -> Said:
    done = podman(*arguments, limit_s=limit_s)
    return Said(done.returncode, done.stdout + done.stderr)


def sentence(said: Said) -> str:
    """Return the one line of an error; the line about sshd is there always."""
    lines = [line for line in said.text.splitlines() if line.strip() and not line.startswith("sshd: ")]
    assert len(lines) >= 1, said.text
    assert "Traceback" not in said.text
    return lines[-1]


# --- what is in it ---------------------------------------------------------------------------------------------------


def size_mb(image: str) -> float:
    answer = machine.run(*machine.BUILDAH, "images", "--json", image)
    return float(podman("image", "inspect", "--format", "{{.Size}}", image).stdout) / 1e6 if answer else 0.0


@pytest.mark.parametrize("target", sorted(LIMITS_MB))
def test_the_image_keeps_its_size_over_the_base(target: str, request: pytest.FixtureRequest) -> None:
    image = request.getfixturevalue(target.replace("-", "_"))
    assert size_mb(image) - size_mb(machine.BASE) <= LIMITS_MB[target]


LIST = "find / -xdev \\( -path /proc -o -path /sys \\) -prune -o -print"


@pytest.fixture(scope="module")
def contents(trainer_cpu: str) -> list[str]:
    """Return every path in the image."""
    said = podman(*container(trainer_cpu, "-c", LIST, volume=None, uid=0, options=("--entrypoint", "/bin/sh")))
    assert said.returncode == 0, said.stderr
    return said.stdout.splitlines()


def test_the_image_holds_no_repository_no_tests_no_cache_and_no_secret(contents: list[str]) -> None:
    forbidden = (
        r"/\.git($|/)",
        r"/\.env$",
        r"/opt/trainwright/(tests|bench|docs|\.ci)(/|$)",
        r"/opt/venv/.*/tests?(/|$)",
        r"/(\.cache|pip-[^/]*cache)(/|$)",
        r"/var/lib/apt/lists/.+",
        r"ssh_host_.*key",
        r"local\.yaml$",
        r"/etc/pip\.conf$",
    )
    kept = (r"/torch/.*/testing", r"/numpy/testing")
    found = [
        path
        for path in contents
        if any(re.search(pattern, path) for pattern in forbidden)
        and not any(re.search(pattern, path) for pattern in kept)
    ]
    assert not [path for path in found if not path.endswith("/etc/pip.conf")], found[:20]


def test_the_image_carries_code_and_experiments_compiled(contents: list[str]) -> None:
    assert "/opt/trainwright/experiments/demo.yaml" in contents
    assert any(re.fullmatch(r"/opt/trainwright/infra/__pycache__/cli\..*\.pyc", path) for path in contents)
    assert any("/torch/__pycache__/__init__." in path for path in contents)


@pytest.mark.parametrize(
    ("target", "packages"),
    [
        (
            "sharder",
            "boto3 datasets gigatoken huggingface_hub pyarrow.dataset pyarrow.parquet rustbpe tiktoken zstandard",
        ),
        ("trainer_cpu", "boto3 datasets gigatoken matplotlib.figure pyarrow.parquet requests tensorboard.main torch"),
    ],
)
def test_what_the_image_was_freed_of_is_missed_by_nobody(
    target: str, packages: str, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue(target)
    program = f"import {', '.join(packages.split())}; boto3.client('s3', region_name='us-east-1'); print('all there')"
    said = podman(*container(image, "-c", program, volume=None, options=("--entrypoint", "/opt/venv/bin/python")))
    assert said.stdout.strip() == "all there", said.stderr[-2000:]


def test_what_the_labels_and_the_settings_say(trainer_cpu: str) -> None:
    document = json.loads(podman("image", "inspect", trainer_cpu).stdout)[0]
    labels = document["Labels"]
    for name in ("title", "version", "revision", "created", "licenses"):
        assert labels[f"org.opencontainers.image.{name}"] not in ("", "unknown")
    config = document["Config"]
    assert config["User"] == "10001:0"
    assert {"PYTHONSAFEPATH=1", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(config["Env"])
    assert document["Healthcheck"]["Test"] == ["CMD", "trainwright", "doctor", "--alive"]


# --- one clear line each ---------------------------------------------------------------------------------------------


def test_an_unknown_word_is_refused_in_one_line(trainer_cpu: str, volume: Path) -> None:
    said = run(*container(trainer_cpu, "sing", volume=volume))
    assert said.code == 78
    assert "sing: no such word" in sentence(said)


def test_without_a_volume_nothing_starts(trainer_cpu: str) -> None:
    said = run(*container(trainer_cpu, *DEMO, volume=None))
    assert said.code == 69
    assert "no volume is mounted" in sentence(said)


def test_a_volume_that_cannot_be_written_is_refused(trainer_cpu: str, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    said = run(*container(trainer_cpu, *DEMO, volume=locked))
    assert said.code == 78
    assert "cannot be written by user 12345" in sentence(said)


def test_too_little_shared_memory_is_said(trainer_cpu: str, volume: Path) -> None:
    words = (*DEMO, "name=shm", "resources.shm_gib=0.5")
    said = run(*container(trainer_cpu, *words, volume=volume, options=("--shm-size", "64m")))
    assert said.code == 69
    assert "/dev/shm: 0.06 GiB, and this experiment needs 0.5" in sentence(said)


def test_gpus_without_a_driver_are_said(trainer_cpu: str, volume: Path) -> None:
    said = run(
        *container(
            trainer_cpu, *DEMO, "name=gpu", "resources.device=cuda", volume=volume, options=("--shm-size", "1100m")
        )
    )
    assert said.code == 69
    assert "no NVIDIA driver" in sentence(said)


def test_a_disk_that_fills_up_in_a_stage_is_said(trainer_cpu: str, tmp_path: Path) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", str(tmp_path)], check=False
    ).returncode:
        machine.missing("a small file system: needs to be root")
    try:
        said = run(*container(trainer_cpu, *DEMO, volume=tmp_path))
        assert said.code == 1
        assert "No space left on device" in said.text
        assert said.text.count("free some space") == 1
        assert "Traceback" not in said.text
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# --- a run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """The demonstration in the image: stopped in training, finished by a second start, started once more."""

    stopped: Said
    saved: int
    finished: Said
    again: Said
    seconds_again: float
    volume: Path


def steps(volume: Path) -> list[int]:
    path = volume / "runs/demo/metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [row["step"] for line in text.splitlines() if "loss" in (row := json.loads(line))]


@pytest.fixture(scope="module")
def story(trainer_cpu: str, volume: Path) -> Story:
    """Boot the shortened demonstration as user 12345; SIGTERM in training, then twice to the end."""
    arguments = container(trainer_cpu, *DEMO, volume=volume, options=("--name", "story", "--env", f"HF_TOKEN={SECRET}"))
    with subprocess.Popen(
        [*machine.PODMAN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        limit = time.monotonic() + 240
        while len(steps(volume)) < 3 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        podman("kill", "--signal", signal.SIGTERM.name, "story")
        text = process.communicate(timeout=120)[0]
    stopped = Said(process.returncode, text)
    saved = max((int(path.name[5:]) for path in (volume / "runs/demo/checkpoints").glob("step_*")), default=0)
    finished = run(*container(trainer_cpu, *DEMO, volume=volume))
    begun = time.monotonic()
    again = run(*container(trainer_cpu, *DEMO, volume=volume))
    return Story(stopped, saved, finished, again, time.monotonic() - begun, volume)


def test_sigterm_to_the_container_saves_and_asks_to_be_run_again(story: Story) -> None:
    assert story.stopped.code == 75, story.stopped.text
    assert story.saved >= 3
    assert (story.volume / f"runs/demo/checkpoints/step_{story.saved:08d}/manifest.json").is_file()


def test_the_second_start_finishes_and_loses_no_step(story: Story) -> None:
    assert story.finished.code == 0, story.finished.text
    assert f"resume: from step_{story.saved:08d}" in story.finished.text
    assert steps(story.volume) == list(range(1, 25))
    assert (story.volume / "runs/demo/report.html").stat().st_size > 10_000


def test_a_finished_run_is_only_looked_at(story: Story) -> None:
    assert story.again.code == 0
    assert story.again.text.count("done already") == 4
    assert "stage=train start" not in story.again.text


def test_a_secret_of_the_environment_is_in_no_line_and_no_file(story: Story) -> None:
    assert SECRET not in story.stopped.text + story.finished.text + story.again.text
    with_it = [path for path in story.volume.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not with_it


def test_the_health_check_knows_a_run_that_nobody_holds(story: Story, trainer_cpu: str) -> None:
    said = run(*container(trainer_cpu, "doctor", "--alive", volume=story.volume))
    assert said.code == 1
    assert "no run below /workspace/runs gives signs of life" in said.text


def test_the_sharder_image_shards_without_torch(sharder: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    said = run(*container(sharder, "boot", "demo", *SMALL, "--until", "tokenizer", volume=tmp_path, uid=10001))
    assert said.code == 0, said.text
    assert list((tmp_path / "datasets/train/demo").glob("tokens-*/*.bin"))


def test_compiled_training_works_in_the_image(trainer_cpu: str, story: Story, tmp_path: Path) -> None:
    copy = tmp_path / "root"
    shutil.copytree(story.volume, copy, ignore=shutil.ignore_patterns("runs"))
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o777)
    short = ("name=compiled", "train.compile=true", "train.steps=2", "resources.ranks_per_node=1")
    names = ("data.name=demo", "tokenizer.name=demo")
    said = run(*container(trainer_cpu, *DEMO, *names, *short, volume=copy), limit_s=280)
    assert said.code == 0, said.text


def test_who_holds_the_key_may_log_in_and_nobody_else(trainer_cpu: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    script = tmp_path / "script.sh"
    script.write_text(
        'trainwright() { /opt/trainwright/docker/entrypoint.sh "$@"; }\n'
        "trainwright --version; cp /key /tmp/key; chmod 600 /tmp/key\n"
        'log_in() { ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes "$@" 2>&1; }\n'
        "log_in -i /tmp/key root@127.0.0.1 trainwright --version && echo opened\n"
        "rm /tmp/key; log_in root@127.0.0.1 true || echo closed\n"
    )
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--no-healthcheck")
    mounts = ("--volume", f"{key}:/key:ro", "--volume", f"{script}:/script.sh:ro", "--tmpfs", "/tmp", "--read-only")
    public = key.with_suffix(".pub").read_text().strip()
    start = ("--rm", "--network", "none", "--user", "0", "--env", f"PUBLIC_KEY={public}", "--tmpfs", "/run")
    said = run("run", *start, *limits, *mounts, "--entrypoint", "/bin/bash", trainer_cpu, "/script.sh")
    assert "sshd: on, port 22, host key SHA256:" in said.text, said.text
    assert "opened" in said.text, said.text
    assert "closed" in said.text, said.text
