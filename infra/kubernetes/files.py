"""The files of a run: one for all its pods, one for each step, in the order in which they are applied.

By hand: apply config.yaml and prepare.yaml, wait for the preparation, apply train.yaml.
"""

from infra.job import Job, Rendered
from infra.kubernetes import documents
from infra.kubernetes.documents import Document
from infra.yaml_text import yaml_text

VOLUME, CONFIG, SHARDS, PREPARE = "volume.yaml", "config.yaml", "shards.yaml", "prepare.yaml"
TRAIN = "train.yaml"
HEADER = "# {what} of {name}. Rendered; edit the experiment instead.\n"


def files_of(job: Job) -> tuple[Rendered, ...]:
    """Return the manifests of a run."""
    documents.refuse_what_a_cluster_cannot(job)
    train = rendered(TRAIN, "Training", job, documents.train(job))
    return (*before(job, documents.config_map(job)), train)


def is_shared(job: Job, at_once: int = 1) -> bool:
    """Return whether several pods write to the volume at once."""
    parts = job.targets.kubernetes.prepare_parts if job.targets.kubernetes.prepare == "job" else 1
    return max(job.resources.nodes, parts, at_once) > 1


def before(job: Job, config: Document, at_once: int = 1) -> tuple[Rendered, ...]:
    """Return the manifests that are applied before the one that trains."""
    claim = documents.volume_claim(job, shared=is_shared(job, at_once))
    volume = () if claim is None else (rendered(VOLUME, "The volume", job, claim),)
    settings = rendered(
        CONFIG, "What the pods read, and whom they talk to,", job, config, documents.network_policy(job)
    )
    if job.targets.kubernetes.prepare == "off":
        return (*volume, settings)
    parts = documents.shards(job)
    shards = () if parts is None else (rendered(SHARDS, "Shards, in parts,", job, parts),)
    return (*volume, settings, *shards, rendered(PREPARE, "Shards and tokenizer", job, documents.prepare(job)))


def rendered(path: str, what: str, job: Job, *found: Document) -> Rendered:
    """Return documents as one file."""
    return Rendered(path, HEADER.format(what=what, name=job.name) + "---\n".join(map(yaml_text, found)))
