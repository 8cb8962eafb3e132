import os
from pathlib import Path
import subprocess
import sys

from infra.rooms import child_environment, room_command
from trainwright.spec.variables import PARENT_VARIABLE


def test_a_room_is_a_command_of_this_python() -> None:
    assert room_command("sharder", "shard", "a b.yaml") == [sys.executable, "-m", "sharder", "shard", "a b.yaml"]


def test_a_child_does_not_inherit_what_a_site_presets_for_another_launcher() -> None:
    preset = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT GROUP_RANK PET_NNODES PET_NODE_RANK"
    found = child_environment({}, dict.fromkeys(preset.split(), "9"))
    assert set(found) == {PARENT_VARIABLE}


def test_a_child_keeps_the_rest_of_the_environment() -> None:
    kept = {"HOME": "/home/a", "CUDA_VISIBLE_DEVICES": "1", "NCCL_DEBUG": "INFO", "RANKING": "2", "MY_PET_NAME": "x"}
    found = child_environment({}, {**kept, "WORLD_SIZE": "8"})
    assert {name: found[name] for name in kept} == kept


def test_what_is_given_for_the_child_is_stronger() -> None:
    assert child_environment({"HOME": "/other"}, {"HOME": "/home/a"})["HOME"] == "/other"


def test_a_child_knows_the_process_that_it_dies_with() -> None:
    assert child_environment({}, {PARENT_VARIABLE: "1"})[PARENT_VARIABLE] == str(os.getpid())


def test_becoming_a_room_keeps_the_process_and_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "room.py").write_text("import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(75)")
    program = "from infra.rooms import become; become('room', ['a b', '--c'])"
    command = [sys.executable, "-c", program]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (75, f"{process.pid} ['a b', '--c']\n")
