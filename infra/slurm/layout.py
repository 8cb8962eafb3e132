"""Where things of a SLURM launch lie. Jobs start in ROOT/launch/NAME, so all paths in scripts are relative to it."""

import re

from infra.job import IMAGE_ROOT, Job
from trainwright.spec.exits import UserError

OVER = "over"
"""Written when the run is over, with boot's exit code; later links see it and exit at once."""
BEGUN = "begun"
"""Written by the first job of a launch: flags such as --fresh are for that one alone."""
LOGS = "logs"
"""Of a run folder."""
UP = "../.."
"""The root, seen from the folder of a launch."""


def run_path(job: Job) -> str:
    """Return the run folder, seen from the folder of the launch."""
    if job.runs is None:
        return f"{UP}/runs/{job.name}"
    if not re.fullmatch(r"/[A-Za-z0-9_./@+-]*", job.runs):
        hint = "here it must be an absolute path of letters, digits and _ . / @ + -"
        raise UserError(f"paths.runs={job.runs}: {hint}")
    return f"{job.runs}/{job.name}"


def log_path(job: Job, what: str) -> str:
    """Return the log that all jobs of one kind append to (`train`, `prepare`)."""
    return f"{run_path(job)}/{LOGS}/{what}.out"


def experiment_path(job: Job) -> str:
    """Return the experiment as boot finds it, inside the container or outside."""
    if job.targets.slurm.container == "off":
        return f"launch/{job.name}/{job.experiment_file}"
    return f"{IMAGE_ROOT}/launch/{job.name}/{job.experiment_file}"


def train_script(name: str) -> str:
    """Return the name of the job script."""
    return f"{name}.sbatch"


def prepare_script(name: str) -> str:
    """Return the name of the script of the preparation."""
    return f"{name}.prepare.sbatch"


def node_script(name: str) -> str:
    """Return the name of the script that each node runs."""
    return f"{name}.node.sh"


def venv_script(name: str) -> str:
    """Return the name of the script that makes the virtual environment of a site without containers."""
    return f"{name}.venv.sh"


def secrets_file(name: str) -> str:
    """Return the name of the file with the values of secrets."""
    return f"{name}.env"


def sif_path(job: Job) -> str:
    """Return the SIF, in terms of the node script's `$root`."""
    if (given := job.targets.slurm.sif) is not None:
        return given
    if job.image is None:
        way = "name an image by digest (`make push` prints it), or a SIF (`make sif` makes one) in targets.slurm.sif"
        raise UserError(f"image: a job on SLURM runs the image, and none is named; {way}")
    _, _, digest = job.image.partition("@sha256:")
    return f"$root/assets/sif/{digest[:16] or job.name}.sif"
