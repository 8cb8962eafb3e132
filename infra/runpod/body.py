"""A job as RunPod's own create body: of a pod, or with several nodes of a cluster. Pure; the target renders it."""

import json
import re
from typing import Any

from infra.job import IMAGE_ROOT, Job
from infra.runpod.gpus import gpu_id
from trainwright.spec.exits import UserError
from trainwright.spec.load import CARRIED_TO
from trainwright.spec.variables import RUN_CONFIG, RUN_CONFIG_TEXT

OURS = "x-trainwright"
MAX_TEXT_BYTES = 48 << 10
"""Of an experiment that travels in a variable: RunPod takes 100 KiB in all, and the kernel 128 KiB a variable."""
MAX_VARIABLES = 50
"""RunPod's limit for a pod; one is left for the orders."""
PLAIN = re.compile(r"[A-Za-z0-9_./:=@%+,-]+")
CLUSTER_NETWORK = "ens1"
"""The interface between the nodes of a cluster; eth0 leads to the internet only, and NCCL would time out on it."""
SSH_PORT = "22/tcp"


def document(job: Job) -> dict[str, Any]:
    """Return the manifest of a job: the create body, and what RunPod's API has no words for."""
    _refuse_what_a_pod_cannot(job)
    settings, many = job.targets.runpod, job.resources.nodes > 1
    gpus = list(dict.fromkeys(gpu_id(name) for name in settings.gpus))
    body: dict[str, Any] = {"name": job.name}
    if many:
        shape = {"gpuTypeId": gpus[0], "gpuCountPerPod": job.resources.ranks_per_node, "podCount": job.resources.nodes}
        body |= {"type": "TRAINING", "compute": shape}
    else:
        gpu = {"id": gpus[0], "count": job.resources.ranks_per_node, "minCudaVersion": settings.min_cuda}
        body |= {"cloud": settings.cloud, "gpu": gpu}
    body["image"] = job.needed_image()
    if job.registry is not None:
        body["registry"] = job.registry
    body |= {"args": argument_text(job.boot_arguments("")[2:]), "disk": settings.disk_gb}
    body["mounts"] = {"network": [{"volumeId": settings.volume, "path": IMAGE_ROOT}]}
    if settings.data_centers:
        body["dataCenterIds"] = list(settings.data_centers)
    body |= {"ports": [SSH_PORT], "startSsh": True, "env": _environ(job, many=many), OURS: _ours(job, gpus[1:])}
    return body


def argument_text(words: tuple[str, ...]) -> str:
    """Return the container's arguments as the one text that RunPod takes, such that each word arrives as it is.

    Plain words stand as they are. RunPod splits text at spaces, so anything else goes as its JSON form.
    """
    given = ["boot", *words]
    if all(PLAIN.fullmatch(word) for word in given):
        return " ".join(given)
    return json.dumps({"cmd": given})


def _ours(job: Job, fallback: list[str]) -> dict[str, Any]:
    settings = job.targets.runpod
    limits = {"maxHours": settings.max_hours, "maxDollars": settings.max_dollars}
    return {
        **({"gpuFallback": fallback} if fallback else {}),
        **{name: value for name, value in limits.items() if value is not None},
        "idleMinutes": settings.idle_minutes,
        "whenDone": settings.when_done,
        "whenFailed": settings.when_failed,
    }


def _environ(job: Job, *, many: bool) -> dict[str, str]:
    settings = job.targets.runpod
    found = dict(job.environ)
    if settings.carry == "image":
        found[RUN_CONFIG] = f"{CARRIED_TO}/{job.experiment_file}"
    else:
        found[RUN_CONFIG_TEXT] = _travelling(job)
    if settings.as_root:
        found["RUNPOD_POD_USER"] = "0"
    if many:
        found |= {"NCCL_SOCKET_IFNAME": CLUSTER_NETWORK, "GLOO_SOCKET_IFNAME": CLUSTER_NETWORK}
    found |= {name: f"{{{{ RUNPOD_SECRET_{name} }}}}" for name in job.secrets}
    if len(found) >= MAX_VARIABLES:
        raise UserError(f"secrets: {len(found)} variables, and RunPod takes {MAX_VARIABLES - 1}; name fewer secrets")
    return found


def _travelling(job: Job) -> str:
    size = len(job.experiment_text.encode())
    if size > MAX_TEXT_BYTES:
        way = "shorten it, or build it into the image and set targets.runpod.carry=image"
        raise UserError(f"{job.experiment_file}: {size} bytes, and a pod takes at most {MAX_TEXT_BYTES}; {way}")
    if "{{" in job.experiment_text:
        raise UserError(
            f"{job.experiment_file}: holds {{{{, which RunPod would read as a reference; write it otherwise"
        )
    return job.experiment_text


def _refuse_what_a_pod_cannot(job: Job) -> None:
    settings, resources = job.targets.runpod, job.resources
    if settings.volume is None:
        way = "name a network volume; `trainwright runpod create volume` makes one"
        raise UserError(f"targets.runpod.volume: is not set, and a pod without a volume keeps nothing; {way}")
    if resources.device == "cpu":
        raise UserError("resources.device=cpu: a pod is rented for its GPUs; use cuda, or target local")
    if resources.walltime_minutes is not None:
        way = "use targets.runpod.max_hours, after which the run is saved and the pod goes"
        raise UserError(f"resources.walltime_minutes={resources.walltime_minutes:g}: a pod has no time limit; {way}")
    for folder in job.folders:
        if folder != IMAGE_ROOT and not folder.startswith(f"{IMAGE_ROOT}/"):
            raise UserError(f"{folder}: is not on the volume, which a pod has at {IMAGE_ROOT}; copy it there first")
    if job.runs is not None:
        raise UserError(f"paths.runs={job.runs}: a pod keeps its runs in {IMAGE_ROOT}/runs; leave it out")
    if resources.nodes > 1 and job.registry is not None:
        raise UserError(f"registry={job.registry}: clusters at RunPod pull public images only; use a public one")
