"""The manifests before their judges, and the rendered Jobs' own YAML in a real engine, interrupted and run again.

No cluster can be started here. Schemas of eight versions of Kubernetes, the CRDs of JobSet and Kueue, kubectl and
checkov judge every document; podman runs the Jobs as they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
import json
from pathlib import Path
import os
import shlex
import shutil
import subprocess
import sys
from typing import Any, NoReturn

import jsonschema
import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[1] / "infra"))
import machine
from kube_podman import Podman, losses
from infra.cli import main
from infra.engine import Answer, Engine
from infra.kubernetes.checks import saves_in
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.pod import secret_line
from infra.kubernetes.sweeps import sweep_files
from recorder import IMAGE, a_job
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.kubernetes import KubernetesTarget
from trainwright.spec.targets import Targets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = Path(os.environ.get("TRAINWRIGHT_TEST_DATA", "/nowhere")) / "schemas"
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
BY_DIGEST = (f"image={IMAGE}", f"targets.kubernetes.prepare_image={IMAGE}")
QUEUED = ("targets.kubernetes.queue=gpus", "targets.kubernetes.volume_gib=900", "targets.kubernetes.gpu=h100")
SECRETS = ("secrets=HF_TOKEN,WANDB_API_KEY", "targets.kubernetes.secret=mine")
RENDERED = {
    "1": (),
    "2": ("resources.nodes=2",),
    "16": ("resources.nodes=16", "train.micro_batch=4", *SECRETS),
    "cpu": ("resources.device=cpu", "targets.kubernetes.prepare=off"),
    "parts": ("targets.kubernetes.prepare_parts=8", "targets.kubernetes.priority_class=low"),
    **{f"{site}": (f"targets.kubernetes.site={site}", "resources.nodes=2", *QUEUED) for site in ("gke", "eks")},
    **{site: (f"targets.kubernetes.site={site}", *QUEUED, *SECRETS) for site in ("coreweave", "gpu-operator")},
}


@pytest.fixture(scope="module")
def programs() -> Path:
    """Return the folder of the judges."""
    return machine.judges()


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of everything that is rendered here, and of the Job in each JobSet as one by itself."""
    folder = tmp_path_factory.mktemp("manifests")
    for name, words in RENDERED.items():
        render = ["render", str(ROOT / "experiments/pretrain-1b.yaml"), "--target", "kubernetes", *BY_DIGEST, *words]
        with pytest.MonkeyPatch.context() as here:
            here.chdir(ROOT)
            assert main([*render, "-o", str(folder / name)]) == 0
    target = Targets(kubernetes=KubernetesTarget(secret="mine"))
    points = [a_job(name=f"small-{number}", targets=target, resources=Resources(), flags=()) for number in (1, 2, 3)]
    for file in sweep_files(points, "small-sweep", 2):
        (folder / "sweep").mkdir(exist_ok=True)
        (folder / "sweep" / file.path).write_text(file.text)
    for path in sorted(folder.glob("*/train.yaml")):
        document = yaml.safe_load(path.read_text())
        if document["kind"] == "JobSet":
            (job,) = document["spec"]["replicatedJobs"]
            inner = {"apiVersion": "batch/v1", "kind": "Job", "metadata": document["metadata"], **job["template"]}
            inner["metadata"]["annotations"] = yaml.safe_load((path.parent / "prepare.yaml").read_text())["metadata"][
                "annotations"
            ]
            (path.parent / "inner.yaml").write_text(yaml.safe_dump(inner))
    return folder


def said(*command: str | Path, code: int | None = 0) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# --- judges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_is_valid_in_every_version_of_kubernetes(programs: Path, manifests: Path, version: str) -> None:
    base = manifests / "base.yaml"
    base.write_text(said(programs / "kubectl", "kustomize", "k8s/base"))
    files = [*sorted(manifests.glob("*/*.yaml")), base, *sorted((ROOT / "k8s/pretrain-1b").glob("*.yaml"))]
    told = said(programs / "kubernetes-validate", "--strict", "-k", version, *files)
    # Of kinds that it does not know it only warns; those are judged by their own schemas below.
    unknown = [line for line in told.splitlines() if "WARN" in line]
    assert all("JobSet" in line for line in unknown), unknown
    assert told.count("passed for resource") >= 3 * len(RENDERED)


def strict(schema: Any) -> Any:
    """Return an OpenAPI schema as JSON Schema that refuses unknown keys, as the API server does when asked strictly."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if found.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    open_ended = found.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in found
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        found["additionalProperties"] = False
    return found


@cache
def definition(path: Path) -> dict[str, Any]:
    """Return the spec of a CRD, with a strict validator for each of its versions."""
    spec: dict[str, Any] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        version["judge"] = jsonschema.Draft202012Validator(schema)
    return spec


def judged(document: dict[str, Any], crd: str, missing: Callable[[str], NoReturn]) -> list[str]:
    path = SCHEMAS / crd
    if not path.is_file():
        missing(f"no schema {crd} (TRAINWRIGHT_TEST_DATA)")
    group, _, version = document["apiVersion"].partition("/")
    spec = definition(path)
    assert (spec["group"], spec["names"]["kind"]) == (group, document["kind"])
    (judge,) = [one["judge"] for one in spec["versions"] if one["name"] == version]
    return [f"{error.json_path}: {error.message[:200]}" for error in judge.iter_errors(document)]


def test_job_sets_follow_their_own_schema(manifests: Path, engine_missing: Callable[[str], NoReturn]) -> None:
    sets = [yaml.safe_load(path.read_text()) for path in sorted(manifests.glob("*/train.yaml"))]
    sets = [document for document in sets if document["kind"] == "JobSet"]
    assert len(sets) == 4
    for document in sets:
        assert judged(document, "jobset-crd.yaml", engine_missing) == []
    # The judge sees what a slip of the pen looks like.
    sets[0]["spec"]["failurePolicy"]["maxRestart"] = 1
    del sets[0]["spec"]["failurePolicy"]["rules"][0]["name"]
    assert len(judged(sets[0], "jobset-crd.yaml", engine_missing)) == 2


KUEUE = {"ResourceFlavor": "resourceflavors", "ClusterQueue": "clusterqueues", "LocalQueue": "localqueues"}


def test_queues_follow_the_schemas_of_kueue(programs: Path, engine_missing: Callable[[str], NoReturn]) -> None:
    documents = list(yaml.safe_load_all(said(programs / "kubectl", "kustomize", "k8s/components/kueue")))
    assert sorted(document["kind"] for document in documents) == sorted(KUEUE)
    for document in documents:
        assert judged(document, f"kueue-{KUEUE[document['kind']]}-crd.yaml", engine_missing) == []


COMPONENTS = sorted(path.parent.name for path in (ROOT / "k8s/components").glob("*/kustomization.yaml"))


def kustomized(programs: Path, folder: Path, *components: str) -> dict[str, dict[str, Any]]:
    """Return the base with components, by kind and name."""
    there = [os.path.relpath(ROOT / "k8s/components" / name, folder) for name in components]
    document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "components": there}
    document["resources"] = [os.path.relpath(ROOT / "k8s/base", folder)]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    found = yaml.safe_load_all(said(programs / "kubectl", "kustomize", folder))
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


def test_the_base_stands_alone_and_with_every_component(programs: Path, tmp_path: Path) -> None:
    assert COMPONENTS == ["kueue", "rdma", "shared-volume"]
    base = kustomized(programs, tmp_path)
    enforced = "pod-security.kubernetes.io/enforce"
    assert base["Namespace/trainwright"]["metadata"]["labels"][enforced] == "restricted"
    assert base["ServiceAccount/trainwright"]["automountServiceAccountToken"] is False
    assert base["PersistentVolumeClaim/trainwright"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    changed = {}
    for name in COMPONENTS:
        said(programs / "kubectl", "kustomize", f"k8s/components/{name}")
        whole = kustomized(programs, tmp_path, name)
        changed[name] = {key for key in {*base, *whole} if base.get(key) != whole.get(key)}
    assert changed["rdma"] == {"Namespace/trainwright"}
    assert changed["shared-volume"] == {"PersistentVolumeClaim/trainwright"}
    assert changed["kueue"] == {f"{kind}/trainwright" for kind in KUEUE}
    both = kustomized(programs, tmp_path, *COMPONENTS)
    assert both["Namespace/trainwright"]["metadata"]["labels"][enforced] == "privileged"
    assert both["PersistentVolumeClaim/trainwright"]["spec"]["accessModes"] == ["ReadWriteMany"]
    said(programs / "kubectl", "kustomize", "k8s/overlays/several-nodes")


def test_the_auditor_finds_nothing_and_each_check_that_is_skipped_says_why(programs: Path, manifests: Path) -> None:
    shutil.copytree(ROOT / "k8s", manifests / "k8s")
    checkov = [programs / "python", "-m", "checkov.main", "--skip-download", "--framework", "kubernetes", "--compact"]
    told = json.loads(said(*checkov, "--output", "json", "-d", manifests))
    results = told["results"]
    assert [f"{one['check_id']} {one['file_path']}" for one in results["failed_checks"]] == []
    assert len(results["passed_checks"]) > 500
    reasons = {one["check_id"]: one["check_result"]["suppress_comment"] for one in results["skipped_checks"]}
    assert set(reasons) == {"CKV_K8S_15", "CKV_K8S_35", "CKV_K8S_43"}
    assert all(len(reason) > 20 for reason in reasons.values())


def test_the_line_that_makes_a_secret_makes_it(programs: Path, tmp_path: Path) -> None:
    line = secret_line(a_job(targets=Targets(kubernetes=KubernetesTarget(secret="mine"))))
    values = {"HF_TOKEN": 'a=b "c" $d', "WANDB_API_KEY": "xyz", "OTHER": "no", "PATH": f"{programs}:/usr/bin:/bin"}
    command = ["bash", "-c", f"{line} --dry-run=client --output=json"]
    done = subprocess.run(command, env=values, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("mine", "trainwright")
    assert set(made["data"]) == {"HF_TOKEN", "WANDB_API_KEY"}


@dataclass(frozen=True)
class Nowhere(Engine):
    """The real kubectl without a cluster: it judges our commands, and then finds nobody to ask."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, *command: str) -> Answer:
        answer = super().ask(command[0], "--server=http://127.0.0.1:1", "--request-timeout=1s", *command[1:])
        self.told.append((shlex.join(command), answer.err))
        return answer


def test_every_command_is_one_that_kubectl_knows(programs: Path, manifests: Path) -> None:
    engine = Nowhere({"PATH": f"{programs}:/usr/bin:/bin"})
    there = Cluster(engine, ("--namespace=trainwright",))
    selector = {"app.kubernetes.io/instance": "small"}
    for ask in (
        lambda: there.get("persistentvolumeclaim", "trainwright"),
        lambda: there.keys("mine"),
        lambda: there.pods(selector),
        lambda: there.apply(manifests / "1/train.yaml"),
        lambda: there.delete("job/small"),
        lambda: there.delete(f"--filename={manifests / '1/train.yaml'}"),
    ):
        with pytest.raises(UserError):
            ask()
    there.run_in("small-x", "boot", "trainwright", "stop", "small")
    saves_in(there, "small")
    engine.ask(*there.command("logs", "small-x", "--container=boot", "--follow"))
    assert len(engine.told) == 9
    for command, error in engine.told:
        assert "connection refused" in error or "connection to the server 127.0.0.1:1 was refused" in error, (
            command,
            error,
        )


# --- the Jobs themselves ---------------------------------------------------------------------------------------------

SMALL = ("model.dim=48", "model.num_layers=1", "model.num_heads=3", "model.num_kv_heads=3", "tokenizer.vocab_size=512")
SHORT = ("train.steps=120", "evaluation.every_steps=60", "checkpoint.dump.every_steps=40", "logging.num_samples=1")
LITTLE = ("cpus_per_rank=1", "prepare_cpus=1", "memory_gib_per_rank=2", "prepare_memory_gib=2", "scratch_gib=1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, trainer_cpu: str, sharder: str) -> Iterator[Podman]:
    """Return podman with a volume for user 10001, as a driver gives it by fsGroup."""
    del trainer_cpu, sharder
    folder = tmp_path_factory.mktemp("cluster")
    try:
        found = Podman(folder, *machine.newer_podman(folder))
    except machine.AbsentError as error:
        machine.missing(str(error))
    done = found.podman("volume", "create", "--uid", "10001", "--gid", "10001", "trainwright")
    assert done.returncode == 0, done.stderr
    yield found
    for file in found.played:
        found.podman("kube", "down", file)
    # Its images are not its own: nothing but what it made goes.
    found.podman("pod", "rm", "--all", "--force", "--time", "1")
    shutil.rmtree(folder / "store", ignore_errors=True)


@dataclass(frozen=True)
class Story:
    """How each of the pods ended."""

    prepared: tuple[int, str]
    stopped: tuple[int, str]
    signalled: tuple[int, str]
    finished: tuple[int, str]
    inspected: dict[str, Any]


@pytest.fixture(scope="module")
def story(cluster: Podman, trainer_cpu: str, sharder: str) -> Story:
    """Prepare, then train: stopped by the manifest's own preStop command, then by SIGTERM, then to the end."""
    there = cluster.folder / "rendered"
    little = [f"targets.kubernetes.{word}" for word in (*LITTLE, f"prepare_image={sharder}")]
    with pytest.MonkeyPatch.context() as here:
        here.chdir(ROOT)
        words = ["demo", *SMALL, *SHORT, f"image={trainer_cpu}", "resources.shm_gib=0.25", *little]
        assert main(["render", "--target", "kubernetes", "-o", str(there), *words]) == 0
    config, prepare, train = (there / f"{name}.yaml" for name in ("config", "prepare", "train"))
    prepared = cluster.end(cluster.start(config, prepare))
    name = cluster.start(config, train)
    cluster.until_step(3, name)
    inspected = json.loads(cluster.podman("inspect", name).stdout)[0]
    (pod,) = yaml.safe_load(train.read_text())["spec"]["template"]["spec"]["containers"]
    assert cluster.podman("exec", name, *pod["lifecycle"]["preStop"]["exec"]["command"]).returncode == 0
    stopped = cluster.end(name)
    name = cluster.start(config, train)
    cluster.until_step(len(losses(cluster.volume)) + 3, name)
    cluster.podman("kill", "--signal", "TERM", name)
    signalled = cluster.end(name)
    return Story(prepared, stopped, signalled, cluster.end(cluster.start(config, train)), inspected)


def test_the_preparation_makes_shards_and_tokenizer_without_training(story: Story, cluster: Podman) -> None:
    assert story.prepared[0] == 0, story.prepared[1]
    assert "stage=tokenizer done" in story.prepared[1]
    assert "stage=train" not in story.prepared[1]
    assert list((cluster.volume / "datasets/train/demo").glob("tokens-*/*.bin"))


@pytest.mark.parametrize("which", ["stopped", "signalled"])
def test_both_notices_save_and_ask_for_another_pod(story: Story, which: str) -> None:
    code, text = getattr(story, which)
    assert code == 75, text
    assert "stage=shard done already" in text
    assert "checkpoint saved" in text


def test_the_next_pod_goes_on_to_the_end_and_no_step_is_lost(story: Story, cluster: Podman) -> None:
    code, text = story.finished
    assert code == 0, text
    assert "resume: from step_" in text
    assert losses(cluster.volume) == list(range(1, 121))
    assert (cluster.volume / "runs/demo/report.html").stat().st_size > 10_000


def test_the_engine_read_the_pod_as_it_was_meant(story: Story) -> None:
    host, config = story.inspected["HostConfig"], story.inspected["Config"]
    assert (config["User"], host["ReadonlyRootfs"], host["RestartPolicy"]["Name"]) == ("10001:10001", True, "no")
    assert not story.inspected["EffectiveCaps"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["Memory"] == (4 * 1024 + 256) * 2**20
    assert config["StopTimeout"] == 300
