"""How the image runs under Apptainer or Singularity: the one place that knows their flags.

Targets that run a SIF render what is here, and `make sif` prints it. Pure: nothing looks at the machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ENTRYPOINT = "/opt/trainwright/docker/entrypoint.sh"
"""Given to `exec`, which takes words as they are; `run` passes them through a shell of the image once more."""
ROOT = "/workspace"
SCRATCH = "/tmp"  # noqa: S108 - a place inside the container
CONTAINED = ("--containall", "--no-init", "--no-umask", "--no-eval")
"""Nothing of the host but what is bound: no home, no working folder, no environment, processes of its own; the caller's
umask; and values of variables that are not run through a shell."""


@dataclass(frozen=True, slots=True)
class Container:
    """One start of the image."""

    sif: str
    root: str
    """The host's folder that becomes the root volume."""
    scratch: str
    """The host's folder that becomes /tmp: --containall would give a small one in memory."""
    gpus: bool = False
    """Bind the host's NVIDIA driver; on a machine without one the flag only warns, so it is not given."""
    binds: tuple[tuple[str, str], ...] = ()
    """More (host, container) folders or files, read-only."""
    flags: tuple[str, ...] = ()
    """What a site needs besides, such as --no-privs."""

    def arguments(self, words: Sequence[str], program: str = "apptainer") -> list[str]:
        """Return the argument list that runs some words of `trainwright` in the image."""
        where = [f"{self.root}:{ROOT}", f"{self.scratch}:{SCRATCH}"]
        where += [f"{host}:{inside}:ro" for host, inside in self.binds]
        binds = [word for bind in where for word in ("--bind", bind)]
        nvidia = ["--nv"] if self.gpus else []
        return [program, "exec", *CONTAINED, *nvidia, *self.flags, *binds, self.sif, ENTRYPOINT, *words]


def exported(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to export for a container to see these, under Apptainer as under Singularity.

    As variables rather than as `--env`, which splits values at commas and shows them in the list of processes.
    """
    return {f"{prefix}ENV_{name}": value for name, value in environ.items() for prefix in ("APPTAINER", "SINGULARITY")}
