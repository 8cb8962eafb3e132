"""The documents of a run: what it reads, whom it may talk to, where it keeps its work, and the Jobs that do it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infra.job import IMAGE_ROOT, Job
from infra.kubernetes import policy
from infra.kubernetes.names import (
    NODES,
    RANK_ANNOTATION,
    labels,
    pods_of,
    prepare_name,
    refuse_bad_names,
    refuse_long,
    shards_name,
)
from infra.kubernetes.pod import EXPERIMENT, Step, literal, preparation, template, training
from trainwright.spec.exits import UserError
from trainwright.spec.variables import MAX_HOURS_VARIABLE

Document = dict[str, Any]
INDEX_VARIABLE = "TRAINWRIGHT_INDEX"
"""A pod's number in its Job."""
POINT_SUFFIX, PART_SUFFIX = ".words", ".part"
"""After that number: the file with the words of this point of a sweep, or of this part of a corpus."""
MAX_CONFIG_BYTES = 180 << 10
"""kubectl keeps what it applied in an annotation beside it, and a cluster takes 256 KiB of those."""
DNS, HTTPS = 53, 443
SHARED, OWN = "ReadWriteMany", "ReadWriteOnce"
LATER_HOURS = 1.0
"""For images, volumes and nodes to come: the cluster counts from before boot, and so must come after it."""
SKIPPED = {
    "CKV_K8S_15": "an image by digest is always the same, and a restart must not wait for a registry",
    "CKV_K8S_35": "the libraries that use these secrets read them from the environment",
    "CKV_K8S_43": "this is to be read: launch refuses an image that is not named by digest",
}
"""Checks of checkov that a Job does not follow, and why; they stand in it."""


def refuse_what_a_cluster_cannot(job: Job) -> None:
    """Raise `UserError` for what would fail only after it was sent."""
    settings, nodes = job.targets.kubernetes, job.resources.nodes
    refuse_bad_names(job)
    if nodes > 1 and settings.access_mode == OWN:
        way = f"several nodes write to the volume at once; use {SHARED}, and a storage class that has it"
        raise UserError(f"targets.kubernetes.access_mode={OWN}: resources.nodes={nodes}, and {way}")
    for folder in job.folders:
        if folder != IMAGE_ROOT and not folder.startswith(f"{IMAGE_ROOT}/"):
            raise UserError(f"{folder}: is not on the volume, which a pod has at {IMAGE_ROOT}; copy it there first")
    if job.flags and settings.prepare == "off":
        way = "they are for one start, that of the preparation; set targets.kubernetes.prepare=job"
        raise UserError(f"{' '.join(job.flags)}: a cluster would repeat such words with every restart; {way}")


def config_map(job: Job, more: Mapping[str, str] | None = None) -> Document:
    """Return what the run's pods read: the experiment as its author wrote it, and what goes beside it."""
    files = {job.experiment_file: job.experiment_text, **part_files(job), **(more or {})}
    size = sum(len(name.encode()) + len(text.encode()) for name, text in files.items())
    if size > MAX_CONFIG_BYTES:
        raise UserError(f"{job.experiment_file}: {size} bytes with all that goes beside it; {MAX_CONFIG_BYTES} fit")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(job, job.name, "experiment"), "data": files}


def network_policy(job: Job) -> Document:
    """Return whom the run's pods may talk to: names, HTTPS outwards, and one another where they are several.

    Between nodes no port is named, because NCCL takes any.
    """
    one_another = job.resources.nodes > 1
    names = [{"protocol": protocol, "port": DNS} for protocol in ("UDP", "TCP")]
    outwards = [{"ports": names}, {"ports": [{"protocol": "TCP", "port": HTTPS}]}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _named(job, job.name, "network"),
        "spec": {
            "podSelector": {"matchLabels": pods_of(job.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [_peers(job.name)]}] if one_another else [],
            "egress": [*outwards, *([{"to": [_peers(job.name)]}] if one_another else [])],
        },
    }


def _peers(name: str) -> Document:
    return {"podSelector": {"matchLabels": pods_of(name)}}


def volume_claim(job: Job, *, shared: bool) -> Document | None:
    """Return the claim of the volume that keeps data and checkpoints; None where k8s/base has made it."""
    settings = job.targets.kubernetes
    if settings.volume_gib is None:
        return None
    storage = settings.shared_storage_class if shared else settings.storage_class
    mode = settings.access_mode or (SHARED if shared else OWN)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {**_named(job, settings.volume, "volume"), "labels": labels(settings.volume, "volume")},
        "spec": {
            "accessModes": [mode],
            **({"storageClassName": storage} if storage else {}),
            "resources": {"requests": {"storage": f"{settings.volume_gib}Gi"}},
        },
    }


def shards(job: Job) -> Document | None:
    """Return the Job whose indexes make the parts of a large corpus; None where the preparation does all of it."""
    parts = job.targets.kubernetes.prepare_parts
    if parts == 1:
        return None
    name = shards_name(job.name)
    refuse_long(name, f"-{parts - 1}", f"targets.kubernetes.prepare_parts={parts}")
    words = [literal(word) for word in ("shard", f"{EXPERIMENT}/{job.experiment_file}", *job.overrides)]
    step = replace(preparation(job, [*words, _file_of_its_own(PART_SUFFIX)], (_index(),)), component="shards")
    rules = {"completionMode": "Indexed", "completions": parts, "parallelism": parts}
    return _job(job, name, step, {**rules, "backoffLimit": job.targets.kubernetes.max_failures})


def part_files(job: Job) -> dict[str, str]:
    """Return what tells each index of `shards` its part: a cluster counts from 0, and adds nothing."""
    parts = job.targets.kubernetes.prepare_parts
    return {f"{index}{PART_SUFFIX}": f"--part\n{index + 1}/{parts}\n" for index in range(parts)} if parts > 1 else {}


def _file_of_its_own(suffix: str) -> str:
    return f"@{EXPERIMENT}/$({INDEX_VARIABLE}){suffix}"


def _index() -> dict[str, Any]:
    return {"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": RANK_ANNOTATION}}}


def prepare(job: Job) -> Document:
    """Return the Job that makes shards and tokenizer, and obeys what this launch asks of its first start."""
    words = (*job.boot_arguments(f"{EXPERIMENT}/{job.experiment_file}"), "resources.nodes=1", "--until", "tokenizer")
    step = preparation(job, map(literal, words))
    return _job(job, prepare_name(job.name), step, {"backoffLimit": job.targets.kubernetes.max_failures})


def train(job: Job) -> Document:
    """Return the Job that trains on one node, or the JobSet that does on several."""
    hours = job.targets.kubernetes.max_hours
    told = () if hours is None else ({"name": MAX_HOURS_VARIABLE, "value": f"{hours:g}"},)
    step = training(job, map(literal, ("boot", f"{EXPERIMENT}/{job.experiment_file}", *job.overrides)), told)
    limit = job.targets.kubernetes.max_failures
    if job.resources.nodes == 1:
        return _job(job, job.name, step, {**_deadline(job), "backoffLimit": limit})
    nodes = {
        **_deadline(job),
        # The set starts all nodes again or none: one that came back alone would find nobody to train with.
        "backoffLimit": 0,
        "completionMode": "Indexed",
        "completions": job.resources.nodes,
        "parallelism": job.resources.nodes,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": policy.of_nodes(),
        "template": template(job, step),
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _top(job, job.name, "train"),
        "spec": {
            "ttlSecondsAfterFinished": _ttl(job),
            # Nodes ask for one another before they are ready, and are ready only together.
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": job.name},
            "failurePolicy": policy.of_set(limit),
            "replicatedJobs": [{"name": NODES, "replicas": 1, "template": {"spec": nodes}}],
        },
    }


def points(job: Job, num_points: int, at_once: int) -> Document:
    """Return the Job whose indexes are the points of a sweep; one that fails leaves the others alone."""
    words = ("boot", literal(f"{EXPERIMENT}/{job.experiment_file}"), _file_of_its_own(POINT_SUFFIX))
    step = replace(training(job, words, (_index(),)), component="sweep")
    rules = {
        **_deadline(job),
        "completionMode": "Indexed",
        "completions": num_points,
        "parallelism": min(at_once, num_points),
        "backoffLimitPerIndex": job.targets.kubernetes.max_failures,
        "maxFailedIndexes": num_points,
    }
    return _job(job, job.name, step, rules, policy.of_points())


def _job(
    job: Job, name: str, step: Step, rules: Mapping[str, Any], failures: Mapping[str, Any] | None = None
) -> Document:
    spec = {
        **rules,
        "ttlSecondsAfterFinished": _ttl(job),
        # Two trainers on one volume would be one too many: the next pod comes when the last one is gone.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": failures or policy.of_job(),
        "template": template(job, step),
    }
    top = {**_top(job, name, step.component), "annotations": _skipped(job, step)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": top, "spec": spec}


def _named(job: Job, name: str, component: str) -> dict[str, Any]:
    namespace = job.targets.kubernetes.namespace
    return {"name": name, "namespace": namespace, "labels": labels(job.name, component)}


def _top(job: Job, name: str, component: str) -> dict[str, Any]:
    """Return the metadata of what Kueue looks at."""
    settings, metadata = job.targets.kubernetes, _named(job, name, component)
    if settings.queue is None:
        return metadata
    queue = {"kueue.x-k8s.io/queue-name": settings.queue}
    if settings.priority_class is not None:
        queue["kueue.x-k8s.io/priority-class"] = settings.priority_class
    if settings.max_hours is not None and component != "prepare":
        queue["kueue.x-k8s.io/max-exec-time-seconds"] = str(_seconds(settings.max_hours))
    return {**metadata, "labels": {**metadata["labels"], **queue}}


def _skipped(job: Job, step: Step) -> dict[str, str]:
    """Return the annotations by which checkov learns which of its checks are not followed, and why."""
    needless = {"CKV_K8S_35": not job.secrets, "CKV_K8S_43": "@sha256:" in step.image}
    asked = [name for name in SKIPPED if not needless.get(name)]
    return {f"checkov.io/skip{number}": f"{name}={SKIPPED[name]}" for number, name in enumerate(asked, 1)}


def _deadline(job: Job) -> dict[str, int]:
    hours = job.targets.kubernetes.max_hours
    return {} if hours is None else {"activeDeadlineSeconds": _seconds(hours)}


def _seconds(hours: float) -> int:
    """Return when the cluster ends what boot, which counts over all its starts, should have ended before."""
    return math.ceil((hours + LATER_HOURS) * 3600)


def _ttl(job: Job) -> int:
    return job.targets.kubernetes.keep_days * 86400
