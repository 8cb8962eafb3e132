"""`docker/entrypoint.sh` runs the entry; here it is run as a program, with an environment as bare as a container's."""

import os
from pathlib import Path
import subprocess
import sys

REPOSITORY = Path(__file__).resolve().parents[2]


def entry(*words: str, root: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    environ = {"PATH": "/usr/bin:/bin", "TRAINWRIGHT_ROOT": str(root), "PYTHONPATH": str(REPOSITORY), **more}
    command = [sys.executable, "-m", "infra.boot.entry", *words]
    return subprocess.run(
        command,
        env=environ,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_an_unknown_word_is_one_line_and_78(tmp_path: Path) -> None:
    done = entry("sing", root=tmp_path)
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "sshd: off, PUBLIC_KEY is not set",
        "trainwright: sing: no such word; `trainwright --help` lists them",
    ]


def test_words_are_those_of_trainwright(tmp_path: Path) -> None:
    done = entry("--version", root=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("trainwright ")


def test_boot_runs_at_once_and_says_what_is_wrong(tmp_path: Path) -> None:
    done = entry("boot", "nowhere.yaml", root=tmp_path)
    assert done.returncode == 78
    assert "nowhere.yaml: no such experiment file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_without_uid_0_is_said(tmp_path: Path) -> None:
    # This machine's root may start a server, and port 22 is nobody's business here: a user without privileges asks.
    if os.getuid() == 0:
        from infra.boot.sshd import start

        assert start({"PUBLIC_KEY": "ssh-ed25519 AAAA"}, tmp_path, 1000).endswith("and sshd needs 0")
        return
    assert "sshd needs 0" in entry("--version", root=tmp_path, PUBLIC_KEY="ssh-ed25519 AAAA").stderr
