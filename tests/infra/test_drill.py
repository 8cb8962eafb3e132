"""A drill on a real run: what it strikes, what it says, and that it leaves nothing of itself behind."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from staged_runs import Staged
from infra.drill_course import MARK
from tiny_boot import PATIENCE_S, Place, clean_environment, copy_place, digests
from trainwright.spec.exits import UserError
from trainwright.store.lease import acquire
from trainwright.store.process import processes_with


def start(place: Place, *words: str) -> "subprocess.Popen[str]":
    """Start a drill whose real run's data lies elsewhere, as with `paths.data`, and which somebody names otherwise."""
    own = (str(place.file), f"data.path={place.corpus}", f"paths.data={place.data}", *words)
    environ = {**clean_environment(), "TRAINWRIGHT_ROOT": str(place.root), "RUN_EXPERIMENT": "tiny"}
    command = [sys.executable, "-m", "infra", "drill", *own]
    return subprocess.Popen(
        command, cwd=place.root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def files(root: Path) -> dict[str, str]:
    return {name: digest for name, digest in digests(root).items() if "/__" not in name}


@pytest.mark.faults
@pytest.mark.slow
def test_a_drill_strikes_resumes_and_compares_and_leaves_the_real_run_alone(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "root", trained=False)
    before, data = files(place.root), digests(place.data or place.root)
    drill = start(place, "--target", "kubernetes", "--json")
    out, err = drill.communicate(timeout=4 * PATIENCE_S)
    assert drill.returncode == 0, out + err
    found = json.loads(out)
    assert found["right"]
    assert found["same"]
    assert found["verdict"].endswith("bit for bit")
    evicted, lost = found["rows"]
    assert (evicted["exit_code"], evicted["steps_lost"], evicted["notice_seconds"]) == (75, 0, 300.0)
    assert 0 < evicted["saved_seconds"] < 60
    assert evicted["resumed_step"] >= evicted["step"] > found["save_every_steps"]
    assert lost["exit_code"] == -9
    assert lost["saved_seconds"] is None
    assert 0 < lost["steps_lost"] <= found["save_every_steps"]
    assert lost["resumed_step"] % found["save_every_steps"] == 0
    assert "1 of 2: evicted" in err
    # Neither the real run nor the corpus were touched, and nothing of the drill is left.
    assert files(place.root) == before
    assert digests(place.data or place.root) == data
    assert not (place.root / "drill").exists()


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_drill_that_is_stopped_leaves_no_process(sharded: Staged, tmp_path: Path, number: signal.Signals) -> None:
    place = copy_place(sharded.place, tmp_path / "root", trained=False)
    folder = place.root / "drill" / "tiny"
    drill = start(place)
    wait_until(lambda: len(processes_with(MARK, str(folder))) >= 2, drill)
    os.kill(drill.pid, number)
    _, err = drill.communicate(timeout=PATIENCE_S)
    wait_until(lambda: not processes_with(MARK, str(folder)))
    if number is signal.SIGKILL:
        # Nobody can clear away after that; the next drill does.
        assert folder.exists()
        return
    assert drill.returncode == 75, err
    assert "Traceback" not in err
    assert not folder.parent.exists()


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit
        assert process is None or process.poll() is None
        time.sleep(0.02)


def test_two_drills_of_one_experiment_do_not_meet(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "root", trained=False)
    with acquire(place.root / "drill" / "tiny.lease", "another drill"):
        drill = start(place)
        _, err = drill.communicate(timeout=PATIENCE_S)
    assert drill.returncode == 69
    assert "held by another drill" in err


def test_an_experiment_that_cannot_boot_says_why_and_costs_nothing(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "root", trained=False)
    drill = start(place, "resources.device=cuda")
    out, err = drill.communicate(timeout=PATIENCE_S)
    assert drill.returncode == 69, err
    assert out == ""
    assert err.splitlines()[-1].startswith("trainwright: boot ended with 69 without any blow (")
    assert "resources.device=cuda" in err.splitlines()[-1]
    assert not (place.root / "drill").exists()


def test_words_that_no_drill_knows_are_refused() -> None:
    from infra.drill import drill

    with pytest.raises(UserError, match="--target"):
        drill(["tiny", "--target", "moon"])
