"""What pods of a run may do, and what they ask for."""

import pytest

from infra.kubernetes.files import PREPARE, TRAIN
from kubernetes_jobs import VARIANTS, container, documents, environ, kubernetes_job, pod_spec, top
from trainwright.spec.experiment import Resources

RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


@pytest.mark.parametrize("path", [PREPARE, TRAIN])
@pytest.mark.parametrize("nodes", [1, 2])
def test_pods_keep_to_the_restricted_standard_and_beyond(path: str, nodes: int) -> None:
    spec = pod_spec(kubernetes_job(nodes=nodes), path)
    person = spec["securityContext"]
    assert person["runAsNonRoot"] is True
    assert person["runAsUser"] >= 10000
    assert person["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(spec)
    assert spec["automountServiceAccountToken"] is False
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= RESTRICTED_VOLUMES
    (one,) = spec["containers"]
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "ports" not in one


def test_only_a_wish_for_locked_memory_leaves_the_standard_and_only_between_nodes() -> None:
    for nodes, added in ((1, None), (2, ["IPC_LOCK"])):
        job = kubernetes_job({"fabric_locks_memory": True, "fabric_devices": "rdma/ib=1"}, nodes=nodes)
        assert container(job)["securityContext"]["capabilities"].get("add") == added
        assert ("rdma/ib" in container(job)["resources"]["limits"]) == (nodes > 1)
        assert "add" not in container(job, PREPARE)["securityContext"]["capabilities"]


def test_what_is_written_goes_to_the_volume_or_to_bounded_scratch() -> None:
    spec = pod_spec(kubernetes_job({"scratch_gib": 7}))
    writable = [mount for mount in spec["containers"][0]["volumeMounts"] if not mount.get("readOnly")]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert [mount["mountPath"] for mount in writable] == ["/workspace", "/tmp", "/dev/shm"]
    assert volumes["scratch"]["emptyDir"] == {"sizeLimit": "7Gi"}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16384Mi"}


@pytest.mark.parametrize("path", [PREPARE, TRAIN])
def test_requests_equal_limits_and_shared_memory_is_counted(path: str) -> None:
    job = kubernetes_job(resources=Resources(ranks_per_node=8, cpus_per_node=96, memory_gib=512.5, shm_gib=16))
    asked = container(job, path)["resources"]
    guaranteed = {name: value for name, value in asked["limits"].items() if name != "nvidia.com/gpu"}
    assert asked["requests"] == guaranteed
    if path == TRAIN:
        assert asked["limits"]["nvidia.com/gpu"] == "8"
        assert (asked["limits"]["cpu"], asked["limits"]["memory"]) == ("96", f"{int(512.5 * 1024) + 16 * 1024}Mi")


def test_a_run_on_cpus_asks_for_no_gpu_and_accepts_no_taint_of_gpus() -> None:
    spec = pod_spec(VARIANTS["cpu"])
    assert "nvidia" not in str(spec)
    assert "shm" not in str(spec["volumes"])
    assert PREPARE not in documents(VARIANTS["cpu"])


def test_secrets_are_references_and_nothing_else_knows_of_them() -> None:
    job = kubernetes_job()
    assert environ(job)["HF_TOKEN"] == {"secretKeyRef": {"name": "mine", "key": "HF_TOKEN"}}
    assert "CKV_K8S_35=" in str(top(job)["metadata"]["annotations"])
    bare = kubernetes_job({"secret": None}, secrets=())
    assert "CKV_K8S_35=" not in str(top(bare)["metadata"]["annotations"])


def test_the_stop_file_is_touched_before_the_signal_and_both_share_the_grace() -> None:
    job = kubernetes_job({"grace_seconds": 90})
    assert container(job)["lifecycle"] == {"preStop": {"exec": {"command": ["touch", "/tmp/stop"]}}}
    assert environ(job)["TRAINWRIGHT_STOP_FILE"] == "/tmp/stop"
    assert pod_spec(job)["terminationGracePeriodSeconds"] == 90


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("nvidia.com/gpu", {"key": "nvidia.com/gpu", "operator": "Exists"}),
        ("a/b=c", {"key": "a/b", "operator": "Equal", "value": "c"}),
        ("a=c:NoExecute", {"key": "a", "operator": "Equal", "value": "c", "effect": "NoExecute"}),
        ("a:NoSchedule", {"key": "a", "operator": "Exists", "effect": "NoSchedule"}),
    ],
)
def test_a_taint_is_accepted_as_kubectl_writes_it(word: str, read: dict[str, str]) -> None:
    assert pod_spec(kubernetes_job({"tolerations": word}))["tolerations"] == [read]
