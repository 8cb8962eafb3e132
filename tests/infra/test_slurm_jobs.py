"""What is asked of the queue, and what its answers mean. The queue itself is in tests/engines/test_slurm.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import stat

import pytest

from infra.engine import Answer
from infra.job import Job
from infra.launches import Launch, State
from infra.slurm.jobs import copy_growing
from infra.submit import submit
from infra.targets import slurm
from recorder import Recorder, a_job
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.slurm import SlurmTarget
from trainwright.spec.targets import Targets

OWN = Targets(slurm=SlurmTarget(container="off"))
JOB = a_job(targets=OWN, flags=())


def queue(**answers: Answer) -> Callable[[str], Answer]:
    """Return an engine's answers: job ids from 11 for sbatch, and what is given for other programs."""
    ids = iter(range(11, 99))

    def answer(command: str) -> Answer:
        program = command.split(maxsplit=1)[0]
        if program in answers:
            return answers[program]
        return Answer(0, f"{next(ids)};cluster\n", "") if program == "sbatch" else Answer(0, "", "")

    return answer


def sent(root: Path, job: Job = JOB, **answers: Answer) -> tuple[Launch, list[str]]:
    engine = Recorder(programs=("sbatch",), answers=queue(**answers)).given({"HF_TOKEN": "it's", "WANDB_API_KEY": "x"})
    return submit("slurm", job, root, engine), engine.commands


def test_preparation_is_queued_first_and_training_waits_for_it(tmp_path: Path) -> None:
    launch, said = sent(tmp_path)
    folder = tmp_path / "launch/small"
    assert launch.id == "11,12"
    assert said[0] == f"sbatch --parsable --chdir={folder} {folder}/small.prepare.sbatch"
    wait = "--dependency=afterok:11 --kill-on-invalid-dep=yes"
    assert said[1] == f"sbatch --parsable --chdir={folder} {wait} {folder}/small.sbatch"
    assert (tmp_path / "runs/small/logs").is_dir()


def test_a_preparation_that_is_done_or_not_wanted_is_not_queued(tmp_path: Path) -> None:
    record = tmp_path / "runs/small/stages/tokenizer.json"
    record.parent.mkdir(parents=True)
    record.touch()
    assert sent(tmp_path)[0].id == "11"
    assert sent(tmp_path, replace(JOB, flags=("--fresh",)))[0].id == "11,12"
    record.unlink()
    off = Targets(slurm=SlurmTarget(container="off", prepare="off"))
    assert sent(tmp_path, replace(JOB, targets=off))[0].id == "11"


def test_a_preparation_here_comes_before_anything_is_queued(tmp_path: Path) -> None:
    here = replace(JOB, targets=Targets(slurm=SlurmTarget(container="off", prepare="here")))
    _, said = sent(tmp_path, here)
    assert said[0] == f"env --chdir={tmp_path}/launch/small bash {tmp_path}/launch/small/small.prepare.sbatch"
    with pytest.raises(MissingError, match=r"the preparation on this host ended with 69 .*; nothing was queued$"):
        sent(tmp_path, here, env=Answer(69, "", ""))


def test_values_of_secrets_lie_in_a_file_of_their_owner_alone(tmp_path: Path) -> None:
    _, said = sent(tmp_path)
    file = tmp_path / "launch/small/small.env"
    assert file.read_text() == "HF_TOKEN='it'\"'\"'s'\nWANDB_API_KEY=x\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "it's" not in "".join(said)


def test_marks_of_an_earlier_launch_are_removed(tmp_path: Path) -> None:
    launch, _ = sent(tmp_path)
    for name in ("over", "begun"):
        (launch.path / name).touch()
    sent(tmp_path)
    assert not {"over", "begun"} & {path.name for path in launch.path.iterdir()}


def test_a_host_without_sbatch_is_the_wrong_one(tmp_path: Path) -> None:
    site = Targets(slurm=SlurmTarget(container="off", hosts="narval*"))
    with pytest.raises(MissingError, match=r"^sbatch: not on this host; .* \(narval\*\)$"):
        submit("slurm", replace(JOB, targets=site), tmp_path, Recorder())


def test_what_sbatch_refuses_is_said_in_its_words_and_nothing_stays_queued(tmp_path: Path) -> None:
    said: list[str] = []

    def answers(command: str) -> Answer:
        said.append(command)
        bad = command.startswith("sbatch") and "prepare" not in command
        return Answer(1, "", "sbatch: error: Invalid account\n") if bad else Answer(0, "11\n", "")

    engine = Recorder(programs=("sbatch",), answers=answers).given({"HF_TOKEN": "x", "WANDB_API_KEY": "x"})
    with pytest.raises(UserError, match=r"small.sbatch: sbatch refuses it: sbatch: error: Invalid account$"):
        submit("slurm", JOB, tmp_path, engine)
    assert said[-1] == "scancel 11"


def test_a_missing_sif_is_refused_before_a_queue_is_waited_in(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"0000000000000000.sif: is not there; .* run `trainwright fetch small`"):
        sent(tmp_path, a_job(targets=Targets(slurm=SlurmTarget()), flags=()))


def state_for(tmp_path: Path, *rows: str) -> State:
    launch = Launch("small", "slurm", "11,12", str(tmp_path), 0.0)
    return slurm.state(launch, Recorder(answers=lambda _: Answer(0, "".join(f"{row}\n" for row in rows), "")))


def test_the_state_is_that_of_the_job_that_runs_or_waits_first(tmp_path: Path) -> None:
    assert state_for(tmp_path) == State("not in the queue", live=False)
    waits = f"12|small|PENDING|Dependency|{tmp_path}"
    assert state_for(tmp_path, waits) == State("pending (Dependency)", live=True)
    prepares = f"11|small-prepare|RUNNING|None|{tmp_path}"
    assert state_for(tmp_path, waits, prepares) == State("preparation running", live=True)
    assert state_for(tmp_path, f"12|small|RUNNING|None|{tmp_path}/other") == State("not in the queue", live=False)


def test_a_queue_that_does_not_answer_is_said(tmp_path: Path) -> None:
    launch = Launch("small", "slurm", "1", str(tmp_path), 0.0)
    down = Recorder(answers=lambda _: Answer(1, "", "squeue: error: Unable to contact slurm controller\n"))
    with pytest.raises(MissingError, match=r"^squeue does not tell .*: squeue: error: Unable to contact"):
        slurm.state(launch, down)


def test_removing_cancels_every_job_of_the_launch(tmp_path: Path) -> None:
    rows = f"12|small|PENDING|None|{tmp_path}\n13|small|RUNNING|None|{tmp_path}\n9|other|RUNNING|None|/x\n"
    engine = Recorder(answers=lambda _: Answer(0, rows, ""))
    slurm.remove(Launch("small", "slurm", "12", str(tmp_path), 0.0), engine)
    assert engine.commands[-1] == "scancel 12 13"


def test_logs_are_those_that_the_scripts_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch, _ = sent(tmp_path)
    with pytest.raises(UserError, match=r"logs/train.out: no log there yet; the jobs are not in the queue$"):
        slurm.logs(launch, Recorder(), follow=False)
    (tmp_path / "runs/small/logs/prepare.out").write_text("made shards\n")
    (tmp_path / "runs/small/logs/train.out").write_text("step 1\nhalf a li")
    assert slurm.logs(launch, Recorder(), follow=True) == 0
    assert capsys.readouterr().out == "made shards\nstep 1\n"


def test_a_log_is_followed_until_nothing_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    asked = iter([True, False])

    def live() -> bool:
        with log.open("a") as file:
            file.write("more\n")
        return next(asked)

    copy_growing([tmp_path / "absent", log], live)
    assert capsys.readouterr().out == "more\nmore\n"
