"""Images built once for all tests of engines, and a folder that a container of any user may write."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import Sif
import machine


@pytest.fixture(scope="session")
def engines() -> Iterator[None]:
    """See to it that no mount of an engine's store outlives the tests."""
    yield
    machine.release()


def built(target: str) -> str:
    """Return the name of an image, built from this checkout."""
    try:
        return machine.build(target)
    except machine.AbsentError as error:
        machine.missing(str(error))


@pytest.fixture(scope="session")
def trainer_cpu(engines: None) -> str:
    """Return the image with torch for CPUs."""
    del engines
    return built("trainer-cpu")


@pytest.fixture(scope="session")
def sif(trainer_cpu: str) -> Iterator[Sif]:
    """Convert the image by the documented command."""
    del trainer_cpu
    try:
        program = machine.apptainer()
    except machine.AbsentError as error:
        machine.missing(str(error))
    environ = {**machine.environment(), "APPTAINER": program}
    machine.run("make", "--no-print-directory", "sif", "TARGET=trainer-cpu", environ=environ)
    path = machine.ROOT / "build" / "trainwright-trainer-cpu.sif"
    yield Sif(path, program)
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def sharder(engines: None) -> str:
    """Return the image without torch."""
    del engines
    return built("sharder")


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root volume of its own, as a site gives it: any user of group 0 may write."""
    folder = tmp_path_factory.mktemp("volume") / "root"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    return folder
