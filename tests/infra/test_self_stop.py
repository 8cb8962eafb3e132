"""The ladder by which a pod ends itself, against the fake RunPod with the rights that a pod's own key may have."""

import logging
from typing import Any

import pytest

from infra.boot.self_stop import Api, end_pod, rungs
from runpod_state import A100, KEY, FakePod, FakeRunPod

SCOPED = {"RUNPOD_API_KEY": "scoped"}


@pytest.fixture
def pod(fake: FakeRunPod) -> FakePod:
    """Return a pod that runs."""
    found = fake.create({"name": "small", "gpu": {"id": A100, "count": 1}})
    assert isinstance(found, FakePod)
    fake.clock.wait(60)
    return found


def ended(fake: FakeRunPod, pod: FakePod, fate: Any = "delete", **environ: str) -> bool:
    return end_pod(pod.id, fate, None, {**SCOPED, **environ, "RUNPOD_API_URL": fake.url}, fake.clock.wait)


@pytest.mark.parametrize(
    ("may", "requests", "left"),
    [
        ({"DELETE"}, 1, None),
        ({"terminate"}, 2, None),
        ({"stop"}, 3, "EXITED"),
    ],
)
def test_what_is_allowed_is_found_rung_by_rung(
    may: set[str], requests: int, left: str | None, fake: FakeRunPod, pod: FakePod
) -> None:
    fake.scoped_may = may
    assert ended(fake, pod)
    assert len(fake.requests) == requests
    assert [fake.status(one) for one in fake.pods.values()] == ([left] if left else [])


def test_a_pod_that_is_to_stop_is_stopped_and_deleted_only_when_it_cannot_be(fake: FakeRunPod, pod: FakePod) -> None:
    assert ended(fake, pod, "stop")
    assert fake.status(pod) == "EXITED"
    fake.act(pod, "start")
    fake.clock.wait(60)
    fake.scoped_may = {"DELETE"}
    assert ended(fake, pod, "stop")
    assert fake.pods == {}


def test_a_key_of_the_owners_goes_before_the_pods_own(fake: FakeRunPod, pod: FakePod) -> None:
    fake.scoped_may = set()
    assert ended(fake, pod, TRAINWRIGHT_RUNPOD_KEY=KEY)
    assert fake.pods == {}


def test_a_bad_moment_of_the_api_passes(fake: FakeRunPod, pod: FakePod) -> None:
    fake.faults.extend(("DELETE", "/v2/pods", 503, {}, {}) for _ in range(2))
    fake.faults.extend(("POST", "/v2/pods", 503, {}, {}) for _ in range(4))
    assert ended(fake, pod)
    assert fake.pods == {}
    assert 0 < fake.clock.passed - 60 <= 60


def test_a_key_that_may_not_see_the_pod_is_no_yes(fake: FakeRunPod, pod: FakePod) -> None:
    fake.faults.append(("DELETE", f"/v2/pods/{pod.id}", 404, {}, {"detail": "not found"}))
    assert ended(fake, pod)
    assert fake.pods == {}


def test_nobody_listening_is_said_loudly_and_tried_a_bounded_time(
    fake: FakeRunPod, pod: FakePod, caplog: pytest.LogCaptureFixture
) -> None:
    fake.scoped_may = set()
    with caplog.at_level(logging.WARNING, "boot"):
        assert not ended(fake, pod)
    assert "THIS POD IS STILL BILLED" in caplog.text
    assert f"trainwright runpod delete {pod.id}" in caplog.text
    assert len(fake.requests) == 6 * 3
    assert fake.clock.passed - 60 <= 300


def test_a_node_of_a_cluster_ends_the_cluster(fake: FakeRunPod) -> None:
    compute = {"gpuTypeId": A100, "gpuCountPerPod": 2, "podCount": 2}
    fake.create_cluster({"name": "pair", "type": "TRAINING", "compute": compute})
    node = next(iter(fake.pods))
    environ = {**SCOPED, "RUNPOD_API_URL": fake.url}
    assert end_pod(node, "stop", "pair", environ, fake.clock.wait)
    assert (fake.pods, fake.clusters) == ({}, {})


def test_no_answer_at_all_is_told_apart_from_yes(caplog: pytest.LogCaptureFixture) -> None:
    environ = {**SCOPED, "RUNPOD_API_URL": "http://127.0.0.1:9"}
    assert not end_pod("x", "delete", None, environ, lambda _: None)
    assert "refused" in caplog.text
    assert "secret" not in repr(Api("http://x", "secret"))


def test_every_fate_ends_in_something_that_costs_less() -> None:
    assert [rung.what for rung in rungs("x", "delete")] == ["delete the pod", "terminate the pod", "stop the pod"]
    assert [rung.what for rung in rungs("x", "stop")] == ["stop the pod", "delete the pod", "terminate the pod"]
