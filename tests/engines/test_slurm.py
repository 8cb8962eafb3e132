"""Real runs on a real SLURM of two nodes, by the words that a user types: launch, ps, logs.

The jobs run this checkout's own virtual environment, and in one test the image through the real Apptainer. A job that
requeued itself waits two minutes by SLURM's own rule; `release` spares us that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from machine import AbsentError, Sif
import machine
from slurm_site import NODES, Site, site
from tiny_boot import STEPS, TINY, attempts, end, last_step, losses, make_place, rank_pid, read
from trainwright.spec.paths import RunFolder

ROOT = Path(__file__).resolve().parents[2]
PROFILE = f"""\
slurm:
  container: off
  venv: {ROOT}/.venv
  prepare_cpus: 1
  prepare_memory_gib: 2
  prepare_partition: cpu
  prepare_walltime_minutes: 20
  walltime_minutes: 20
"""
TWO_NODES = ("resources.nodes=2", "train.micro_batch=4")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the site; all tests share it, each with a root of its own."""
    if os.geteuid() != 0:
        machine.missing("slurm: its daemons run as root here")
    try:
        with site(tmp_path_factory.mktemp("site")) as running:
            yield running
    except AbsentError as error:
        machine.missing(str(error))


class Project:
    """A user's folder with an experiment and a site profile, and a root."""

    def __init__(self, folder: Path, up: Site) -> None:
        self.folder, self.site = folder, up
        self.root = folder / "root"
        make_place(self.root)
        (folder / "experiments/sites").mkdir(parents=True)
        (folder / "experiments/tiny.yaml").write_text(TINY)
        (folder / "experiments/sites/test.yaml").write_text(PROFILE)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.root / "runs/tiny")

    def trainwright(self, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {**self.site.environ, "TRAINWRIGHT_ROOT": str(self.root), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "infra", *words]
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(command, cwd=self.folder, env=environ, check=False, **options)

    def launch(self, *words: str) -> list[str]:
        """Launch the run; return its job ids."""
        more = ("targets.slurm.site=test", f"data.path={self.root}/corpus", *words)
        done = self.trainwright("launch", "tiny", "--target", "slurm", *more)
        assert done.returncode == 0, done.stderr
        found: str = json.loads((self.root / "launch/tiny/launch.json").read_text())["id"]
        return found.split(",")

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.run.path / "logs").glob("*.out")))

    def until_step(self, step: int) -> None:
        self.site.until(lambda: last_step(self.run) >= step, f"step {step}")

    def until_over(self) -> None:
        self.site.until(lambda: not self.site.queue(), "an empty queue", 200)


@pytest.fixture
def project(tmp_path: Path, up: Site) -> Iterator[Project]:
    yield Project(tmp_path, up)
    up.run("scancel", "--user=root")
    up.until(lambda: not up.queue(), "an empty queue")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, up: Site) -> Project:
    """Return a project whose run went over two nodes to its end."""
    whole = Project(tmp_path_factory.mktemp("undisturbed"), up)
    whole.launch(*TWO_NODES)
    whole.until_over()
    return whole


@contextmanager
def held(project: Project, ranks: int) -> Iterator[None]:
    """Hold a run in the middle until boot has heard what is said to it meanwhile."""
    project.until_step(20)
    pids = [rank_pid(project.run, rank) for rank in range(ranks)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
        project.site.until(lambda: "interrupt: " in project.log(), "the notice")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_two_nodes_train_to_the_end(undisturbed: Project) -> None:
    log = undisturbed.log()
    assert end(undisturbed.run)["reason"] == "complete", log
    assert [step for step, _ in losses(undisturbed.run)] == list(range(1, STEPS + 1))
    assert [read(attempt / "end.json")["code"] for attempt in attempts(undisturbed.run)] == [0, 0]
    assert "1: " in log
    assert (undisturbed.root / "launch/tiny/over").read_text() == "0\n"
    assert undisturbed.trainwright("ps").stdout.split()[-1] == "complete"
    assert "tiny: boot ended with 0" in undisturbed.trainwright("logs", "tiny", "-f").stdout


def test_a_time_limit_in_the_middle_costs_nothing(undisturbed: Project, project: Project, up: Site) -> None:
    _, job = project.launch(*TWO_NODES, "targets.slurm.signal_lead_seconds=45")
    with held(project, 2):
        # Three quarters of a minute before the limit is now, so SLURM speaks the next time that it looks.
        up.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    up.release(job, "TimeLimit=20")
    project.until_over()
    log = project.log()
    assert [read(attempt / "end.json")["code"] for attempt in attempts(project.run)] == [0, 75, 0], log
    assert losses(project.run) == losses(undisturbed.run)
    assert f"boot ended with 0 (job {job}, start 1)" in log


def test_a_cancelled_job_saves_stays_cancelled_and_goes_on_when_launched_again(project: Project, up: Site) -> None:
    _, job = project.launch()
    with held(project, 1):
        up.run("scancel", job)
    project.until_over()
    assert up.state(job) == "CANCELLED", project.log()
    assert end(project.run)["code"] == 75
    saved = last_step(project.run)
    project.launch()
    project.until_over()
    assert [step for step, _ in losses(project.run)] == list(range(1, STEPS + 1))
    assert end(project.run)["reason"] == "complete"
    assert saved < STEPS


def test_a_lost_node_is_a_loss_and_the_run_goes_on_without_it(project: Project, up: Site) -> None:
    _, job = project.launch("train.steps=1000")
    project.until_step(20)
    node = up.run("squeue", "--noheader", f"--jobs={job}", "--format=%N")
    up.lose_node(node)
    try:
        up.release(job)
        up.until(lambda: up.state(job) == "RUNNING", "the other node")
        assert up.run("squeue", "--noheader", f"--jobs={job}", "--format=%N") == next(n for n in NODES if n != node)
        project.until_step(40)
    finally:
        up.start_node(node)
    lost, now = attempts(project.run)[1:]
    assert not (lost / "end.json").exists()
    assert not (now / "end.json").exists()


def test_a_chain_ends_where_the_run_ends(project: Project, up: Site) -> None:
    _, first = project.launch("targets.slurm.continuation=chain")
    with held(project, 1):
        up.notify(first)
    project.until_over()
    log = project.log()
    assert [read(attempt / "end.json")["code"] for attempt in attempts(project.run)] == [0, 75, 0], log
    assert up.state(str(int(first) + 2)) == "CANCELLED"
    assert [step for step, _ in losses(project.run)] == list(range(1, STEPS + 1))


def test_an_array_ends_where_the_run_ends(project: Project, up: Site) -> None:
    project.launch("targets.slurm.continuation=array", "targets.slurm.links=4")
    with held(project, 1):
        up.notify(up.running())
    project.until_over()
    log = project.log()
    assert [read(attempt / "end.json")["code"] for attempt in attempts(project.run)] == [0, 75, 0], log
    assert log.count("boot ended with") == 2


def test_a_sweep_is_one_array_and_one_page(project: Project, up: Site) -> None:
    words = ("sweep", "tiny", "--target", "slurm", "targets.slurm.site=test", f"data.path={project.root}/corpus")
    grid = (*words, "train.steps=16", "optimizer.lr=1e-3,2e-3")
    done = project.trainwright(*grid)
    assert done.returncode == 0, done.stderr
    assert len(up.queue()) == 3  # the preparation, and a task for each point
    project.until_over()
    told = project.trainwright(*grid, "--table")
    states = [line.split()[2:] for line in told.stdout.splitlines()[1:3]]
    assert [(step, state) for step, _, state in states] == [("16/16", "complete")] * 2, told.stdout + told.stderr
    page = (project.root / "launch/tiny-sweep/report.html").read_text()
    assert "other points" in page


def test_what_is_missing_is_said_before_a_queue_is_waited_in_and_again_by_the_job(project: Project, up: Site) -> None:
    shutil.move(project.root / "corpus", project.root / "elsewhere")
    words = ("targets.slurm.site=test", f"data.path={project.root}/corpus", "targets.slurm.internet=false")
    refused = project.trainwright("launch", "tiny", "--target", "slurm", *words)
    assert refused.returncode == 69
    assert f"{project.root}/corpus: is not there; run `trainwright fetch tiny`" in refused.stderr
    assert up.queue() == []
    script = project.root / "launch/tiny/tiny.prepare.sbatch"
    (project.run.path / "logs").mkdir(parents=True, exist_ok=True)
    job = up.run("sbatch", "--parsable", f"--chdir={script.parent}", str(script))
    up.until(lambda: up.state(job) not in ("PENDING", "RUNNING", "COMPLETING"), "the job's end")
    assert "ExitCode=69:0" in up.run("scontrol", "show", "job", job)
    assert f"{project.root}/corpus: is not there; run `trainwright fetch tiny`" in project.log()


@pytest.fixture
def apptainer_on_path(sif: Sif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the site's nodes find Apptainer, which lives in a root of its own here; what it starts there must not."""
    program = tmp_path / "bin/apptainer"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin exec {sif.apptainer} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_the_image_trains_on_two_nodes_through_apptainer_and_hears_slurm(
    project: Project, up: Site, sif: Sif, apptainer_on_path: None
) -> None:
    del apptainer_on_path
    # What this machine's root lacks, a site's users do not need.
    image = ("container=apptainer", f"sif={sif.path}", "container_flags=--no-privs", "internet=false", "prepare=off")
    project.launch(*TWO_NODES, *(f"targets.slurm.{word}" for word in image))
    project.until_step(20)
    job = up.running()
    up.notify(job)
    up.release(job)
    project.until_over()
    log = project.log()
    assert [read(attempt / "end.json")["code"] for attempt in attempts(project.run)] == [75, 0], log
    assert [step for step, _ in losses(project.run)] == list(range(1, STEPS + 1))
    assert (project.run.path / "report.html").exists()


def test_the_image_trains_where_there_is_no_network_at_all(project: Project, sif: Sif, apptainer_on_path: None) -> None:
    del apptainer_on_path
    image = ("container=apptainer", f"sif={sif.path}", "internet=false", "prepare=off")
    flags = "targets.slurm.container_flags=--no-privs --net --network=none"
    project.launch(flags, *(f"targets.slurm.{word}" for word in image))
    project.until_over()
    assert end(project.run)["reason"] == "complete", project.log()


def profiles() -> list[Path]:
    return sorted(path for path in (ROOT / "experiments/sites").glob("*.yaml") if "slurm:" in path.read_text())


@pytest.mark.parametrize("profile", profiles(), ids=lambda path: path.stem)
def test_sbatch_accepts_what_is_rendered_for_every_profile(profile: Path, tmp_path: Path, up: Site) -> None:
    # What only the site itself has: its partitions, accounts, and types of GPU.
    here = ("account=root", "partition=gpu", "gpu_type=null", "gpu_types=", "cpus_per_gpu=null", "qos=null")
    words = [f"targets.slurm.{word}" for word in (f"site={profile.stem}", "sif=/x.sif", *here)]
    command = [sys.executable, "-m", "infra", "render", "demo", "--target", "slurm", *words, "resources.device=cuda"]
    subprocess.run([*command, "-o", str(tmp_path)], cwd=ROOT, check=True, capture_output=True, timeout=60)
    for script in sorted(tmp_path.glob("*.sbatch")):
        options = ["--cpus-per-task=1", "--mem=100M"]  # this machine is no node of theirs
        up.run("sbatch", "--test-only", *options, str(script))
