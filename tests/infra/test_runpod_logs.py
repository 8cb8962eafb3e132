"""A followed log has every line once, whatever happens to its connection."""

import pytest

from infra.runpod.client import Client, RunpodError
from infra.runpod.logs import follow, lines
from runpod_state import A100, FakePod, FakeRunPod


def a_pod(fake: FakeRunPod) -> FakePod:
    pod = fake.create({"name": "small", "gpu": {"id": A100, "count": 1}})
    assert isinstance(pod, FakePod)
    fake.clock.wait(60)
    return pod


def test_the_newest_lines_come_in_order(fake: FakeRunPod, client: Client) -> None:
    pod = a_pod(fake)
    for number in range(9):
        fake.say(pod, f"line {number}\n")
    assert [line.text for line in lines(client, pod.id, tail=3)] == ["line 6", "line 7", "line 8"]


@pytest.mark.parametrize("cut", range(7))
def test_a_dropped_connection_loses_and_repeats_no_line(cut: int, fake: FakeRunPod, client: Client) -> None:
    pod = a_pod(fake)
    # Three at one moment: a resumed log starts at a moment, not at a line.
    said = ["a", "b", "b", "c"]
    for text in said:
        fake.say(pod, text)
    fake.drop_logs_after = cut
    for seconds, text in ((7, "d"), (20, "e"), (20, "e"), (33, "f")):
        fake.clock.after(seconds, lambda text=text: fake.say(pod, text))
    fake.clock.after(40, lambda: fake.restart(pod))
    fake.clock.after(45, lambda: fake.say(pod, "after the restart"))
    fake.clock.after(60, fake.pods.clear)
    found = [line.text for line in follow(client, pod.id) if line.source == "container"]
    assert found == [*said, "d", "e", "e", "f", "after the restart"]
    assert fake.refused == 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_bad_moment_of_the_api_does_not_end_a_log_that_is_followed(
    status: int, fake: FakeRunPod, client: Client
) -> None:
    pod = a_pod(fake)
    fake.say(pod, "a")
    fault = ("GET", f"/v2/pods/{pod.id}/logs", status, {"Retry-After": "30"}, {})
    fake.clock.after(3, lambda: fake.faults.append(fault))
    fake.clock.after(50, lambda: fake.say(pod, "b"))
    fake.clock.after(70, fake.pods.clear)
    assert [line.text for line in follow(client, pod.id)] == ["a", "b"]
    assert not fake.faults


def test_the_log_of_no_pod_is_a_sentence(client: Client) -> None:
    with pytest.raises(RunpodError, match="RunPod knows nothing of this name"):
        list(follow(client, "nothing"))


def test_a_stopped_pod_ends_its_log(fake: FakeRunPod, client: Client) -> None:
    pod = a_pod(fake)
    fake.say(pod, "last words")
    fake.act(pod, "stop")
    assert [line.text for line in follow(client, pod.id)] == ["last words"]
