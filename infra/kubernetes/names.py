"""What the things of a run are called in a cluster, how they are labelled, and what DNS allows."""

from infra.job import Job
from trainwright.spec.exits import UserError

CONTAINER = "boot"
NODES = "node"
"""The one group of pods in a JobSet; part of every pod's name there."""
PORT = 29500
MAX_NAME = 63
"""Of one part of a DNS name, and so of a pod that is to be found by its name."""
RANDOM_SUFFIX = "-abcde"
"""The length that the cluster adds to the names of pods; JobSet wants room for it."""
RANK_ANNOTATION = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
"""Where a pod of an Indexed Job finds its number."""


def prepare_name(name: str) -> str:
    """Return the name of the Job that makes shards and tokenizer."""
    return f"{name}-prepare"


def shards_name(name: str) -> str:
    """Return the name of the Job that makes the shards of a large corpus before it."""
    return f"{name}-shards"


def first_host(name: str) -> str:
    """Return the name under which the other nodes of a JobSet find the first one."""
    return f"{name}-{NODES}-0-0.{name}"


def labels(name: str, component: str) -> dict[str, str]:
    """Return the labels of one thing of a run."""
    return {
        "app.kubernetes.io/name": "trainwright",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "trainwright",
        "app.kubernetes.io/managed-by": "trainwright",
    }


def pods_of(name: str) -> dict[str, str]:
    """Return the labels that select all pods of a run."""
    return {"app.kubernetes.io/instance": name}


def refuse_bad_names(job: Job) -> None:
    """Raise `UserError` for a run whose pods could not be found by name."""
    if job.resources.nodes == 1:
        return
    if not job.name[0].isalpha():
        raise UserError(f"name={job.name}: with several nodes it is part of DNS names; let it start with a letter")
    rest = f"-{NODES}-0-{job.resources.nodes - 1}{RANDOM_SUFFIX}"
    refuse_long(job.name, rest, f"resources.nodes={job.resources.nodes}")


def refuse_long(name: str, rest: str, because: str) -> None:
    """Raise `UserError` for a name that is too long with what is added to it."""
    if len(name) + len(rest) > MAX_NAME:
        last = (
            f"its last pod would be called {name}{rest}, {len(name) + len(rest)} characters, and DNS takes {MAX_NAME}"
        )
        raise UserError(f"name={name}: with {because} {last}; a name of at most {MAX_NAME - len(rest)} fits")
