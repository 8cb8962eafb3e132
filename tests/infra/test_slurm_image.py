import hashlib
import os
from pathlib import Path

import pytest

from infra.engine import Answer
from infra.slurm.image import build_sif, refuse_bad_sif, sif_asset, sif_of, sif_problem
from recorder import IMAGE, Recorder, a_job
from trainwright.spec.exits import MissingError
from trainwright.spec.slurm import SlurmTarget
from trainwright.spec.targets import Targets

JOB = a_job()


@pytest.fixture
def sif(tmp_path: Path) -> Path:
    """Return a SIF as `make sif` leaves it."""
    path = tmp_path / "x.sif"
    path.write_bytes(b"image")
    (tmp_path / "x.sif.sha256").write_text(f"{hashlib.sha256(b'image').hexdigest()}  x.sif\n")
    return path


def test_the_place_of_a_sif_follows_the_digest_or_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sif_of(JOB, tmp_path) == tmp_path / "assets/sif/0000000000000000.sif"
    named = a_job(targets=Targets(slurm=SlurmTarget(sif="$SCRATCH/x.sif")))
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert sif_of(named, tmp_path) == Path("/scratch/me/x.sif")


def test_a_sif_that_changed_is_found_and_a_good_one_is_read_once(sif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sif_problem(sif) is None
    monkeypatch.setattr("infra.slurm.image.sha256_file", never)
    assert sif_problem(sif) is None
    monkeypatch.undo()
    sif.write_bytes(b"other")
    assert str(sif_problem(sif)).startswith(f"{sif}: its sha256 is not the one in x.sif.sha256")
    sif.write_bytes(b"image")
    os.utime(sif, (1, 1))
    assert sif_problem(sif) is None


def never(path: Path) -> str:
    raise AssertionError(path)


def test_a_sif_or_a_hash_that_is_not_there_is_named(sif: Path) -> None:
    sif.with_name("x.sif.sha256").write_text("")
    assert str(sif_problem(sif)).startswith(f"{sif}.sha256: is empty")
    sif.with_name("x.sif.sha256").unlink()
    assert str(sif_problem(sif)).startswith(f"{sif}.sha256: is not there")
    sif.unlink()
    assert str(sif_problem(sif)).startswith(f"{sif}: is not there")


def test_fetch_makes_the_sif_of_the_experiments_own_digest_and_writes_down_its_hash(tmp_path: Path) -> None:
    path = sif_of(JOB, tmp_path)

    def answer(command: str) -> Answer:
        words = command.split()
        Path(words[2]).write_bytes(b"image")
        assert words[:2] + words[3:] == ["apptainer", "build", f"docker://{IMAGE}"]
        return Answer(0, "", "")

    engine = Recorder(programs=("apptainer",), answers=answer)
    build_sif(JOB, tmp_path, engine)
    assert engine.said[0][1]["APPTAINER_CACHEDIR"].startswith(str(tmp_path))
    assert sif_asset(JOB, tmp_path).problem() is None
    refuse_bad_sif(JOB, tmp_path)
    build_sif(JOB, tmp_path, Recorder())  # it is there: nobody is asked
    path.write_bytes(b"other")
    with pytest.raises(MissingError, match=r"its sha256 is not the one .*; run `trainwright fetch small`"):
        refuse_bad_sif(JOB, tmp_path)


def test_a_sif_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"^apptainer, singularity: neither is on this host"):
        build_sif(JOB, tmp_path, Recorder())
    failing = Recorder(programs=("singularity",), answers=lambda _: Answer(255, "", ""))
    with pytest.raises(MissingError, match=r"^singularity build ended with 255"):
        build_sif(JOB, tmp_path, failing)
    assert not list((tmp_path / "assets/sif").iterdir())
