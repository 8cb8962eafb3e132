"""What `launch`, `ps`, `logs`, `stop` and `delete` do with a cluster: what is asked of kubectl, and what follows."""

from collections.abc import Callable, Mapping
from pathlib import Path
import re
from typing import Any

import pytest

from infra.job import Job
from infra.kubernetes import launched, logs
from infra.kubernetes.files import files_of
from infra.launches import Launch, State, find_launch, launch_folder, record
from infra.submit import write_rendered
from infra.targets import kubernetes
from kubernetes_cluster import CLAIM, CRD, Kubectl, claim, ended, pod
from recorder import IMAGE, Recorder, a_job
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.kubernetes import KubernetesTarget
from trainwright.spec.targets import Targets

Said = Callable[..., tuple[int, str, str]]
ID = "job/small --namespace=trainwright"
LAUNCH = Launch("small", "kubernetes", ID, "/nowhere/launch/small", 0.0)
PREPARE = ("job", "small-prepare")
KEYS = {"mine": ["HF_TOKEN", "WANDB_API_KEY"]}


def the_job(chosen: Mapping[str, Any] | None = None, nodes: int = 1, **changes: Any) -> Job:
    target = KubernetesTarget.model_validate({"secret": "mine", **(chosen or {})})
    resources = Resources(nodes=nodes, ranks_per_node=8)
    return a_job(**{"targets": Targets(kubernetes=target), "resources": resources, "flags": (), **changes})


def send(job: Job, root: Path, kubectl: Kubectl) -> str:
    folder = launch_folder(root, job.name)
    write_rendered(files_of(job), folder)
    return launched.send(job, folder, kubectl, wait=lambda _: None)


def completes(kubectl: Kubectl) -> None:
    """Let a preparation be done as soon as it is looked at."""
    if PREPARE in kubectl.objects:
        kubectl.objects[PREPARE]["status"] = ended("Complete")


def verbs(kubectl: Kubectl) -> list[str]:
    """Return what was changed in the cluster, in order."""
    changes = [command for command in kubectl.said if re.match(r"kubectl \S+ (apply|delete)", command)]
    return [" ".join((*command.split()[2:3], Path(command.split()[3].split("=")[-1]).name)) for command in changes]


# --- sending ---------------------------------------------------------------------------------------------------------


def test_training_is_sent_when_its_preparation_is_done(tmp_path: Path) -> None:
    kubectl = Kubectl(secrets=KEYS, looked=completes)
    assert send(the_job(), tmp_path, kubectl) == ID
    assert verbs(kubectl) == ["apply config.yaml", "apply prepare.yaml", "apply train.yaml"]
    assert all(command.startswith("kubectl --namespace=trainwright ") for command in kubectl.said)


def test_a_context_is_named_in_every_command_and_in_the_record(tmp_path: Path) -> None:
    kubectl = Kubectl(secrets=KEYS, looked=completes)
    arn = "arn:aws:eks:us-east-1:1:cluster/x"
    assert send(the_job({"context": arn}), tmp_path, kubectl) == f"{ID} --context={arn}"
    assert all(f" --context={arn} " in command for command in kubectl.said)


def test_without_a_step_of_its_own_the_first_node_prepares(tmp_path: Path) -> None:
    kubectl = Kubectl(secrets=KEYS)
    send(the_job({"prepare": "off"}), tmp_path, kubectl)
    assert verbs(kubectl) == ["apply config.yaml", "apply train.yaml"]


def test_parts_are_made_to_their_end_before_the_preparation(tmp_path: Path) -> None:
    def each_completes(kubectl: Kubectl) -> None:
        for name in ("small-shards", "small-prepare"):
            if ("job", name) in kubectl.objects:
                kubectl.objects["job", name]["status"] = ended("Complete")

    kubectl = Kubectl(secrets=KEYS, objects={CLAIM: claim("ReadWriteMany")}, looked=each_completes)
    send(the_job({"prepare_parts": 4}), tmp_path, kubectl)
    assert verbs(kubectl) == [f"apply {name}.yaml" for name in ("config", "shards", "prepare", "train")]
    with pytest.raises(UserError, match="is ReadWriteOnce, and several pods write to it at once"):
        send(the_job({"prepare_parts": 4}), tmp_path / "x", Kubectl(secrets=KEYS))


def test_several_nodes_are_sent_as_a_set(tmp_path: Path) -> None:
    objects = {CLAIM: claim("ReadWriteMany"), CRD: {"kind": "CustomResourceDefinition"}}
    kubectl = Kubectl(secrets=KEYS, objects=objects, looked=completes)
    assert send(the_job(nodes=2), tmp_path, kubectl) == "jobset/small --namespace=trainwright"
    assert ("jobset", "small") in kubectl.objects


def test_a_failed_preparation_sends_no_training_and_says_why(tmp_path: Path) -> None:
    def fails(kubectl: Kubectl) -> None:
        if PREPARE in kubectl.objects:
            kubectl.objects[PREPARE]["status"] = ended("Failed", "PodFailurePolicy", "exit code 78")

    kubectl = Kubectl(secrets=KEYS, looked=fails)
    with pytest.raises(UserError, match=r"^small-prepare: failed \(PodFailurePolicy: exit code 78\); training was not"):
        send(the_job(), tmp_path, kubectl)
    assert "apply train.yaml" not in verbs(kubectl)


def test_the_launch_is_on_record_while_its_preparation_runs(tmp_path: Path) -> None:
    seen: list[Launch | None] = []

    def looked(kubectl: Kubectl) -> None:
        if PREPARE in kubectl.objects:
            seen.append(find_launch(tmp_path, "small"))
            kubectl.objects[PREPARE]["status"] = ended("Complete") if len(seen) > 3 else {}

    send(the_job(), tmp_path, Kubectl(secrets=KEYS, looked=looked))
    assert seen[0] is not None
    assert seen[0].id == ID


def test_a_launch_that_was_interrupted_goes_on_with_its_preparation(tmp_path: Path) -> None:
    kubectl = Kubectl(secrets=KEYS)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    folder = launch_folder(tmp_path, "small")
    write_rendered(files_of(the_job()), folder)
    with pytest.raises(KeyboardInterrupt):
        launched.send(the_job(), folder, kubectl, wait=stop)
    found = find_launch(tmp_path, "small")
    assert found is not None
    # Not live, so that the same command may be given again.
    assert launched.state(found, kubectl) == State("preparing: running", live=False)

    def ends_once_it_is_applied(one: Kubectl) -> None:
        if "apply prepare.yaml" in verbs(one):
            completes(one)

    again = Kubectl(secrets=KEYS, objects=kubectl.objects, looked=ends_once_it_is_applied)
    assert send(the_job(), tmp_path, again) == ID
    assert not [verb for verb in verbs(again) if verb.startswith("delete")]


def test_what_an_earlier_launch_left_behind_makes_room(tmp_path: Path) -> None:
    kubectl = Kubectl(secrets=KEYS, looked=completes)
    send(the_job(), tmp_path, kubectl)
    kubectl.objects["job", "small"]["status"] = ended("Failed", "BackoffLimitExceeded")
    again = Kubectl(secrets=KEYS, objects=kubectl.objects, looked=completes)
    # Jobs cannot be changed: applying another over them would be refused.
    send(the_job(overrides=("train.steps=99",)), tmp_path, again)
    assert [verb for verb in verbs(again) if verb.startswith("delete")] == ["delete small", "delete small-prepare"]


def test_a_run_that_somebody_else_has_launched_is_left_alone(tmp_path: Path) -> None:
    kubectl = Kubectl(secrets=KEYS, looked=completes)
    send(the_job(), tmp_path, kubectl)
    with pytest.raises(UserError, match=r"^small: is running on that cluster, launched from elsewhere"):
        send(the_job(), tmp_path / "other", kubectl)


# --- what the cluster lacks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kubectl", "job", "words"),
    [
        (
            Kubectl(objects={}),
            the_job(),
            "kubernetes.volume=trainwright: no such claim in trainwright; `kubectl",
        ),
        (Kubectl(), the_job(nodes=2), "volume=trainwright: is ReadWriteOnce, and several pods write to it at once"),
        (Kubectl(objects={CLAIM: claim("ReadWriteMany")}), the_job(nodes=2), "nodes=2: this cluster has no JobSet"),
        (Kubectl(), the_job(), r"secret=mine: there is no such secret; make it with\n  env \| grep"),
        (Kubectl(secrets={"mine": ["HF_TOKEN"]}), the_job(), "secret=mine: has no WANDB_API_KEY; make it"),
        (Kubectl(secrets={"mine": []}), the_job(), "secret=mine: has no HF_TOKEN, WANDB_API_KEY; make it"),
        (Kubectl(), the_job({"prepare_image": "x/y:1"}), "targets.kubernetes.prepare_image=x/y:1: a tag may mean"),
    ],
)
def test_what_pods_would_wait_for_in_vain_is_said_before_they_are_made(
    tmp_path: Path, kubectl: Kubectl, job: Job, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        send(job, tmp_path, kubectl)
    assert verbs(kubectl) == []


def test_a_volume_whose_size_is_given_is_made_once(tmp_path: Path) -> None:
    kubectl = Kubectl(objects={}, secrets=KEYS, looked=completes)
    send(the_job({"volume_gib": 100}), tmp_path, kubectl)
    assert verbs(kubectl)[0] == "apply volume.yaml"
    again = Kubectl(objects={CLAIM: claim("ReadWriteOnce")}, secrets=KEYS, looked=completes)
    send(the_job({"volume_gib": 100}), tmp_path, again)
    assert "apply volume.yaml" not in verbs(again)


def test_what_this_user_may_not_look_at_is_left_to_the_cluster(tmp_path: Path) -> None:
    shut = ("secret", "crd", "persistentvolumeclaim")
    kubectl = Kubectl(forbidden=shut, looked=completes)
    assert send(the_job(nodes=2), tmp_path, kubectl) == "jobset/small --namespace=trainwright"


def test_a_cluster_that_does_not_answer_is_told_in_its_own_words(tmp_path: Path) -> None:
    from infra.engine import Answer

    engine = Recorder(programs=("kubectl",), answers=lambda _: Answer(1, "", "Unable to connect to the server: EOF\n"))
    with pytest.raises(MissingError, match=r"^kubectl get: Unable to connect to the server: EOF$"):
        # Not the fake cluster that `send` is written for: a program that only fails.
        send(the_job(), tmp_path, engine)  # type: ignore[arg-type]


def test_a_machine_without_kubectl_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"^kubectl: not on this machine; install it"):
        send(the_job(), tmp_path, Recorder())  # type: ignore[arg-type]


SAVED = "10:00:00 stage=train step=8 checkpoint saved seconds={}\n"


@pytest.mark.parametrize("seen", ["folder", "pods"])
def test_a_grace_shorter_than_the_measured_save_is_refused(tmp_path: Path, seen: str) -> None:
    text = SAVED.format("12.00") + SAVED.format("41.70")
    if seen == "folder":
        log = tmp_path / "runs/small/logs/train.out"
        log.parent.mkdir(parents=True)
        log.write_text(text)
    kubectl = Kubectl(secrets=KEYS, logs=text if seen == "pods" else "", looked=completes)
    with pytest.raises(UserError, match=r"^targets.kubernetes.grace_seconds=30: .* up to 42 s, .*; give at least 52$"):
        send(the_job({"grace_seconds": 30}), tmp_path, kubectl)
    send(the_job({"grace_seconds": 52}), tmp_path, kubectl)


# --- how it is doing -------------------------------------------------------------------------------------------------

LONG = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."
UNPLACED = {"conditions": [{"type": "PodScheduled", "status": "False", "message": LONG}]}
NO_IMAGE = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}
NO_KEY = {"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError"}}}]}
CREATING = {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}


@pytest.mark.parametrize(
    ("found", "pods", "state"),
    [
        (None, [], State("removed", live=False)),
        ({"status": {"active": 1}}, [pod("a")], State("running", live=True)),
        ({"status": {"failed": 2}}, [pod("a")], State("running, started 3 times", live=True)),
        ({"status": {"restarts": 1}}, [], State("running, started 2 times", live=True)),
        ({"status": ended("Complete")}, [], State("complete", live=False)),
        ({"status": ended("Failed", "DeadlineExceeded")}, [], State("failed (DeadlineExceeded)", live=False)),
        ({"spec": {"suspend": True}}, [], State("suspended, waits for its queue", live=True)),
        ({}, [pod("a", "Pending", **UNPLACED)], State(f"waits for a node: {LONG}", live=True)),
        ({}, [pod("a", "Pending", **NO_IMAGE)], State("waits: ImagePullBackOff: no such image", live=True)),
        ({}, [pod("a", "Pending", **NO_KEY)], State("waits: CreateContainerConfigError", live=True)),
        ({}, [pod("a", "Pending", **CREATING)], State("starting", live=True)),
        (
            {"spec": {"completionMode": "Indexed", "completions": 6}, "status": {"succeeded": 2}},
            [],
            State("running, 2 of 6 done", live=True),
        ),
    ],
)
def test_the_state_is_what_the_cluster_says(found: dict[str, Any] | None, pods: list[Any], state: State) -> None:
    kubectl = Kubectl(objects={} if found is None else {("job", "small"): found}, pods=pods)
    assert kubernetes.state(LAUNCH, kubectl) == state


def test_a_set_has_its_own_word_for_complete() -> None:
    kubectl = Kubectl(objects={("jobset", "small"): {"status": ended("Completed", "AllJobsCompleted")}})
    launch = Launch("small", "kubernetes", "jobset/small --namespace=trainwright", "/nowhere", 0.0)
    assert kubernetes.state(launch, kubectl) == State("complete", live=False)


def test_an_id_that_is_no_job_is_refused() -> None:
    with pytest.raises(UserError, match="is nothing that was launched on Kubernetes"):
        kubernetes.state(Launch("small", "kubernetes", "deployment/x", "/nowhere", 0.0), Kubectl())


# --- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_is_that_of_the_preparation_and_then_of_every_start_of_the_first_node() -> None:
    pods = [
        pod("p", "Succeeded", component="prepare", born="2026-01-01T00:00:00Z"),
        pod("a-0", "Failed", index="0", born="2026-01-01T01:00:00Z"),
        pod("a-1", "Failed", index="1", born="2026-01-01T01:00:00Z"),
    ]

    def restarts(kubectl: Kubectl) -> None:
        if len(kubectl.shown) == 2 and len(kubectl.pods) == 3:
            kubectl.pods.append(pod("b-0", "Running", index="0", born="2026-01-01T02:00:00Z"))
        elif len(kubectl.shown) == 3:
            kubectl.objects["job", "small"]["status"] = ended("Complete")

    kubectl = Kubectl(objects={("job", "small"): {}}, pods=pods, looked=restarts)
    assert logs.show(LAUNCH, kubectl, follow=True, wait=lambda _: None) == 0
    words = "kubectl --namespace=trainwright logs {} --container=boot"
    expected = [words.format("p"), words.format("a-0"), f"{words.format('b-0')} --follow"]
    assert kubectl.shown == expected


def test_without_following_what_is_there_is_shown_once() -> None:
    kubectl = Kubectl(objects={("job", "small"): {}}, pods=[pod("a"), pod("b", "Pending")])
    assert kubernetes.logs(LAUNCH, kubectl, follow=False) == 0
    assert kubectl.shown == ["kubectl --namespace=trainwright logs a --container=boot"]


def test_every_point_of_a_sweep_speaks() -> None:
    pods = [pod(f"s-{index}", index=str(index), component="sweep") for index in range(3)]
    kubectl = Kubectl(objects={("job", "small"): {}}, pods=pods)
    kubernetes.logs(LAUNCH, kubectl, follow=False)
    assert len(kubectl.shown) == 3


def test_a_run_that_has_said_nothing_yet_is_answered_with_its_state() -> None:
    kubectl = Kubectl(objects={("job", "small"): {}}, pods=[pod("a", "Pending", **NO_IMAGE)])
    with pytest.raises(UserError, match=r"^small: no pod has said anything yet; it is waits: ImagePullBackOff"):
        kubernetes.logs(LAUNCH, kubectl, follow=False)


# --- ending and removing ---------------------------------------------------------------------------------------------


def test_a_run_is_ended_from_inside_its_pod() -> None:
    going = pod("old")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    kubectl = Kubectl(pods=[going, pod("small-x")])
    assert kubernetes.end(LAUNCH, kubectl, "it's enough") == "small-x: saves and ends after its current step"
    expected = "exec small-x --container=boot -- trainwright stop small --reason 'it'\"'\"'s enough'"
    assert kubectl.said[-1] == f"kubectl --namespace=trainwright {expected}"


def test_without_a_pod_there_is_nobody_to_end_it() -> None:
    with pytest.raises(UserError, match=r"^small: has no pod that runs, .*kubectl --namespace=trainwright delete job"):
        kubernetes.end(LAUNCH, Kubectl(pods=[pod("a", "Pending")]), "x")


def test_removing_takes_the_jobs_and_leaves_the_volume(tmp_path: Path) -> None:
    kubectl = Kubectl(objects={}, secrets=KEYS, looked=completes)
    send(the_job({"volume_gib": 100}), tmp_path, kubectl)
    kubernetes.remove(record("small", "kubernetes", ID, launch_folder(tmp_path, "small")), kubectl)
    assert list(kubectl.objects) == [CLAIM]


# --- the words -------------------------------------------------------------------------------------------------------

EXPERIMENT = """\
name: small
image: {image}
secrets: [HF_TOKEN]
train: {{seq_len_tokens: 32, micro_batch: 2, global_batch_sequences: 8, steps: 10}}
model: {{dim: 64, num_layers: 2, num_heads: 2}}
targets: {{kubernetes: {{secret: mine, prepare: "off"}}}}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Kubectl], Path]:
    """Return what puts an experiment into a folder of its own, and a cluster behind the words."""

    def open_shop(kubectl: Kubectl) -> Path:
        (tmp_path / "small.yaml").write_text(EXPERIMENT.format(image=IMAGE))
        monkeypatch.chdir(tmp_path)
        for module in ("infra.engine", "infra.words"):
            monkeypatch.setattr(f"{module}.Engine", lambda *_: kubectl)
        return tmp_path

    return open_shop


def test_launch_needs_no_value_of_a_secret_that_the_cluster_keeps(
    said: Said, shop: Callable[[Kubectl], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    shop(Kubectl(secrets=KEYS))
    code, out, err = said("launch", "small.yaml", "--target", "kubernetes")
    assert (code, err) == (0, "")
    assert out.startswith("small: launched on target kubernetes (job/small --namespace=trainwright)")


def test_stop_reaches_a_run_whose_folder_only_the_cluster_sees(said: Said, shop: Callable[[Kubectl], Path]) -> None:
    kubectl = Kubectl(secrets=KEYS, pods=[pod("small-x")])
    shop(kubectl)
    assert said("launch", "small.yaml", "--target", "kubernetes")[0] == 0
    assert said("stop", "small")[:2] == (0, "small-x: saves and ends after its current step\n")
    assert "trainwright stop small" in kubectl.said[-1]
