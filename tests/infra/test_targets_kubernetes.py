"""The rendered manifests: their text, what agrees across them, what pods may do, and what is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
import re
import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import yaml

from infra.boot import nodes as boot_nodes
from infra.job import Job, build_job
from infra.kubernetes import names
from infra.kubernetes.files import PREPARE, TRAIN
from infra.kubernetes.pod import literal
from infra.submit import stale
from infra.targets.kubernetes import image_of, render
from kubernetes_jobs import VARIANTS, container, documents, environ, expanded, job_spec, kubernetes_job, pod_spec, top
from kubernetes_jobs import whole_text
from recorder import IMAGE
from sharder.__main__ import _parser as sharder_words
from sharder.plan import Part
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment
from trainwright.spec.sites import SITES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
EXAMPLE = ROOT / "experiments/pretrain-1b.yaml"
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
HARD = st.sampled_from(["$(HOME)", "$$(HOME)", "$", "$$", "$(", "a b", "no", "1e3", "# x", "'", '"', "\\", "é", "- x"])


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_renders_the_recorded_text(name: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"kubernetes-{name}.txt", whole_text(VARIANTS[name]))


def profiles() -> list[str]:
    return sorted(
        path.stem for path in (ROOT / SITES).glob("*.yaml") if "kubernetes" in yaml.safe_load(path.read_text())
    )


@pytest.mark.parametrize("site", profiles())
def test_every_profile_renders_the_recorded_text(site: str, golden: Callable[[Path, str], None]) -> None:
    words = [f"targets.kubernetes.{word}" for word in (f"site={site}", "gpu=h100", "volume_gib=900", "queue=gpus")]
    loaded = load_experiment(EXAMPLE, [*words, "resources.nodes=2"], environ={}, sites=ROOT / SITES)
    golden(GOLDEN / f"kubernetes-site-{site}.txt", render(build_job(loaded))[-1].text)


def test_the_committed_example_is_what_its_experiment_renders() -> None:
    loaded = load_experiment(EXAMPLE, environ={}, sites=ROOT / SITES)
    assert stale(render(build_job(loaded)), ROOT / "k8s/pretrain-1b") == []
    version = re.search(r'__version__ = "(.+)"', (ROOT / "trainwright/__init__.py").read_text())
    assert version
    assert loaded.experiment.image == f"registry.invalid/trainwright:{version[1]}"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == "trainwright"


def test_the_same_job_is_rendered_to_the_same_bytes() -> None:
    assert whole_text(kubernetes_job(nodes=2)) == whole_text(kubernetes_job(nodes=2))
    assert "&id" not in whole_text(kubernetes_job(nodes=2))


# --- what agrees -----------------------------------------------------------------------------------------------------


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            yield from differences(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from differences(first, second, f"{path}[{index}]")
    elif one != other:
        yield path


def test_two_and_sixteen_nodes_differ_in_their_number_and_nowhere_else() -> None:
    two, sixteen = documents(kubernetes_job(nodes=2)), documents(kubernetes_job(nodes=16))
    job = ".spec.replicatedJobs[0].template.spec"
    pet = [one["name"] for one in container(kubernetes_job(nodes=2))["env"]].index("PET_NNODES")
    assert list(differences(two, sixteen)) == [
        f".train.yaml[0]{job}.completions",
        f".train.yaml[0]{job}.parallelism",
        f".train.yaml[0]{job}.template.spec.containers[0].env[{pet}].value",
    ]


def test_one_and_two_nodes_differ_where_they_must() -> None:
    one, two = kubernetes_job(), kubernetes_job(nodes=2)
    first, second = documents(one), documents(two)
    assert list(differences(first[PREPARE], second[PREPARE])) == []
    assert list(differences(first["config.yaml"], second["config.yaml"])) == ["[1].spec.ingress", "[1].spec.egress"]
    assert list(differences(job_spec(one)["template"], job_spec(two)["template"])) == [".spec.containers[0].env"]
    more = [name for name in environ(two) if name not in environ(one)]
    assert more == ["PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"]
    assert (top(one)["kind"], top(two)["kind"]) == ("Job", "JobSet")


@pytest.mark.parametrize("nodes", [2, 16])
def test_the_first_pod_of_the_set_is_where_torchrun_is_sent(nodes: int) -> None:
    job = kubernetes_job(nodes=nodes)
    spec, told = top(job)["spec"], environ(job)
    (group,) = spec["replicatedJobs"]
    # A pod of a JobSet is called set-group-job-index; its set's network is the rest of its name.
    assert (
        told["PET_MASTER_ADDR"] == f"{top(job)['metadata']['name']}-{group['name']}-0-0.{spec['network']['subdomain']}"
    )
    assert spec["network"]["enableDNSHostnames"] is spec["network"]["publishNotReadyAddresses"] is True
    assert group["replicas"] == 1
    inside = group["template"]["spec"]
    assert inside["completionMode"] == "Indexed"
    assert inside["completions"] == inside["parallelism"] == int(told["PET_NNODES"]) == nodes


@pytest.mark.parametrize("nodes", [2, 16])
def test_boot_reads_what_the_pod_is_told(nodes: int) -> None:
    job = kubernetes_job(nodes=nodes)
    told = {name: value for name, value in environ(job).items() if isinstance(value, str)}
    assert environ(job)["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": names.RANK_ANNOTATION}}
    for rank in (0, nodes - 1):
        node = boot_nodes.this_node(job.resources, None, None, {**told, boot_nodes.NODE_RANK_VARIABLE: str(rank)})
        assert (node.rank, node.num_nodes, node.master) == (rank, nodes, (names.first_host("small"), names.PORT))
        assert node.ranks == range(rank * 8, rank * 8 + 8)


@pytest.mark.parametrize("job", VARIANTS.values(), ids=VARIANTS)
def test_names_labels_and_mounts_agree_across_documents(job: Job) -> None:
    found = [document for listed in documents(job).values() for document in listed]
    by_kind = {document["kind"]: document for document in found}
    assert {document["metadata"]["namespace"] for document in found} == {"trainwright"}
    for path in [name for name in documents(job) if name in (PREPARE, TRAIN)]:
        template, spec = job_spec(job, path)["template"], pod_spec(job, path)
        assert (
            template["metadata"]["labels"].items()
            >= by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()
        )
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in container(job, path)["volumeMounts"]} == set(volumes)
        assert volumes["experiment"]["configMap"]["name"] == by_kind["ConfigMap"]["metadata"]["name"]
        folder, _, file = container(job, path)["args"][1].rpartition("/")
        assert file in by_kind["ConfigMap"]["data"]
        assert folder in [mount["mountPath"] for mount in container(job, path)["volumeMounts"]]


def test_the_experiment_travels_as_its_author_wrote_it() -> None:
    text = (ROOT / "experiments/demo.yaml").read_text()
    assert documents(kubernetes_job(experiment_text=text))["config.yaml"][0]["data"]["small.yaml"] == text


def test_wishes_reach_the_preparation_alone_which_starts_once() -> None:
    job = kubernetes_job(flags=("--fresh",))
    assert "--fresh" in container(job, PREPARE)["args"]
    assert "--fresh" not in container(job)["args"]


def test_the_preparation_stops_before_training_and_asks_for_no_gpu() -> None:
    job = kubernetes_job({"node_selector": "topology.kubernetes.io/zone=a,spot=true"}, nodes=2)
    assert container(job, PREPARE)["args"][-3:] == ["resources.nodes=1", "--until", "tokenizer"]
    assert "nvidia" not in str(top(job, PREPARE))
    assert pod_spec(job, PREPARE)["nodeSelector"] == {"topology.kubernetes.io/zone": "a"}
    assert pod_spec(job)["nodeSelector"] == {"topology.kubernetes.io/zone": "a", "spot": "true"}


def test_the_parts_of_a_large_corpus_are_told_apart_by_the_sharders_own_words(tmp_path: Path) -> None:
    job = VARIANTS["parts"]
    spec, arguments = job_spec(job, "shards.yaml"), container(job, "shards.yaml")["args"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert "nvidia" not in str(spec)
    told = []
    for index in range(3):
        for name, text in documents(job)["config.yaml"][0]["data"].items():
            (tmp_path / name).write_text(text)
        words = [expanded(word, {"TRAINWRIGHT_INDEX": str(index)}) for word in arguments]
        found = sharder_words().parse_args([word.replace("/experiment", str(tmp_path)) for word in words])
        assert (found.word, found.words[1:]) == ("shard", list(job.overrides))
        told.append(Part.parse(found.part))
    assert told == [Part(1, 3), Part(2, 3), Part(3, 3)]
    # The pods write side by side, and the preparation after them finds the shards made.
    assert documents(job)["volume.yaml"][0]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert [file.path for file in render(job)][-3:] == ["shards.yaml", "prepare.yaml", "train.yaml"]


@settings(max_examples=30)
@given(st.lists(ANY_TEXT | HARD, max_size=5), ANY_TEXT | HARD)
def test_any_override_and_any_value_arrive_as_they_are(values: list[str], value: str) -> None:
    overrides = tuple(f"a.b={one}" for one in values)
    job = kubernetes_job(overrides=overrides, environ=(("RUN_EXPERIMENT", value),), flags=())
    arguments = [expanded(word, {"HOME": "/wrong", "RUN_EXPERIMENT": "wrong"}) for word in container(job)["args"]]
    assert arguments == ["boot", "/experiment/small.yaml", *overrides]
    assert expanded(environ(job)["RUN_EXPERIMENT"], {"HOME": "/wrong"}) == value
    assert expanded(literal(value), {"HOME": "/wrong"}) == value


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", fullmatch=True)


@settings(max_examples=30)
@given(NAMES, st.integers(1, 2000))
def test_a_name_is_refused_or_every_name_made_of_it_is_good(name: str, nodes: int) -> None:
    try:
        found = documents(kubernetes_job(name=name, nodes=nodes))
    except UserError:
        assert len(name) > 40
        return
    label = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
    for document in (document for listed in found.values() for document in listed):
        assert label.fullmatch(document["metadata"]["name"])
        assert all(len(value) <= 63 for value in document["metadata"]["labels"].values())
    host, _, subdomain = names.first_host(name).partition(".")
    assert nodes == 1 or (label.fullmatch(f"{host[:-1]}{nodes - 1}-abcde") and label.fullmatch(subdomain))


# --- around the pods ------------------------------------------------------------------------------------------------


def test_pods_of_a_run_reach_names_https_and_one_another() -> None:
    alone, many = (documents(kubernetes_job(nodes=nodes))["config.yaml"][1]["spec"] for nodes in (1, 2))
    ports = [[port["port"] for port in rule.get("ports", [])] for rule in alone["egress"]]
    assert (ports, alone["ingress"]) == ([[53, 53], [443]], [])
    peers = [{"podSelector": {"matchLabels": {"app.kubernetes.io/instance": "small"}}}]
    assert many["ingress"] == [{"from": peers}]
    assert many["egress"] == [*alone["egress"], {"to": peers}]


def test_time_and_queue_are_told_to_whom_they_concern() -> None:
    job = VARIANTS["queue"]
    told = {name: value for name, value in top(job)["metadata"]["labels"].items() if name.startswith("kueue")}
    assert told == {
        "kueue.x-k8s.io/queue-name": "gpus",
        "kueue.x-k8s.io/priority-class": "low",
        "kueue.x-k8s.io/max-exec-time-seconds": "46800",
    }
    # Boot counts the hours of all its starts; the cluster's own limit comes an hour later.
    assert environ(job)["TRAINWRIGHT_MAX_HOURS"] == "12"
    assert job_spec(job)["activeDeadlineSeconds"] == 46800
    noted = job_spec(job)["template"]["metadata"]["annotations"]
    assert noted == {"kueue.x-k8s.io/podset-preferred-topology": "cloud.example/rack"}
    assert "kueue.x-k8s.io/queue-name" in top(job, PREPARE)["metadata"]["labels"]
    assert "activeDeadlineSeconds" not in job_spec(job, PREPARE)
    assert "TRAINWRIGHT_MAX_HOURS" not in environ(job, PREPARE)
    assert pod_spec(kubernetes_job({"priority_class": "low"}))["priorityClassName"] == "low"


@pytest.mark.parametrize(("nodes", "mode", "storage"), [(1, "ReadWriteOnce", "own"), (2, "ReadWriteMany", "shared")])
def test_the_volume_is_as_the_nodes_need_it(nodes: int, mode: str, storage: str) -> None:
    asked = {"volume_gib": 300, "storage_class": "own", "shared_storage_class": "shared"}
    (claim,) = documents(kubernetes_job(asked, nodes=nodes))["volume.yaml"]
    assert (claim["spec"]["accessModes"], claim["spec"]["storageClassName"]) == ([mode], storage)
    assert claim["spec"]["resources"] == {"requests": {"storage": "300Gi"}}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (
            kubernetes_job(name="a" * 48, nodes=16),
            r"name=a{48}: with resources.nodes=16 .* 64 char.* at most 47",
        ),
        (kubernetes_job(name="1b", nodes=2), "name=1b: .* let it start with a letter"),
        (kubernetes_job({"gpu": "h100"}), "targets.kubernetes.gpu=h100: this cluster's GPU types are not known"),
        (
            kubernetes_job({"access_mode": "ReadWriteOnce"}, nodes=2),
            "access_mode=ReadWriteOnce: .*nodes=2",
        ),
        (kubernetes_job({"secret": None}), r"targets.kubernetes.secret: is not set; .*HF_TOKEN, WANDB_API_KEY"),
        (kubernetes_job(folders=("/scratch/me",)), "/scratch/me: is not on the volume"),
        (kubernetes_job(image=None), "image: this target runs the image"),
        (kubernetes_job({"prepare": "off"}), "--continue: a cluster would repeat"),
        (kubernetes_job({"gpu_resource": None}), "targets.kubernetes.gpu_resource: is not set"),
        (kubernetes_job(experiment_text="#" * 200_000), "small.yaml: 2000.. bytes"),
    ],
)
def test_what_a_cluster_would_refuse_later_is_refused_now(job: Job, words: str) -> None:
    with pytest.raises(UserError, match=words):
        render(job)


def test_an_unknown_gpu_is_answered_with_those_that_the_site_knows() -> None:
    words = ["targets.kubernetes.site=gke", "targets.kubernetes.gpu=h900"]
    with pytest.raises(UserError, match=r"targets.kubernetes.gpu=h900: this cluster knows l4, a100-40gb, .*h100"):
        load_experiment(EXAMPLE, words, environ={}, sites=ROOT / SITES)
    # Boot reads the same words inside the pod, where there are no profiles.
    assert load_experiment(EXAMPLE, words, environ={}).experiment.targets.kubernetes.gpu == "h900"


def test_the_refusal_of_a_missing_secret_says_how_to_make_it() -> None:
    with pytest.raises(UserError) as told:
        render(kubernetes_job({"secret": None, "context": "it's here"[:4] + "x"}))
    line = str(told.value).splitlines()[-1].strip()
    assert line.startswith("env | grep -E '^(HF_TOKEN|WANDB_API_KEY)=' | kubectl --namespace=trainwright ")
    assert line.endswith("create secret generic trainwright --from-env-file=/dev/stdin")


def test_the_image_is_what_the_target_says() -> None:
    assert image_of(kubernetes_job()) == IMAGE


def test_the_guides_five_commands_name_what_exists_in_the_order_that_works() -> None:
    guide = (ROOT / "docs/kubernetes.md").read_text()
    found = re.findall(r"^(.*?) +# (\d): ", guide, re.MULTILINE)
    assert [number for _, number in found] == ["1", "2", "3", "4", "5"]
    first, image, sharder, launch, logs = (line for line, _ in found)
    assert (ROOT / first.removeprefix("kubectl apply -k ") / "kustomization.yaml").is_file()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"image", "push"} <= set(targets)
    assert (image.split()[:3], sharder.split()[:4]) == (
        ["make", "image", "push"],
        ["make", "image", "push", "TARGET=sharder"],
    )
    _, word, name, flag, target, *overrides = launch.split()
    assert (word, flag, target) == ("launch", "--target", "kubernetes")
    loaded = load_experiment(ROOT / f"experiments/{name}.yaml", overrides, environ={}, sites=ROOT / SITES)
    assert {"config.yaml", PREPARE, TRAIN} == {file.path for file in render(build_job(loaded))}
    assert logs.split() == ["trainwright", "logs", name, "-f"]
    for path in re.findall(r"`(k8s/[\w/-]+)`", guide):
        assert (ROOT / path).is_dir(), path
