"""Reads a manifest: RunPod's own create body in YAML, and the block `x-trainwright`. What it does not know is refused.

The models below are the published document's (REST v2); a test holds them against it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from infra.runpod.body import OURS
from infra.runpod.gpus import gpu_id
from infra.runpod.seed_manifest import explain
from trainwright.spec.exits import UserError
from trainwright.spec.load import parse, read_source
from trainwright.spec.runpod import Fate

MAX_BODY_BYTES = 102_400
"""RunPod answers 413 to more."""
Cuda = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class Part(BaseModel):
    """A part of a body: its own spelling, nothing unknown, and no text where a number belongs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class Gpu(Part):
    """One GPU type and how many."""

    id: Text
    count: Annotated[int, Field(ge=1)] = 1
    allowed_cuda_versions: list[Cuda] | None = None
    min_cuda_version: Cuda | None = None


class Cpu(Part):
    """A CPU pod."""

    id: Text
    vcpu_count: Annotated[int, Field(ge=2)]


class PersistentMount(Part):
    """A disk of the host; deleted with the pod."""

    size: Annotated[int, Field(ge=10)]
    path: Text


class NetworkMount(Part):
    """A network volume."""

    volume_id: Text
    path: Text


class Mounts(Part):
    """At most one of the two."""

    persistent: PersistentMount | None = None
    network: Annotated[list[NetworkMount], Field(max_length=1)] | None = None


class Compute(Part):
    """The nodes of a cluster, all alike."""

    gpu_type_id: Text
    gpu_count_per_pod: Annotated[int, Field(ge=1)]
    pod_count: Annotated[int, Field(ge=2, le=250)]


class Ours(Part):
    """What RunPod's API has no words for."""

    gpu_fallback: list[Text] = []
    max_hours: Annotated[float, Field(gt=0)] | None = None
    max_dollars: Annotated[float, Field(gt=0)] | None = None
    idle_minutes: Annotated[float, Field(gt=0)] = 60.0
    when_done: Fate = "delete"
    when_failed: Fate = "stop"


class Container(Part):
    """What pods and the nodes of clusters share."""

    name: Text
    image: str | None = None
    args: str | None = None
    disk: Annotated[int, Field(ge=1)] | None = None
    env: dict[str, str] | None = None
    ports: list[str] | None = None
    mounts: Mounts | None = None
    data_center_ids: list[str] | None = None
    start_ssh: bool | None = None
    start_jupyter: bool | None = None


class PodBody(Container):
    """CreatePodRequest."""

    registry: str | None = None
    cloud: Literal["SECURE", "COMMUNITY"] | None = None
    gpu: Gpu | None = None
    cpu: Cpu | None = None
    global_networking: bool | None = None
    template_id: Text | None = None


class ClusterBody(Container):
    """CreateClusterRequest."""

    type: Literal["APPLICATION", "TRAINING", "SLURM", "RAY"]
    compute: Compute


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest."""

    where: str
    body: dict[str, Any]
    """What may be sent, but for the names of volume and registry, which are looked up first."""
    ours: Ours

    @property
    def name(self) -> str:
        """Return the pod's name, by which a lost answer is found again."""
        return str(self.body["name"])

    @property
    def is_cluster(self) -> bool:
        """Return whether several nodes are asked for."""
        return "compute" in self.body

    @property
    def volume(self) -> str | None:
        """Return the network volume, by name or id."""
        mounts = self.body.get("mounts", {}).get("network") or [{}]
        found = mounts[0].get("volumeId")
        return None if found is None else str(found)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file; raise `UserError` with one sentence for each field that is wrong."""
    source = read_source(path)
    parse(source, str(path))  # refuses what is written twice, aliases and tags, with their lines
    return checked(yaml.safe_load(source), str(path))


def checked(tree: Any, where: str) -> Manifest:
    """Return a checked manifest of plain data."""
    if not isinstance(tree, dict):
        raise UserError(f"{where}: holds no keys; `trainwright render runpod-1b --target runpod` shows a manifest")
    if problem := explain(tree):
        raise UserError(f"{where}: {problem}")
    body = {key: value for key, value in tree.items() if key != OURS}
    model = ClusterBody if "compute" in body or "type" in body else PodBody
    lines = [*_problems(model, body, ""), *_problems(Ours, tree.get(OURS) or {}, f"{OURS}.")]
    if not lines:
        found = _with_ids(model.model_validate(body).model_dump(by_alias=True, exclude_none=True))
        ours = Ours.model_validate(tree.get(OURS) or {})
        lines = list(_between_fields(found))
    if lines:
        raise UserError(f"{where}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{where}:", *lines]))
    return Manifest(where, found, ours)


def _with_ids(body: dict[str, Any]) -> dict[str, Any]:
    for part, key in (("gpu", "id"), ("compute", "gpuTypeId")):
        if part in body:
            body[part][key] = gpu_id(body[part][key])
    return body


def _problems(model: type[Part], tree: Any, prefix: str) -> list[str]:
    try:
        model.model_validate(tree)
    except ValidationError as error:
        # What is missing first: RunPod itself would call valid fields unknown while one is missing.
        found = sorted(error.errors(), key=lambda one: one["type"] != "missing")
        return [_sentence(model, one, prefix) for one in found]
    return []


def _sentence(model: type[Part], one: Any, prefix: str) -> str:
    path = prefix + ".".join(str(part) for part in one["loc"])
    match one["type"]:
        case "missing":
            return f"{path}: is required; add it"
        case "extra_forbidden":
            return f"{path}: RunPod's API has no such field; known here: {', '.join(_known(model, one['loc'][:-1]))}"
        case "string_type":
            return f'{path}={one["input"]}: expected text; write it in quotes: "{one["input"]}"'
        case _:
            return f"{path}={_short(one['input'])}: {one['msg'][0].lower()}{one['msg'][1:]}"


def _short(value: object) -> str:
    return "a block of keys" if isinstance(value, dict) else str(value)[:80]


def _known(model: type[Part], location: tuple[int | str, ...]) -> list[str]:
    """Return the fields of the part at a location."""
    schema: Any = model.model_json_schema(by_alias=True)
    here = schema
    for step in location:
        here = here["items"] if isinstance(step, int) else here["properties"][step]
        for member in (here, *here.get("anyOf", ())):
            if "$ref" in member:
                here = schema["$defs"][member["$ref"].rsplit("/", 1)[1]]
            elif "items" in member:
                here = member
    return sorted(here.get("properties", {}))


def _between_fields(body: dict[str, Any]) -> list[str]:
    """Return what is wrong between fields, as RunPod would say one at a time, after it was asked."""
    found = []
    if "image" not in body and "templateId" not in body:
        found.append("image: is required; `make push` prints what to write")
    if "compute" not in body and ("gpu" in body) == ("cpu" in body):
        found.append("gpu: give exactly one of gpu and cpu")
    gpu = body.get("gpu", {})
    if "allowedCudaVersions" in gpu and "minCudaVersion" in gpu:
        found.append("gpu.minCudaVersion: give it or gpu.allowedCudaVersions, not both")
    mounts = body.get("mounts", {})
    if "persistent" in mounts and "network" in mounts:
        found.append("mounts: give one of persistent and network")
    if mounts.get("network") and body.get("cloud") == "COMMUNITY":
        found.append("cloud=COMMUNITY: network volumes are in the SECURE cloud only")
    return found
