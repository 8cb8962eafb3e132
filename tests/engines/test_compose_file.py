"""The compose file of target local under the real docker compose, by the words that a user types."""

from pathlib import Path
import subprocess
import sys
import time

import pytest

import machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SMALL = ("model.dim=48", "model.num_layers=1", "model.num_heads=3", "model.num_kv_heads=3", "tokenizer.vocab_size=512")
SHORT = ("train.steps=40", "evaluation.every_steps=40", "checkpoint.dump.every_steps=5", "logging.num_samples=0")


def test_launch_follow_stop_and_delete_work_through_docker_compose(trainer_cpu: str, tmp_path: Path) -> None:
    # The container is whoever launches it, and may not write where another user has written.
    volume = tmp_path / "root"
    volume.mkdir()
    with machine.docker(tmp_path) as environ:
        environ |= {"TRAINWRIGHT_ROOT": str(volume), "PYTHONPATH": str(machine.ROOT), "A_SECRET": "hidden-value-7"}

        def said(*words: str) -> str:
            command = [sys.executable, "-m", "infra", *words]
            done = subprocess.run(
                command, cwd=machine.ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
            return done.stdout + done.stderr

        run = ("demo", "name=composed", *SMALL, *SHORT, "secrets=A_SECRET", "targets.local.container=true")
        subprocess.run(
            ["docker", "rm", "--force", "trainwright-composed"], env=environ, capture_output=True, check=False
        )
        said("launch", "--target", "local", *run, f"image={trainer_cpu}")
        metrics = volume / "runs/composed/metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() or "checkpoint" not in metrics.read_text() + said("logs", "composed"):
            assert time.monotonic() < deadline, said("logs", "composed")
            time.sleep(1)
        assert "composed" in said("ps")
        said("stop", "composed")
        followed = said("logs", "composed", "-f")
        assert "ended" in said("ps")
        assert "hidden-value-7" not in followed
        assert "composed" in said("delete", "composed", "--yes")
        gone = subprocess.run(
            ["docker", "inspect", "trainwright-composed"], env=environ, capture_output=True, check=False
        )
        assert gone.returncode != 0
    assert list((volume / "runs/composed/checkpoints").glob("step_*"))
