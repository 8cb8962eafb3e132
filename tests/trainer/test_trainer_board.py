"""The words of `python -m trainer.board`; that it serves a run and dies with boot is held beside boot."""

from pathlib import Path
import socket
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_port_that_is_taken_is_told_in_one_sentence_and_a_code(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        command = [sys.executable, "-m", "trainer.board", str(tmp_path), port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert port in done.stderr
    assert "Traceback" not in done.stderr
