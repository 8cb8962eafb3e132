"""A manifest is RunPod's own body and nothing else; what it does not know is refused before it is sent."""

from pathlib import Path
from typing import Any

import pytest

from infra.runpod.manifest import ClusterBody, Compute, Gpu, Mounts, NetworkMount, PersistentMount, PodBody
from infra.runpod.manifest import checked, read_manifest
from infra.runpod.client import Client
from runpod_server import published, wrong_with
from runpod_state import A100, FakeRunPod
from trainwright.spec.exits import UserError

POD: dict[str, Any] = {"name": "small", "image": "i", "gpu": {"id": "A100-80GB"}}
NETWORK = [{"volumeId": "v", "path": "/w"}]
SEED = """\
kind: Pod
name: transformer
imageName: example/image
gpuType: NVIDIA A100-PCIE-80GB
gpuCount: 1
minVcpus: 16
minMemory: 120
volumeMounts:
  - volumeName: transformer-shared
    mountPath: /workspace
ports:
  - {containerPort: 6006, protocol: tcp}
env:
  - {name: RUN_SHARD, value: "1"}
command: [bash, -lc, "run"]
"""


def refused(**changes: Any) -> str:
    with pytest.raises(UserError) as told:
        checked({**POD, **changes}, "pod.yaml")
    return str(told.value)


def test_an_unknown_field_is_refused_with_those_that_are_known() -> None:
    known = "known here: allowedCudaVersions, count, id, minCudaVersion"
    assert refused(gpu={"id": "x", "idd": 1}) == f"pod.yaml: gpu.idd: RunPod's API has no such field; {known}"
    assert "interruptible: RunPod's API has no such field" in refused(interruptible=True)
    assert "x-trainwright.maxhours: RunPod's API has no such field; known here: gpuFallback" in refused(
        **{"x-trainwright": {"maxhours": 3}}
    )
    mount = {"volumeId": "a", "path": "/b", "size": 3}
    said = refused(mounts={"network": [mount]})
    assert "mounts.network.0.size: RunPod's API has no such field; known here: path" in said


def test_a_number_where_text_belongs_shows_the_quotes() -> None:
    assert refused(env={"RUN_SHARD": 1}) == 'pod.yaml: env.RUN_SHARD=1: expected text; write it in quotes: "1"'
    assert "disk=20 GB: " in refused(disk="20 GB")


def test_every_mistake_is_told_at_once_and_what_is_missing_first() -> None:
    with pytest.raises(UserError) as told:
        checked({"image": "i", "diskk": 3, "gpu": {"id": "x", "count": 0}}, "pod.yaml")
    lines = str(told.value).splitlines()
    assert lines[:2] == ["pod.yaml:", "  name: is required; add it"]
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpu": {"id": "cpu3c", "vcpuCount": 2}}, "gpu: give exactly one of gpu and cpu"),
        ({"gpu": {"id": "x", "minCudaVersion": "12.8", "allowedCudaVersions": ["12.8"]}}, "not both"),
        ({"image": None}, "image: is required"),
        ({"mounts": {"network": NETWORK, "persistent": {"size": 10, "path": "/p"}}}, "one of"),
        ({"cloud": "COMMUNITY", "mounts": {"network": NETWORK}}, "SECURE cloud only"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refused(**changes)


def test_short_names_of_gpus_are_understood() -> None:
    assert checked(POD, "x").body["gpu"]["id"] == "NVIDIA A100 80GB PCIe"
    compute = {"gpuTypeId": "h100", "gpuCountPerPod": 8, "podCount": 2}
    cluster = {"name": "small", "image": "i", "type": "TRAINING", "compute": compute}
    assert checked(cluster, "x").body["compute"]["gpuTypeId"] == "NVIDIA H100 80GB HBM3"


def test_the_older_shape_is_recognised_and_explained_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "runpod-pod.yaml"
    path.write_text(SEED)
    with pytest.raises(UserError) as told:
        read_manifest(path)
    said = str(told.value)
    for line in (
        "imageName -> image: example/image",
        "gpuType -> gpu: {id: NVIDIA A100 80GB PCIe}",
        "minMemory: leave it out",
        "volumeMounts -> mounts: {network: [{volumeId: transformer-shared, path: /workspace}]}",
        "ports -> ports: ['6006/tcp']",
        "command: leave it out",
    ):
        assert f"\n  {line}" in said


WRONG = ("", "- a\n", "name: a\nname: b\n", "name: *x\n", "name: [\n", "a: !!python/name:os.x\n")


@pytest.mark.parametrize("text", WRONG)
def test_a_file_that_is_no_manifest_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(text)
    with pytest.raises(UserError, match=r"pod\.yaml"):
        read_manifest(tmp_path / "pod.yaml")


def test_our_models_are_the_published_document(engine_missing: Any) -> None:
    document = published()
    if document is None:
        engine_missing("no published document (TRAINWRIGHT_TEST_DATA)")
    schemas = document["components"]["schemas"]

    def fields(name: str) -> set[str]:
        tree, found = schemas[name], set()
        for part in (tree, *tree.get("allOf", ())):
            found |= set(part.get("properties", {}))
            found |= fields(part["$ref"].rsplit("/", 1)[1]) if "$ref" in part else set()
        return found

    for name, model in (
        ("CreatePodRequest", PodBody),
        ("CreateClusterRequest", ClusterBody),
        ("CreateGpuConfig", Gpu),
        ("Mounts", Mounts),
        ("NetworkMount", NetworkMount),
        ("PersistentMount", PersistentMount),
        ("ClusterCompute", Compute),
    ):
        assert {field.alias for field in model.model_fields.values()} == fields(name), name


def test_the_fakes_answers_are_the_published_documents(fake: FakeRunPod, client: Client) -> None:
    fake.create({"name": "small", "gpu": {"id": A100, "count": 1}, "disk": 20, "image": "x", "args": "boot"})
    for seconds in (0, 20, 60):
        fake.clock.wait(seconds)
        assert wrong_with(client.ask("GET", "/v2/pods")["pods"][0], "Pod") == []
    offers = client.ask("GET", "/v2/catalog/gpus", query={"include": "AVAILABILITY", "product": "POD"})["gpus"]
    assert [wrong_with(offer, "GpuType") for offer in offers] == [[]] * len(offers)
    assert wrong_with(client.ask("GET", "/v2/network-volumes")["networkVolumes"][0], "NetworkVolume") == []
