"""A pod is made once, of what can be had, and what does not work is not left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.runpod.client import Client, RunpodError
from infra.runpod.create import candidates, create, prepared
from infra.runpod.launched import send
from infra.runpod.manifest import MAX_BODY_BYTES, Manifest, checked
from infra.runpod.wait import create_and_wait
from infra.runpod.body import document
from infra.engine import Engine
from recorder import IMAGE, a_job
from runpod_state import A100, H100, KEY, NO_ROOM, SXM, FakePod, FakeRunPod
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.runpod import HEARTBEAT, RunpodTarget, read_orders
from trainwright.spec.targets import Targets

GPUS = ("A100-80GB", "A100-SXM", "H100-PCIE")


def tree(resources: Resources | None = None, **settings: Any) -> dict[str, Any]:
    target = RunpodTarget(**{"gpus": GPUS, "volume": "transformer-shared", **settings})
    return document(a_job(targets=Targets(runpod=target), resources=resources or Resources(), overrides=()))


def manifest(**changes: Any) -> Manifest:
    return checked({**tree(), **changes}, "pod.yaml")


def made(client: Client, wanted: Manifest) -> tuple[Any, list[str]]:
    said: list[str] = []
    whole = prepared(client, wanted)
    return create(client, whole, iter(candidates(client, whole)), said.append), said


def test_names_become_ids_and_the_pod_gets_its_orders(fake: FakeRunPod, client: Client) -> None:
    pod, _ = made(client, checked(tree(max_hours=12, max_dollars=30), "pod.yaml"))
    body = fake.only().body
    assert pod.id == fake.only().id
    assert body["mounts"] == {"network": [{"volumeId": "vol1", "path": "/workspace"}]}
    assert body["dataCenterIds"] == ["US-KS-2"]
    assert "x-trainwright" not in body
    orders = read_orders(body["env"])
    assert orders is not None
    assert (orders.max_hours, orders.max_dollars, orders.dollars_per_hour) == (12, 30, 1.64)


def test_what_is_in_stock_is_tried_first_and_the_cheapest_of_it(fake: FakeRunPod, client: Client) -> None:
    fake.told |= {A100: "NONE", SXM: "LOW", H100: "HIGH"}
    found = candidates(client, prepared(client, manifest()))
    assert [one.gpu for one in found] == [SXM, H100, A100]


def test_the_next_type_is_taken_when_the_catalogue_was_wrong(fake: FakeRunPod, client: Client) -> None:
    fake.room |= {A100: 0, SXM: 0}
    _, said = made(client, manifest())
    assert fake.only().body["gpu"]["id"] == H100
    assert said[:2] == [f"{A100} in US-KS-2: {NO_ROOM}", f"{SXM} in US-KS-2: {NO_ROOM}"]


def test_nothing_to_be_had_anywhere_is_one_sentence_with_their_last_words(fake: FakeRunPod, client: Client) -> None:
    fake.room.clear()
    with pytest.raises(MissingError, match=f"has none of {A100}.*gpuFallback.*no longer any instances"):
        made(client, manifest())
    assert fake.pods == {}


@pytest.mark.parametrize("status", [402, 413, 422])
def test_what_would_be_the_same_with_every_type_ends_at_once(status: int, fake: FakeRunPod, client: Client) -> None:
    fake.faults.append(("POST", "/v2/pods", status, {}, {"detail": "no"}))
    with pytest.raises(RunpodError) as told:
        made(client, manifest())
    assert told.value.status == status
    assert [method for method, path, _ in fake.requests if path == "/v2/pods"].count("POST") == 1


def test_a_type_that_the_account_may_not_have_is_passed_over(fake: FakeRunPod, client: Client) -> None:
    fake.faults.append(("POST", "/v2/pods", 403, {}, {"detail": "not in your pool"}))
    made(client, manifest())
    assert fake.only().body["gpu"]["id"] == SXM


def test_a_lost_answer_is_found_by_name(fake: FakeRunPod, client: Client) -> None:
    fake.lose_replies = 1
    pod, _ = made(client, manifest())
    assert pod.id == fake.only().id


def test_a_lost_answer_finds_a_cluster_too(fake: FakeRunPod, client: Client) -> None:
    fake.lose_replies = 1
    cluster, _ = made(client, checked(tree(Resources(nodes=2)), "pod.yaml"))
    assert list(fake.clusters) == [cluster.id]


def test_nothing_but_lost_requests_says_where_to_look(fake: FakeRunPod, client: Client) -> None:
    fake.lose_requests = 9
    with pytest.raises(MissingError, match=r"answered none of 3 requests, and shows no such pod; look at .*get pods"):
        made(client, manifest())


def test_a_lost_request_is_made_again_once_it_is_sure_that_it_was_lost(fake: FakeRunPod, client: Client) -> None:
    fake.lose_requests = 2
    pod, _ = made(client, manifest())
    assert pod.id == fake.only().id


def test_a_server_error_on_create_is_looked_into_too(fake: FakeRunPod, client: Client) -> None:
    fake.faults.append(("POST", "/v2/pods", 500, {}, {"detail": "Something went wrong"}))
    pod, _ = made(client, manifest())
    assert pod.id == fake.only().id


def test_what_an_old_request_makes_late_is_deleted(fake: FakeRunPod, client: Client) -> None:
    fake.lose_requests = 1
    late = {**tree(), "env": {}}
    del late["x-trainwright"]
    late["mounts"] = {}
    fake.clock.after(23.5, lambda: fake.create(late))
    pod, _ = made(client, manifest())
    assert list(fake.pods) == [pod.id]


def test_a_name_that_lives_is_refused(fake: FakeRunPod, client: Client) -> None:
    made(client, manifest())
    with pytest.raises(UserError, match="of this name is PROVISIONING; follow it with"):
        made(client, manifest())
    assert len(fake.pods) == 1


def test_a_tag_is_refused_naming_make_push(client: Client) -> None:
    with pytest.raises(UserError, match=r"pod.yaml: image=registry.invalid/trainwright:0.1.0: a tag may.*make push"):
        prepared(client, manifest(image="registry.invalid/trainwright:0.1.0"))


def test_a_pod_elsewhere_than_its_volume_is_refused(client: Client) -> None:
    with pytest.raises(UserError, match="the volume transformer-shared is in US-KS-2"):
        prepared(client, manifest(dataCenterIds=["EU-RO-1"]))


def test_a_gpu_that_nobody_knows_is_refused_with_a_guess(client: Client) -> None:
    with pytest.raises(UserError, match=f"gpu NVIDIA A100 80 PCIe: no such GPU; did you mean {A100}"):
        candidates(client, manifest(gpu={"id": "NVIDIA A100 80 PCIe"}))


def test_a_body_that_is_too_large_never_leaves(fake: FakeRunPod, client: Client) -> None:
    with pytest.raises(UserError, match=f"RunPod takes {MAX_BODY_BYTES}"):
        made(client, manifest(env={"LARGE": "x" * MAX_BODY_BYTES}))
    assert "POST" not in [method for method, _, _ in fake.requests]


def test_several_nodes_are_a_cluster(fake: FakeRunPod, client: Client) -> None:
    wanted = checked(tree(Resources(nodes=2, ranks_per_node=4)), "pod.yaml")
    cluster, _ = made(client, wanted)
    assert [(pod.cluster, pod.rank) for pod in fake.pods.values()] == [(cluster.id, 0), (cluster.id, 1)]
    body = next(iter(fake.pods.values())).body
    assert body["type"] == "TRAINING"
    assert body["env"]["NCCL_SOCKET_IFNAME"] == "ens1"
    assert read_orders(body["env"]).cluster == "small"
    assert read_orders(body["env"]).dollars_per_hour == pytest.approx(8 * 1.64)


# --- waiting ---------------------------------------------------------------------------------------------------------


def beats(fake: FakeRunPod) -> Callable[[FakePod], None]:
    """Return what makes boot give a sign of life in a pod whose container runs."""

    def on(pod: FakePod) -> None:
        healthy = not pod.stuck and not pod.end and pod.num_gpus
        if healthy:
            fake.clock.after(90, lambda: fake.say(pod, f"07:00:00 {HEARTBEAT} of run small"))

    return on


def waited(fake: FakeRunPod, client: Client) -> tuple[Any, list[str]]:
    fake.on_create = beats(fake)
    said: list[str] = []
    return create_and_wait(client, manifest(), said.append), said


def test_waiting_ends_with_boots_first_sign_of_life(fake: FakeRunPod, client: Client) -> None:
    pod, said = waited(fake, client)
    assert [line.removeprefix(f"{pod.id}: ") for line in said[1:]] == [
        "PROVISIONING",
        "STARTING",
        "RUNNING",
        "boot gives signs of life",
    ]
    assert fake.clock.passed >= 90
    assert fake.refused == 0


@pytest.mark.parametrize(
    ("knob", "words"),
    [
        ("stuck", "PROVISIONING for 20 minutes"),
        ("broken", "reports an error of this host"),
        ("without_gpus", "was started with 0 GPUs"),
    ],
)
def test_a_host_that_does_not_work_is_given_back_and_another_taken(
    knob: str, words: str, fake: FakeRunPod, client: Client
) -> None:
    setattr(fake, knob, 1)
    pod, said = waited(fake, client)
    assert list(fake.pods) == [pod.id]
    assert any(words in line and line.endswith("deleted") for line in said)


def test_hosts_that_never_work_cost_three_tries_and_leave_nothing(fake: FakeRunPod, client: Client) -> None:
    fake.broken = 9
    with pytest.raises(MissingError, match="3 hosts in a row did not work"):
        waited(fake, client)
    assert fake.pods == {}


def test_a_host_that_cannot_be_given_back_is_said_loudly(fake: FakeRunPod, client: Client) -> None:
    fake.broken = 1
    fake.faults.extend(("DELETE", "/v2/pods", 503, {}, {}) for _ in range(5))
    with pytest.raises(MissingError, match=r"pod1 IS STILL BILLED .*`trainwright runpod delete pod1` ends it"):
        waited(fake, client)
    assert len(fake.pods) == 1


def test_a_pod_that_somebody_deletes_meanwhile_is_said_so(fake: FakeRunPod, client: Client) -> None:
    fake.clock.after(30, fake.pods.clear)
    with pytest.raises(UserError, match="was deleted by somebody else"):
        create_and_wait(client, manifest(), lambda _: None)


def test_launch_sends_what_render_shows(fake: FakeRunPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("RUNPOD_API_URL", fake.url)
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(tree()))
    assert send(path, Engine()) == fake.only().id
    sent = fake.only().body
    for key in ("args", "image", "gpu"):
        assert sent[key] == tree()[key]
    assert sent["image"] == IMAGE
