"""The pod in which boot runs: what it asks for, where it may be, and all that it may not do.

It keeps to the Pod Security Standard `restricted`, and beyond that has a root file system that cannot be written and no
token of the cluster. Requests equal limits, so that the last to be killed for memory is the one that trains.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.job import IMAGE_ROOT, SCRATCH, Job
from infra.kubernetes.names import CONTAINER, PORT, RANK_ANNOTATION, first_host, labels
from infra.shell import command_line
from trainwright.spec.exits import UserError
from trainwright.spec.kubernetes import TOLERATION
from trainwright.spec.variables import STOP_FILE_VARIABLE

EXPERIMENT = "/experiment"
"""Where the config map is mounted."""
STOP_FILE = f"{SCRATCH}/stop"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's own place
LOGS_GIB = 1
"""Of a node's disk, for what pods print: logs count as scratch does."""
OF_A_PLACE = "topology.kubernetes.io/"
"""Labels of zones and regions, in which the volume lies too."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one pod asks of its node."""

    cpus: int
    memory_mib: int
    shm_mib: int = 0
    devices: Mapping[str, str] = field(default_factory=dict)

    def resources(self, scratch_gib: int) -> dict[str, Any]:
        """Return requests and limits; what lies in shared memory counts as the pod's memory."""
        asked = {
            "cpu": str(self.cpus),
            "memory": f"{self.memory_mib + self.shm_mib}Mi",
            "ephemeral-storage": f"{scratch_gib + LOGS_GIB}Gi",
        }
        return {"requests": asked, "limits": {**asked, **self.devices}}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run, as a pod does it."""

    component: str
    image: str
    arguments: tuple[str, ...]
    """As Kubernetes reads them: through `literal`, where nothing is to be filled in."""
    needs: Needs
    environ: tuple[dict[str, Any], ...]
    placement: Mapping[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()


def training(job: Job, arguments: Iterable[str], environ: Iterable[dict[str, Any]] = ()) -> Step:
    """Return the step that trains, on one of the run's nodes."""
    settings, many = job.targets.kubernetes, job.resources.nodes > 1
    near = many and settings.queue is not None and settings.topology is not None
    topology = {f"kueue.x-k8s.io/podset-{settings.topology_mode}-topology": str(settings.topology)} if near else {}
    return Step(
        "train",
        job.needed_image(),
        tuple(arguments),
        _train_needs(job),
        (*_environ(job), *(_of_nodes(job) if many else ()), *environ),
        _placement(job),
        {**topology, **(dict(pairs(settings.fabric_annotations)) if many else {})},
        ("IPC_LOCK",) if many and settings.fabric_locks_memory else (),
    )


def preparation(job: Job, arguments: Iterable[str], environ: Iterable[dict[str, Any]] = ()) -> Step:
    """Return the step that makes shards and tokenizer; it needs no GPU, and goes where the volume can be."""
    settings = job.targets.kubernetes
    zone = {name: value for name, value in pairs(settings.node_selector) if name.startswith(OF_A_PLACE)}
    return Step(
        "prepare",
        settings.prepare_image or job.needed_image(),
        tuple(arguments),
        Needs(settings.prepare_cpus, _mib(settings.prepare_memory_gib)),
        (*_environ(job), *environ),
        {"nodeSelector": zone} if zone else {},
    )


def template(job: Job, step: Step) -> dict[str, Any]:
    """Return a step's pod, as the template of a Job."""
    settings = job.targets.kubernetes
    # With a queue the priority is Kueue's own, on the Job.
    priority = {"priorityClassName": settings.priority_class} if settings.priority_class and not settings.queue else {}
    noted = {"annotations": dict(step.annotations)} if step.annotations else {}
    medium = {"medium": "Memory", "sizeLimit": f"{step.needs.shm_mib}Mi"}
    return {
        "metadata": {"labels": labels(job.name, step.component), **noted},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": settings.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": settings.grace_seconds,
            **priority,
            **step.placement,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": settings.user,
                "runAsGroup": settings.user,
                "fsGroup": settings.user,
                # A volume with a million files is not walked through at each start.
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"imagePullSecrets": [{"name": job.registry}]} if job.registry else {}),
            "containers": [_container(job, step)],
            "volumes": [
                {"name": "root", "persistentVolumeClaim": {"claimName": settings.volume}},
                {"name": "scratch", "emptyDir": {"sizeLimit": f"{settings.scratch_gib}Gi"}},
                *([{"name": "shm", "emptyDir": medium}] if step.needs.shm_mib else []),
                {"name": "experiment", "configMap": {"name": job.name}},
            ],
        },
    }


def _container(job: Job, step: Step) -> dict[str, Any]:
    more = {"add": list(step.capabilities)} if step.capabilities else {}
    return {
        "name": CONTAINER,
        "image": step.image,
        # By digest: what a node has is right, and a restart must not wait for a registry.
        "imagePullPolicy": "IfNotPresent",
        "args": list(step.arguments),
        "env": [*step.environ, {"name": STOP_FILE_VARIABLE, "value": STOP_FILE}],
        "resources": step.needs.resources(job.targets.kubernetes.scratch_gib),
        "lifecycle": {"preStop": {"exec": {"command": ["touch", STOP_FILE]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], **more},
        },
        "volumeMounts": [
            {"name": "root", "mountPath": IMAGE_ROOT},
            {"name": "scratch", "mountPath": SCRATCH},
            *([{"name": "shm", "mountPath": SHARED_MEMORY}] if step.needs.shm_mib else []),
            {"name": "experiment", "mountPath": EXPERIMENT, "readOnly": True},
        ],
    }


def _train_needs(job: Job) -> Needs:
    settings, asked = job.targets.kubernetes, job.resources
    cpus = asked.cpus_per_node or settings.cpus_per_rank * asked.ranks_per_node
    memory = asked.memory_gib or settings.memory_gib_per_rank * asked.ranks_per_node
    devices = {}
    if asked.device == "cuda":
        if settings.gpu_resource is None:
            way = "name the resource by which GPUs are asked for, such as nvidia.com/gpu"
            raise UserError(f"targets.kubernetes.gpu_resource: is not set, and resources.device=cuda; {way}")
        devices[settings.gpu_resource] = str(asked.num_gpus_per_node)
    if asked.nodes > 1:
        devices |= dict(pairs(settings.fabric_devices))
    return Needs(cpus, _mib(memory), _mib(asked.needed_shm_gib), devices)


def _environ(job: Job) -> Iterator[dict[str, Any]]:
    yield from ({"name": name, "value": literal(value)} for name, value in job.environ)
    secret = job.targets.kubernetes.secret
    if job.secrets and secret is None:
        way = f"name the Secret that holds {', '.join(job.secrets)}, which is made by\n  {secret_line(job)}"
        raise UserError(f"targets.kubernetes.secret: is not set; {way}")
    for name in job.secrets:
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}


def secret_line(job: Job) -> str:
    """Return the command that makes the Secret from a shell's environment, with no value on a command line."""
    settings = job.targets.kubernetes
    where = (f"--namespace={settings.namespace}", *([f"--context={settings.context}"] if settings.context else []))
    make = ("kubectl", *where, "create", "secret", "generic", settings.secret or "trainwright")
    return f"env | grep -E '^({'|'.join(job.secrets)})=' | {command_line((*make, '--from-env-file=/dev/stdin'))}"


def _of_nodes(job: Job) -> Iterator[dict[str, Any]]:
    """Yield torchrun's own variables, by which boot knows its node and where the first one answers."""
    yield {"name": "PET_NNODES", "value": str(job.resources.nodes)}
    yield {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": RANK_ANNOTATION}}}
    yield {"name": "PET_MASTER_ADDR", "value": first_host(job.name)}
    yield {"name": "PET_MASTER_PORT", "value": str(PORT)}
    for name, value in pairs(job.targets.kubernetes.fabric_variables):
        yield {"name": name, "value": literal(value)}


def _placement(job: Job) -> dict[str, Any]:
    """Return on which nodes the run may be: with GPUs, of the type asked for, with their taints accepted."""
    settings, gpus = job.targets.kubernetes, job.resources.device == "cuda"
    selector = dict(pairs(settings.node_selector))
    if gpus and settings.gpu is not None:
        types = dict(pairs(settings.gpu_types))
        if settings.gpu not in types or settings.gpu_label is None:
            way = "name a site that knows it (targets.kubernetes.site), or use node_selector"
            raise UserError(f"targets.kubernetes.gpu={settings.gpu}: this cluster's GPU types are not known; {way}")
        selector[settings.gpu_label] = types[settings.gpu]
    taints = [_toleration(word) for word in settings.tolerations] if gpus else []
    return {**({"nodeSelector": selector} if selector else {}), **({"tolerations": taints} if taints else {})}


def _toleration(word: str) -> dict[str, str]:
    found = TOLERATION.fullmatch(word)
    assert found is not None, word
    value = {"operator": "Equal", "value": found["value"]} if found["value"] else {"operator": "Exists"}
    return {"key": found["key"], **value, **({"effect": found["effect"]} if found["effect"] else {})}


def pairs(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield words of the form NAME=VALUE as pairs."""
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def literal(text: str) -> str:
    """Return text that arrives as it is: Kubernetes reads $(NAME) as a variable, and $$ as one dollar sign."""
    return text.replace("$", "$$")


def _mib(gib: float) -> int:
    return math.ceil(gib * 1024)
