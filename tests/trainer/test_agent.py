"""The agent is torchrun without its tracebacks: what a rank says is what a person reads."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny_run import TWO_RANKS, Ground, clean_environment, make_run, train_in_processes, wait_until
from trainwright.spec.exits import Exit


@pytest.mark.slow
def test_a_refusal_by_two_ranks_is_read_in_their_own_words(own_ground: Ground, tmp_path: Path) -> None:
    shard = own_ground.tokens("train") / "train_00001.bin"
    data = bytearray(shard.read_bytes())
    data[2000] ^= 1
    shard.write_bytes(data)
    done = train_in_processes(make_run(own_ground, tmp_path / "run", TWO_RANKS), 2)
    assert done.code == Exit.FAILED
    assert "Traceback" not in done.said
    # Only one of them hashed that shard; both know.
    sentences = [line for line in done.said.splitlines() if line.startswith("trainer: ")]
    assert sentences
    assert all(str(shard) in sentence for sentence in sentences)
    assert "ChildFailedError" not in done.said


def test_an_agent_whose_boot_is_gone_starts_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "started"
    program = tmp_path / "program.py"
    program.write_text(f"open({str(marker)!r}, 'w')")
    done = subprocess.run(
        [sys.executable, "-m", "trainer.agent", "--standalone", str(program)],
        env={**clean_environment(), "TRAINWRIGHT_PARENT": "1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode < 0
    assert not marker.exists()


def test_a_rank_whose_agent_died_before_it_could_ask_ends_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", str(tmp_path / "training.yaml")],
        env={**clean_environment(), "RANK": "0", "TRAINWRIGHT_PARENT": "1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not done.stderr


def test_the_agent_names_itself_to_its_ranks(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os; print(os.environ['TRAINWRIGHT_PARENT'] == str(os.getppid()))")
    done = subprocess.run(
        [sys.executable, "-m", "trainer.agent", "--standalone", "--nproc-per-node", "1", str(program)],
        env={**clean_environment(), "TRAINWRIGHT_PARENT": str(os.getpid())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "True" in done.stdout, done.stderr


def test_signals_to_every_process_of_a_job_leave_the_agent_and_young_ranks_to_boot(tmp_path: Path) -> None:
    program, ready, go = tmp_path / "program.py", tmp_path / "ready", tmp_path / "go"
    program.write_text(
        f"import pathlib, time; pathlib.Path({str(ready)!r}).write_text(str(__import__('os').getpid()))\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
    )
    agent = subprocess.Popen(
        [sys.executable, "-m", "trainer.agent", "--standalone", "--nproc-per-node", "1", str(program)],
        env={**clean_environment(), "TRAINWRIGHT_PARENT": str(os.getpid())},
    )
    try:
        wait_until(lambda: (ready.exists() and ready.read_text() != "") or agent.poll() is not None, "the rank")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(agent.pid, number)
            os.kill(int(ready.read_text()), number)
        time.sleep(0.5)
        assert agent.poll() is None
        go.touch()
        assert agent.wait(60) == 0
    finally:
        agent.kill()
        agent.wait()
