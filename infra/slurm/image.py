"""The SIF of a site: where it lies, what its sha256 must be, and how `fetch` makes it."""

import os
from pathlib import Path

from infra.engine import Engine
from infra.job import Job
from infra.slurm.layout import sif_path
from trainwright.spec.exits import MissingError
from trainwright.store.assets import Asset
from trainwright.store.files import fsync_folder, sha256_file, write_text

SEEN = ".verified"
"""Beside the SIF: its size and time when its hash was right, so that gigabytes are not read for every question."""


def sif_of(job: Job, root: Path) -> Path:
    """Return the SIF's path on this host."""
    text = sif_path(job)
    variable, _, rest = text.partition("/") if text.startswith("$") else ("", "", "")
    if variable == "$root":
        return root / rest
    return Path(os.environ.get(variable[1:], "")) / rest if variable else Path(text)


def sif_asset(job: Job, root: Path) -> Asset:
    """Return the SIF as an asset."""
    path = sif_of(job, root)
    return Asset("image", "image", path, lambda: sif_problem(path))


def sif_problem(path: Path) -> str | None:
    """Return what is wrong with a SIF, or None. The hash is read once; then size and time must be the same."""
    try:
        found = path.stat()
        kept = path.with_name(f"{path.name}.sha256").read_text(encoding="utf-8").split()[0]
    except FileNotFoundError as error:
        way = "`make sif` and `trainwright fetch` write both"
        return f"{error.filename}: is not there; {way}"
    except IndexError:
        return f"{path}.sha256: is empty; `make sif` and `trainwright fetch` write it"
    seen, now = path.with_name(f"{path.name}{SEEN}"), f"{kept} {found.st_size} {found.st_mtime_ns}\n"
    if seen.is_file() and seen.read_text(encoding="utf-8") == now:
        return None
    if sha256_file(path) != kept:
        return f"{path}: its sha256 is not the one in {path.name}.sha256; copy or fetch it again"
    if os.access(path.parent, os.W_OK):
        write_text(seen, now)
    return None


def refuse_bad_sif(job: Job, root: Path) -> None:
    """Raise `MissingError` when a job's SIF is not there or not what it was."""
    if (problem := sif_problem(sif_of(job, root))) is not None:
        raise MissingError(f"{problem}; run `trainwright fetch {job.name}` on a host with internet")


def build_sif(job: Job, root: Path, engine: Engine) -> None:
    """Make the SIF of the experiment's image where there is none; a SIF that the site names is the user's to bring."""
    path = sif_of(job, root)
    if path.exists() or job.targets.slurm.sif is not None:
        return
    program = next((name for name in ("apptainer", "singularity") if engine.has(name)), None)
    if program is None:
        raise MissingError("apptainer, singularity: neither is on this host; load its module, or bring a SIF by hand")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # A home has a quota: layers and the unpacked tree go beside the result.
    folders = {f"{name}_{what}": str(path.parent) for name in ("APPTAINER", "SINGULARITY") for what in ("TMPDIR",)}
    caches = {f"{name}_CACHEDIR": str(path.parent / "cache") for name in ("APPTAINER", "SINGULARITY")}
    code = engine.given({**folders, **caches}).show(program, "build", str(temporary), f"docker://{job.needed_image()}")
    if code != 0:
        temporary.unlink(missing_ok=True)
        raise MissingError(f"{program} build ended with {code} (see above); {path} was not made")
    digest = sha256_file(temporary)
    temporary.replace(path)
    fsync_folder(path.parent)
    write_text(path.with_name(f"{path.name}.sha256"), f"{digest}  {path.name}\n")
