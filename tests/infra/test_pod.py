"""A pod keeps to its orders: limits, idleness, flags that act once, and an end that is its own."""

from collections.abc import Callable
import logging
from pathlib import Path
from typing import Any

import pytest

from infra.boot.pod import GRACE_S, Pod, PodWatch, fate_of, in_pod, read_record, settle, signs_of_work, this_pod
from infra.boot.pod import torchrun_variables
from runpod_state import A100, FakePod, FakeRunPod
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.runpod import ENDED, HEARTBEAT, ORDERS_VARIABLE, POD_VARIABLE, PodOrders, read_orders
from trainwright.store.files import read_json, write_json


def orders(**changes: Any) -> PodOrders:
    return PodOrders(**{"dollars_per_hour": 2.0, **changes})


def a_pod(root: Path, **changes: Any) -> Pod:
    found = this_pod(
        {
            POD_VARIABLE: "pod1",
            ORDERS_VARIABLE: orders(**changes).text(),
            "TRAINWRIGHT_ROOT": str(root),
            "RUN_EXPERIMENT": "small",
        }
    )
    assert found is not None
    return found


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def own(fake: FakeRunPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePod:
    """Return the pod that this process is told to run in."""
    pod = fake.create({"name": "small", "gpu": {"id": A100, "count": 1}})
    assert isinstance(pod, FakePod)
    fake.clock.wait(60)
    monkeypatch.setenv(POD_VARIABLE, pod.id)
    monkeypatch.setenv(ORDERS_VARIABLE, orders().text())
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path))
    monkeypatch.setenv("RUN_EXPERIMENT", "small")
    monkeypatch.setenv("RUNPOD_API_KEY", "scoped")
    monkeypatch.setenv("RUNPOD_API_URL", fake.url)
    return pod


def ends_with(code: int, seen: list[list[str]] | None = None) -> Callable[[Any], int]:
    def boot(words: Any) -> int:
        if seen is not None:
            seen.append(list(words))
        return code

    return boot


def test_outside_a_pod_of_ours_boot_is_left_alone(
    own: FakePod, fake: FakeRunPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ORDERS_VARIABLE)
    assert in_pod(ends_with(0), []) == 0
    assert list(fake.pods) == [own.id]
    assert fake.requests == []


def test_a_pod_that_nobody_gave_orders_is_told_that_nothing_ends_it(
    own: FakePod, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    del own
    monkeypatch.delenv(ORDERS_VARIABLE)
    assert in_pod(ends_with(0), []) == 0
    assert "nothing ends it: it is billed until you do" in caplog.text


def test_orders_that_cannot_be_read_stop_the_pod(
    own: FakePod, fake: FakeRunPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ORDERS_VARIABLE, '{"when_done": "never"}')
    seen: list[list[str]] = []
    assert in_pod(ends_with(0, seen), [], fake.clock.wait) == Exit.REFUSED
    assert (seen, fake.status(own)) == ([], "EXITED")


@pytest.mark.parametrize(
    ("code", "left"),
    [
        (Exit.OK, []),
        (Exit.REFUSED, ["EXITED"]),
        (Exit.MISSING, ["EXITED"]),
        (Exit.INTERRUPTED, ["RUNNING"]),
        (1, ["RUNNING"]),
    ],
)
def test_the_end_of_a_run_ends_its_pod_and_any_other_end_starts_it_again(
    code: int, left: list[str], own: FakePod, fake: FakeRunPod
) -> None:
    del own
    assert in_pod(ends_with(code), [], fake.clock.wait) == code
    fake.clock.wait(0)
    assert [fake.status(pod) for pod in fake.pods.values()] == left


def test_a_refusal_of_boot_is_an_end_too(own: FakePod, fake: FakeRunPod) -> None:
    def boot(_: Any) -> int:
        raise UserError("train.steps: is wrong")

    assert in_pod(boot, [], fake.clock.wait) == 78
    assert fake.status(own) == "EXITED"


def test_ending_twice_is_as_ending_once(own: FakePod, fake: FakeRunPod) -> None:
    del own
    assert [in_pod(ends_with(0), [], fake.clock.wait) for _ in range(2)] == [0, 0]
    assert fake.pods == {}


def test_flags_act_in_the_first_start_of_a_pod_only(own: FakePod, fake: FakeRunPod) -> None:
    del own
    seen: list[list[str]] = []
    for _ in range(3):
        in_pod(ends_with(75, seen), ["train.steps=9", "--fresh"], fake.clock.wait)
    assert seen == [["train.steps=9", "--fresh"], ["train.steps=9"], ["train.steps=9"]]


def test_the_log_says_that_the_run_is_over(own: FakePod, fake: FakeRunPod, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "boot"):
        in_pod(ends_with(0), [], fake.clock.wait)
    assert f"{ENDED}: exit 0, so delete this pod" in caplog.text
    del own


# --- the watch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"max_hours": 3}, "has run 3.0 hours, its limit is 3"), ({"max_dollars": 6}, "has cost $6.00, its budget is $6")],
)
def test_a_limit_asks_the_run_to_save_and_end(limits: dict[str, float], words: str, tmp_path: Path) -> None:
    pod, hands = a_pod(tmp_path, **limits), Hands()
    watch = PodWatch(pod, hands)
    for hour in range(4):
        # Work goes on, so the pod is not idle.
        write_json(pod.run.heartbeat, {"step": hour})
        watch.look()
        assert pod.run.ended.exists() == (hour == 3)
        hands.time += 3600
    assert words in read_json(pod.run.ended)["reason"]


def test_spending_is_counted_through_restarts_of_the_container(tmp_path: Path) -> None:
    for _ in range(3):
        hands = Hands()
        watch = PodWatch(a_pod(tmp_path), hands)
        hands.time += 1800
        watch.look()
    assert read_record(a_pod(tmp_path)) == {"run": "small", "seconds": 5400.0, "dollars": 3.0}


def test_a_record_that_is_broken_starts_anew(tmp_path: Path) -> None:
    pod = a_pod(tmp_path)
    pod.record.parent.mkdir()
    pod.record.write_text("{")
    assert read_record(pod) == {}


def test_idleness_asks_for_an_end_and_work_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pod, hands = a_pod(tmp_path, idle_minutes=30), Hands()
    watch = PodWatch(pod, hands)
    shard = tmp_path / "datasets/train/small/train_00000.jsonl.zst"
    shard.parent.mkdir(parents=True)
    with caplog.at_level(logging.INFO, "boot"):
        for number in range(5):
            shard.write_bytes(b"x" * number)
            (shard.parent / f"{number}").touch()
            hands.time += 29 * 60
            watch.look()
    assert not pod.run.ended.exists()
    assert caplog.text.count(HEARTBEAT) == 1
    hands.time += 30 * 60
    watch.look()
    assert read_json(pod.run.ended)["reason"] == "nothing was written for 30 minutes (idleMinutes)"


def test_a_boot_that_does_not_obey_loses_its_pod(own: FakePod, fake: FakeRunPod, tmp_path: Path) -> None:
    hands = Hands()
    pod = Pod(own.id, orders(max_hours=1), tmp_path, a_pod(tmp_path).run, is_first=True)
    watch = PodWatch(pod, hands)
    hands.time += 3600
    watch.look()
    assert fake.status(own) == "RUNNING"
    hands.time += GRACE_S + 1
    watch.look()
    assert fake.status(own) == "EXITED"


def test_only_what_work_writes_is_a_sign_of_it(tmp_path: Path) -> None:
    run = a_pod(tmp_path).run
    write_json(run.lease, {"time": 1})
    assert signs_of_work(run) == ()
    write_json(run.heartbeat, {"step": 1})
    assert signs_of_work(run) != ()


# --- clusters, orders ------------------------------------------------------------------------------------------------


def test_runpods_names_for_nodes_become_torchruns() -> None:
    cluster = {"NODE_RANK": "1", "NUM_NODES": "2", "PRIMARY_ADDR": "10.65.0.2", "PRIMARY_PORT": "29400"}
    cluster["WORLD_SIZE"] = "16"
    assert torchrun_variables(cluster) == {
        "PET_NODE_RANK": "1",
        "PET_NNODES": "2",
        "PET_MASTER_ADDR": "10.65.0.2",
        "PET_MASTER_PORT": "29400",
    }
    assert torchrun_variables({"NUM_NODES": "1", "NODE_RANK": "0"}) == {}


def test_only_the_first_node_ends_a_cluster(own: FakePod, fake: FakeRunPod, tmp_path: Path) -> None:
    second = Pod(own.id, orders(cluster="pair"), tmp_path, a_pod(tmp_path).run, is_first=False)
    settle(second, 0, fake.clock.wait)
    assert fake.requests == []
    assert fake.clock.passed == 60 + GRACE_S


def test_orders_survive_the_way_through_a_variable() -> None:
    given = orders(max_hours=3, when_failed="keep", cluster="pair")
    assert read_orders({ORDERS_VARIABLE: given.text()}) == given
    assert read_orders({}) is None
    with pytest.raises(UserError, match="TRAINWRIGHT_POD: when_done"):
        read_orders({ORDERS_VARIABLE: '{"when_done": "explode"}'})


def test_every_fate_is_the_orders_word() -> None:
    given = orders(when_done="keep", when_failed="delete")
    assert [fate_of(given, code) for code in (0, 78, 69, 75, 1)] == ["keep", "delete", "delete", None, None]
