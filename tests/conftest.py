"""What every test stands on: a clean environment, an experiment file, records of rendered text, and honest skips."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
import os
import signal
from pathlib import Path
from typing import NoReturn

from hypothesis import settings
import pytest

from small_disks import MountRefusedError, SmallDisk, mounted
from trainwright.spec.paths import ROOT_VARIABLE
from trainwright.spec.variables import BOOT_VARIABLES, RUN_CONFIG

# Two slow cores are no reason to fail, and CI must not fail by luck: it draws the same examples each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

SMALL = """\
name: small
train: {seq_len_tokens: 32, micro_batch: 2, global_batch_sequences: 8, steps: 10}
model: {dim: 64, num_layers: 2, num_heads: 2}
"""
"""An experiment that leaves everything else to the defaults."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the records of rendered text anew")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what the machine's own environment says about experiments."""
    for name in (ROOT_VARIABLE, RUN_CONFIG, *BOOT_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def experiment_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an experiment: `SMALL` and the text given, or `text` alone."""

    def write(more: str = "", *, text: str | None = None) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(SMALL + more if text is None else text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Return a check that a text is, to the last byte, the recorded one; only `--update-golden` writes records."""

    def check(record: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(text, encoding="utf-8")
        assert record.is_file(), f"{record} is missing; look at the text, then run pytest --update-golden"
        assert text == record.read_text(encoding="utf-8")

    return check


@pytest.fixture
def engine_missing() -> Callable[[str], NoReturn]:
    """Return what a test calls when this machine lacks an engine: it skips, or fails where engines are required."""

    def stop(reason: str) -> NoReturn:
        if os.environ.get("TRAINWRIGHT_REQUIRE_ENGINES") == "1":
            pytest.fail(f"required here: {reason}")
        pytest.skip(reason)

    return stop


@pytest.fixture
def small_disk(tmp_path: Path, engine_missing: Callable[[str], NoReturn]) -> Iterator[Callable[..., SmallDisk]]:
    """Return a function that mounts a real disk of so many KiB at a folder; what it mounts is unmounted afterwards."""
    with ExitStack() as stack:

        def mount(kib: int, at: Path = tmp_path / "disk") -> SmallDisk:
            try:
                return stack.enter_context(mounted(at, kib))
            except MountRefusedError as error:
                engine_missing(str(error))

        yield mount


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU on this machine")
