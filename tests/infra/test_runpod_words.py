"""The verbs, each against the fake RunPod: tables for people, JSON for programs, sentences for mistakes."""

from collections.abc import Callable
import json
from pathlib import Path
import subprocess

import pytest
import yaml

from infra.runpod.client import Client
from infra.runpod.words import VERBS, runpod
from runpod_state import A100, FakePod, FakeRunPod
from test_runpod_create import beats, tree
from trainwright.spec.exits import UserError, guarded
from trainwright.spec.runpod import ENDED, ORDERS_VARIABLE, PodOrders

Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(client: Client, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Return a function that runs a verb and returns its code, output and complaints."""

    def run(*words: str) -> tuple[int, str, str]:
        code = guarded("trainwright", lambda: runpod(words, lambda: client))
        return int(code), *capsys.readouterr()

    return run


@pytest.fixture
def pod(fake: FakeRunPod) -> FakePod:
    """Return a pod of ours that runs."""
    env = {ORDERS_VARIABLE: PodOrders(max_hours=10, dollars_per_hour=1.64).text()}
    found = fake.create({"name": "small", "gpu": {"id": A100, "count": 1}, "env": env})
    assert isinstance(found, FakePod)
    fake.clock.wait(3600)
    return found


def test_a_pod_is_created_from_a_file_and_waited_for(fake: FakeRunPod, ran: Ran, tmp_path: Path) -> None:
    fake.on_create = beats(fake)
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(tree()))
    code, out, err = ran("create", "pod", "-f", str(path), "--wait")
    assert (code, out) == (0, f"{fake.only().id}\n")
    assert f"created with {A100} in US-KS-2, $1.64 an hour" in err
    assert "it deletes itself when its run is complete" in err


def test_a_small_volume_is_warned_of_before_a_pod_is_made(fake: FakeRunPod, ran: Ran, tmp_path: Path) -> None:
    fake.volumes["vol1"]["size"] = 100
    body = tree(carry="image")
    body["env"]["RUN_CONFIG"] = "/opt/trainwright/experiments/runpod-1b.yaml"
    body["env"]["RUN_EXPERIMENT"] = "runpod-1b"
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(body))
    _, _, err = ran("create", "pod", "-f", str(tmp_path / "pod.yaml"))
    assert "warning: transformer-shared has 100 GB, and runpod-1b needs about" in err


def test_a_volume_is_created_with_its_price(fake: FakeRunPod, ran: Ran) -> None:
    words = ("create", "volume", "mine", "--size", "1200", "--data-center", "US-KS-2", "--for", "runpod-2b")
    code, out, err = ran(*words)
    assert (code, out) == (0, "vol2\n")
    assert "$80.00 a month" in err
    assert "runpod-2b needs about" in err
    assert err.splitlines()[0].endswith("fits")
    assert ran(*words)[0] == 78
    assert len(fake.volumes) == 2
    assert "DOES NOT FIT" in ran("create", "volume", "two", "--size", "50", *words[5:])[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "5", "--data-center", "US-KS-2"), "10 to 4096"),
        (("--size", "50", "--data-center", "us-ks-2"), "in capitals: US-KS-2"),
    ],
)
def test_a_volume_that_cannot_be_is_refused(words: tuple[str, ...], said: str, ran: Ran) -> None:
    code, _, err = ran("create", "volume", "mine", *words)
    assert code == 78
    assert said in err


def test_pods_are_listed_with_what_they_cost(pod: FakePod, ran: Ran) -> None:
    head, row = ran("get", "pods")[1].splitlines()
    assert head.split() == ["ID", "NAME", "STATUS", "GPU", "$/H", "SPENT", "UP"]
    assert row.split()[:3] == [pod.id, "small", "RUNNING"]
    assert row.split()[-3:] == ["$1.64", "1.0", "h"]
    (document,) = json.loads(ran("get", "pods", "--json")[1])
    assert (document["dollars_spent"], document["ours"]) == (1.64, True)


def test_one_pod_shows_how_busy_its_gpus_are(pod: FakePod, ran: Ran) -> None:
    out = ran("get", "pod", "small")[1]
    assert "97 % busy, 61 % memory" in out
    assert f"127.0.0.1:{pod.port}" in out


def test_the_catalogue_shows_the_cheapest_first(ran: Ran) -> None:
    rows = ran("get", "gpus")[1].splitlines()[1:]
    assert [row.split("  ")[0] for row in rows][:2] == ["NVIDIA A40", A100]
    assert len(json.loads(ran("get", "gpus", "--json")[1])) == 4
    assert "transformer-shared" in ran("get", "volumes")[1]


def test_logs_print_lines(pod: FakePod, fake: FakeRunPod, ran: Ran) -> None:
    fake.say(pod, "step=1")
    fake.say(pod, "pulling", "system")
    assert ran("logs", "small")[1] == "step=1\nrunpod: pulling\n"


def test_a_pod_is_stopped_started_and_deleted(pod: FakePod, fake: FakeRunPod, ran: Ran) -> None:
    port = pod.port
    assert ran("stop", "pod", pod.id)[0] == 0
    assert fake.status(pod) == "EXITED"
    assert ran("start", pod.id)[:2] == (0, f"{pod.id}: running\n")
    assert pod.port != port
    assert ran("delete", "pod", pod.id)[0] == 0
    assert fake.pods == {}


def test_a_state_that_forbids_an_action_is_a_sentence(pod: FakePod, ran: Ran) -> None:
    code, _, err = ran("start", pod.id)
    assert code == 78
    assert "not possible in its present state (cannot start now)" in err


def test_a_start_without_gpus_is_stopped_again(pod: FakePod, fake: FakeRunPod, ran: Ran) -> None:
    ran("stop", pod.id)
    fake.without_gpus = 1
    code, _, err = ran("start", pod.id)
    assert code == 78
    assert "was started with 0 GPUs, its host has rented the others out; it is stopped again" in err
    assert fake.status(pod) == "EXITED"


def test_a_start_on_a_host_that_is_stuck_is_stopped_again(pod: FakePod, ran: Ran) -> None:
    ran("stop", pod.id)
    pod.stuck = True
    code, _, err = ran("start", pod.id)
    assert code == 78
    assert "did not come up in five minutes; it is stopped again; `trainwright runpod delete" in err
    assert pod.end == "EXITED"


def test_a_volume_whose_answer_was_lost_is_found_by_name(fake: FakeRunPod, ran: Ran) -> None:
    fake.faults.append(("POST", "/v2/network-volumes", 502, {}, {}))
    made = {"id": "vol7", "name": "mine", "size": 50, "dataCenter": "US-KS-2"}
    fake.clock.after(3, lambda: fake.volumes.update(vol7=made))
    words = ("create", "volume", "mine", "--size", "50", "--data-center", "US-KS-2")
    assert ran(*words)[:2] == (0, "vol7\n")


def test_what_a_stopped_pod_has_cost_is_not_made_up(pod: FakePod, ran: Ran) -> None:
    ran("stop", pod.id)
    assert ran("get", "pods")[1].splitlines()[1].split()[-2:] == ["-", "-"]
    assert json.loads(ran("get", "pods", "--json")[1])[0]["dollars_spent"] is None


def test_reap_finds_what_outlived_its_run_and_deletes_only_that(pod: FakePod, fake: FakeRunPod, ran: Ran) -> None:
    others = fake.create({"name": "not-ours", "gpu": {"id": A100, "count": 1}})
    assert isinstance(others, FakePod)
    assert ran("reap")[1] == "nothing to reap\n"
    fake.say(pod, f"{ENDED}: exit 0, so delete this pod")
    out = ran("reap")[1]
    assert f"{pod.id}" in out
    assert "$1.64" in out
    assert "its run is over" in out
    assert ran("reap", "--delete")[0] == 0
    assert list(fake.pods) == [others.id]


def test_a_pod_that_started_again_after_an_end_is_not_reaped(pod: FakePod, fake: FakeRunPod, ran: Ran) -> None:
    fake.say(pod, f"{ENDED}: exit 78, so stop this pod")
    fake.say(pod, "boot: source=/tmp/x sha256=1 overrides=0")
    assert ran("reap")[1] == "nothing to reap\n"


@pytest.mark.parametrize(("hours", "words"), [(12, "was to run 10"), (0, "is EXITED")])
def test_reap_knows_limits_and_stopped_pods(hours: int, words: str, pod: FakePod, fake: FakeRunPod, ran: Ran) -> None:
    fake.clock.wait(3600 * hours)
    if not hours:
        fake.act(pod, "stop")
    assert words in ran("reap", "--json")[1]


def test_a_cluster_is_deleted_as_a_whole(fake: FakeRunPod, ran: Ran) -> None:
    compute = {"gpuTypeId": A100, "gpuCountPerPod": 2, "podCount": 2}
    fake.create_cluster({"name": "pair", "type": "TRAINING", "image": "i", "compute": compute})
    node = next(iter(fake.pods))
    fake.clock.wait(60)
    code, _, err = ran("delete", node)
    assert code == 78
    assert "member of a cluster" in err
    assert ran("delete", "cluster", "pair")[0] == 0
    assert (fake.pods, fake.clusters) == ({}, {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gett",), "no such verb"),
        (("get", "pod"), "takes one id or name"),
        (("delete", "a", "b"), "takes one pod"),
        (("port-forward", "small", "x"), "expected LOCAL:REMOTE"),
        (("create", "pod", "-f", "nothing.yaml"), "nothing.yaml: cannot be read"),
    ],
)
def test_wrong_words_are_a_sentence(words: tuple[str, ...], said: str, ran: Ran) -> None:
    code, _, err = ran(*words)
    assert code == 78
    assert said in err


def test_the_page_names_every_verb(ran: Ran) -> None:
    page = ran("--help")[1]
    assert all(verb in page for verb in VERBS)
    with pytest.raises(UserError):
        runpod(["nothing"])


# --- the bare word ---------------------------------------------------------------------------------------------------


def shell(words: list[str], path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env={"PATH": path}, capture_output=True, text=True, check=False)


ASKED = {
    "create pod -f x": "trainwright runpod create pod -f x",
    "get pods": "trainwright runpod get pods",
    "exec -it a -- ls": "trainwright runpod exec -it a -- ls",
    "logs a": "trainwright runpod logs a",
    "exec python --pod_id a f.py": "theirs exec python --pod_id a f.py",
    "config": "theirs config",
    "pod list": "theirs pod list",
    "": "theirs",
}


@pytest.mark.parametrize("way", ["function", "shim"])
def test_the_bare_word_is_ours_for_our_verbs_and_theirs_for_all_others(way: str, ran: Ran, tmp_path: Path) -> None:
    bin_ = tmp_path / "their bin"
    bin_.mkdir()
    for name, says in (("trainwright", "trainwright"), ("runpod", "theirs")):
        (bin_ / name).write_text(f'#!/bin/sh\necho {says} "$@"\n')
        (bin_ / name).chmod(0o755)
    if way == "shim":
        ran("shell-init", "--shim", str(tmp_path / "ours"))
        start, path = "", f"{tmp_path}/ours:{bin_}:/usr/bin:/bin"
    else:
        start, path = ran("shell-init")[1], f"{bin_}:/usr/bin:/bin"
    for words, expected in ASKED.items():
        done = shell(["sh", "-c", f"{start}runpod {words}"], path)
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


def test_the_shim_says_when_there_is_no_other(ran: Ran, tmp_path: Path) -> None:
    ran("shell-init", "--shim", str(tmp_path))
    path = f"{tmp_path}:/usr/bin:/bin"
    done = shell([str(tmp_path / "runpod"), "config"], path)
    assert done.returncode == 69
    assert "not installed" in done.stderr
