"""What a Kubernetes cluster needs to know: most of it comes from a cluster's profile and the user's `local.yaml`.

Labels, taints and quantities are written as kubectl takes them, one word each, because keys hold dots and overrides
have no other way to write them.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from trainwright.spec.settings import Count, CountOrZero, Name, OptionalCount, OptionalImage, OptionalName
from trainwright.spec.settings import Off, OptionalPositive, Positive, Problem, Settings, Whole

KEY = r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
VALUE = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
TOLERATION = re.compile(rf"(?P<key>{KEY})(=(?P<value>{VALUE}))?(:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?")
SHAPES = {
    "gpu_types": (rf"[a-z0-9][a-z0-9-]*={VALUE}", "NAME=VALUE, the value being that of gpu_label on the nodes"),
    "node_selector": (rf"{KEY}={VALUE}", "LABEL=VALUE, such as topology.kubernetes.io/zone=us-east1-b"),
    "tolerations": (TOLERATION.pattern, "KEY[=VALUE][:EFFECT] as of a taint, such as nvidia.com/gpu:NoSchedule"),
    "fabric_devices": (rf"{KEY}=[1-9][0-9]*(Mi|Gi)?", "RESOURCE=QUANTITY, such as rdma/ib=1"),
    "fabric_annotations": (rf"{KEY}=(.|\n)*", "KEY=VALUE, as on a pod"),
    "fabric_variables": (r"[A-Z_][A-Z0-9_]*=.*", "NAME=VALUE, such as NCCL_SOCKET_IFNAME=eth0"),
}
"""List -> what each of its words must be, and how to say so."""


def _listed(value: Any) -> Any:
    """Read `A,B` as a list, because an override on the command line has no other way to write one."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Words = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
OptionalWord = Annotated[Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=253)] | None, Off]
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]


class KubernetesTarget(Settings):
    """A Kubernetes cluster: a Job, or with several nodes a JobSet, and the volume that outlives it."""

    site: OptionalName = None
    """The profile in experiments/sites, such as gke, eks, coreweave or gpu-operator."""
    context: OptionalWord = None
    """kubectl's context; null is the current one. Your own, in experiments/sites/local.yaml."""
    namespace: Name = "trainwright"
    """Where everything goes; k8s/base makes it."""
    service_account: Name = "trainwright"
    """Whom pods run as; it needs no rights."""
    secret: OptionalName = None
    """The Secret that holds the experiment's secrets, each under its own name; you make it, `launch` says how."""
    queue: OptionalName = None
    """Kueue's LocalQueue; null goes without Kueue."""
    priority_class: OptionalName = None
    """The pods' PriorityClass; with a queue, Kueue's WorkloadPriorityClass."""
    topology: OptionalWord = None
    """With a queue and several nodes: the label that nodes near one another share, for Kueue to place by."""
    topology_mode: Literal["preferred", "required"] = "preferred"
    """Whether the nodes of a run must share that label's value."""
    gpu: OptionalName = None
    """The GPU type, by the profile's name for it, such as h100; null takes any node with GPUs."""
    gpu_label: OptionalWord = None
    """The label by which nodes tell their GPU type."""
    gpu_types: Words = ()
    """The types that the cluster knows, as NAME=VALUE of that label."""
    gpu_resource: OptionalWord = "nvidia.com/gpu"
    """How GPUs are asked for."""
    node_selector: Words = ()
    """More labels that nodes of the run must have, as LABEL=VALUE; a zone or region holds for the preparation too."""
    tolerations: Words = ("nvidia.com/gpu",)
    """Taints that pods with GPUs accept, as KEY[=VALUE][:EFFECT]."""
    cpus_per_rank: Count = 8
    """CPU cores for each rank where the experiment names none."""
    memory_gib_per_rank: Positive = 32.0
    """Memory for each rank where the experiment names none; shared memory comes on top."""
    scratch_gib: Count = 10
    """Space for /tmp on each node's own disk."""
    volume: Name = "trainwright"
    """The PersistentVolumeClaim that becomes /workspace and keeps data and checkpoints."""
    volume_gib: OptionalCount = None
    """Its size, to have it made when it is not there yet; null takes the one that k8s/base makes."""
    access_mode: Annotated[AccessMode | None, Off] = None
    """How it is shared; null is ReadWriteOnce for one node and ReadWriteMany for several."""
    storage_class: OptionalWord = None
    """The StorageClass of a volume for one node; null is the cluster's default."""
    shared_storage_class: OptionalWord = None
    """The StorageClass of a volume for several nodes."""
    user: Annotated[int, Field(ge=1, lt=2**31), Whole] = 10001
    """The user and group that pods run as, and to whom the volume is given where its driver does that."""
    grace_seconds: Annotated[int, Field(ge=1, le=86400), Whole] = 300
    """From the stop notice until pods are killed; a site may give less, such as 15 s on GKE's spot nodes."""
    max_hours: OptionalPositive = None
    """The run is saved and ended when its attempts have taken so long in all. Kubernetes itself ends a start that is
    still there an hour later."""
    keep_days: Count = 7
    """How long finished Jobs and their logs stay."""
    max_failures: CountOrZero = 20
    """Failures that Kubernetes forgives. Boot's own budgets are smaller, but progress resets them, and not this."""
    prepare: Literal["job", "off"] = "job"
    """Where shards and tokenizer are made: in a Job without GPUs before the run, or on the run's first node."""
    prepare_image: OptionalImage = None
    """The image of that Job, such as the smaller sharder; null is the experiment's own."""
    prepare_cpus: Count = 8
    """Its CPU cores."""
    prepare_memory_gib: Positive = 32.0
    """Its memory."""
    prepare_parts: Count = 1
    """Pods of that size that make the shards of a large corpus side by side, before it; all write to the volume."""
    fabric_devices: Words = ()
    """With several nodes: what else each asks for, as RESOURCE=QUANTITY, such as rdma/ib=1."""
    fabric_annotations: Words = ()
    """With several nodes: annotations of their pods, as KEY=VALUE."""
    fabric_variables: Words = ()
    """With several nodes: variables of their containers, as NAME=VALUE, such as NCCL_IB_HCA=ibp."""
    fabric_locks_memory: bool = False
    """With several nodes: allow locking memory (IPC_LOCK), which RDMA may need and k8s/components/rdma permits."""

    def problems(self) -> Iterator[Problem]:
        """Check how lists are written, and that the GPU type is known."""
        for field, (pattern, how) in SHAPES.items():
            for word in getattr(self, field):
                if not re.fullmatch(pattern, word):
                    yield Problem(field, word, f"is not {how}")
        known = [word.partition("=")[0] for word in self.gpu_types]
        # Without a profile, as boot loads it inside the pod, nothing is known of the cluster.
        if self.gpu is not None and known and self.gpu not in known:
            yield Problem("gpu", self.gpu, f"this cluster knows {', '.join(known)}")
        if known and self.gpu_label is None:
            yield Problem("gpu_label", None, "gpu_types are values of a label; name it")
