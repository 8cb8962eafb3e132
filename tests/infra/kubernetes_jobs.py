"""Jobs for the target Kubernetes, and the rendered documents taken apart."""

from collections.abc import Mapping
import re
from typing import Any

import yaml

from infra.job import Job
from infra.kubernetes.files import TRAIN
from infra.targets.kubernetes import render
from recorder import IMAGE, a_job
from trainwright.spec.experiment import Resources
from trainwright.spec.kubernetes import KubernetesTarget
from trainwright.spec.targets import Targets

EIGHT = Resources(ranks_per_node=8, shm_gib=16)


def kubernetes_job(chosen: Mapping[str, Any] | None = None, nodes: int = 1, **changes: Any) -> Job:
    target = KubernetesTarget.model_validate({"secret": "mine", **(chosen or {})})
    resources = EIGHT.model_copy(update={"nodes": nodes})
    return a_job(**{"targets": Targets(kubernetes=target), "resources": resources, **changes})


def documents(job: Job) -> dict[str, list[dict[str, Any]]]:
    return {file.path: list(yaml.safe_load_all(file.text)) for file in render(job)}


def top(job: Job, path: str = TRAIN) -> dict[str, Any]:
    return documents(job)[path][0]


def job_spec(job: Job, path: str = TRAIN) -> dict[str, Any]:
    """Return the Job of a manifest, also of the one inside a JobSet."""
    spec: dict[str, Any] = top(job, path)["spec"]
    return spec["replicatedJobs"][0]["template"]["spec"] if "replicatedJobs" in spec else spec


def pod_spec(job: Job, path: str = TRAIN) -> dict[str, Any]:
    found: dict[str, Any] = job_spec(job, path)["template"]["spec"]
    return found


def container(job: Job, path: str = TRAIN) -> dict[str, Any]:
    (found,) = pod_spec(job, path)["containers"]
    return dict(found)


def environ(job: Job, path: str = TRAIN) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(job, path)["env"]}


def whole_text(job: Job) -> str:
    return "\n".join(f"# --- {file.path}\n{file.text}" for file in render(job))


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return text as Kubernetes reads arguments and values: $$ is a dollar sign, $(NAME) a variable it knows."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", value, text)


VARIANTS: dict[str, Job] = {
    "1": kubernetes_job(),
    "2": kubernetes_job(nodes=2),
    "16": kubernetes_job(nodes=16),
    "queue": kubernetes_job(
        {
            "queue": "gpus",
            "priority_class": "low",
            "topology": "cloud.example/rack",
            "max_hours": 12,
            "volume_gib": 500,
            "fabric_devices": "rdma/ib=1",
            "fabric_locks_memory": True,
            "prepare_image": IMAGE.replace("trainwright@", "trainwright-sharder@"),
        },
        nodes=2,
        registry="mine",
    ),
    "parts": kubernetes_job({"prepare_parts": 3, "volume_gib": 500}),
    "cpu": kubernetes_job({"prepare": "off"}, resources=Resources(device="cpu"), flags=(), secrets=()),
}
