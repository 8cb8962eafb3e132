from pathlib import Path
import shutil
import subprocess

import pytest

from infra.boot import sshd
from infra.boot.sshd import config, start


def test_without_a_key_it_is_off_and_says_why(tmp_path: Path) -> None:
    assert start({}, tmp_path, 0) == "sshd: off, PUBLIC_KEY is not set"
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_installed_is_said_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshd, "SERVER", "/nonexistent/sshd")
    monkeypatch.setattr(sshd, "SEPARATION", tmp_path / "run")
    assert start({"PUBLIC_KEY": "ssh-ed25519 AAAA"}, tmp_path, 0).startswith("sshd: off, ")


def test_only_keys_open_it(tmp_path: Path) -> None:
    lines = config(tmp_path, {}).splitlines()
    assert {"AuthenticationMethods publickey", "PasswordAuthentication no", "KbdInteractiveAuthentication no"} <= set(
        lines
    )


def test_a_login_gets_no_secret_and_values_as_they_are(tmp_path: Path) -> None:
    text = config(tmp_path, {"PATH": 'a "b" \\c'})
    assert 'SetEnv PATH="a \\"b\\" \\\\c"' in text
    assert not {"HF_TOKEN", "RUNPOD_API_KEY"} & set(sshd.SEEN_BY_LOGINS)


def test_the_real_server_accepts_the_configuration(tmp_path: Path) -> None:
    server = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if server is None:
        pytest.skip("no sshd on this machine; tests/engines logs in to the one in the image")
    key = tmp_path / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "config").write_text(config(tmp_path, {"PATH": "/usr/bin"}))
    done = subprocess.run([server, "-t", "-f", str(tmp_path / "config")], capture_output=True, text=True, check=False)
    assert "Missing privilege separation" in done.stderr or done.returncode == 0, done.stderr
