"""A bar is for people: without a terminal there is none, and nothing breaks."""

import io
import sys

import pytest

from trainer.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO(), True), (Terminal(), False)])
def test_no_bar_without_a_person(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, shown: bool) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("train", 3, unit="step", shown=shown) as advance:
        advance("loss=1")
    assert stream.getvalue() == ""


def test_a_person_sees_where_a_resumed_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("train", 30, start=10, unit="step", shown=True) as advance:
        for _ in range(20):
            advance("loss=1.25")
    assert "train" in stream.getvalue()
    assert "10/30" in stream.getvalue()
