import contextlib
import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from made_corpus import REPOSITORY
from sharder import progress
from sharder.progress import Pause, Progress, facts_line


def test_lines_come_now_and_then_when_nobody_watches(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, logger="sharder"), Progress("shard") as shown:
        shown.add(2_000_000, documents=3, shards=1)
    assert caplog.messages[0].startswith("stage=shard documents=3 shards=1 text_mb=2.0 mb_per_s=")


def test_quick_work_says_nothing_when_nobody_watches(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sharder"), Progress("shard") as shown:
        shown.add(2_000_000, documents=3)
    assert caplog.messages == []
    assert shown.num_bytes == 2_000_000
    assert shown.mb_per_s > 0
    assert shown.seconds > 0


def test_a_person_who_watches_sees_a_bar() -> None:
    program = "from sharder.progress import Progress\nwith Progress('shard', 4) as p: p.add(4, documents=2)"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    # The terminal's other end is closed, so reading ends with an error (EIO), not with nothing.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 10_000):
            shown += piece
    os.close(ours)
    assert b"shard: 100%" in shown


def test_facts_are_one_line() -> None:
    assert facts_line({"stage": "shard", "documents": 3}) == "stage=shard documents=3"


def test_long_work_is_done_again_after_a_longer_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pause = Pause(5)
    for took, rest in ((0.1, 5.0), (1.0, 20.0)):
        assert pause.is_over()
        now[0] += took
        pause.again()
        now[0] += rest - 0.01
        assert not pause.is_over()
        now[0] += 0.02
