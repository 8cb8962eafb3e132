"""The agent is torchrun without its tracebacks: what a rank says is what a person reads."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_run import TWO_RANKS, Ground, clean_environment, make_run, train_in_processes
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
