"""A pod is entered only when its server shows the key that boot printed; commands arrive as they were typed."""

from collections.abc import Callable
from pathlib import Path
import shlex
import subprocess

import pytest

from infra.engine import Answer
from infra.launches import Launch
from infra.runpod import cloud, ssh
from infra.runpod.client import Client
from infra.runpod.ssh import fingerprint, forward, ports_of, run_inside
from infra.targets import ENDS
from recorder import Recorder
from runpod_state import A100, KEY, FakePod, FakeRunPod
from trainwright.spec.exits import MissingError, UserError


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a real host key: its public part, and its fingerprint by ssh-keygen."""
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    said = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True).stdout
    return Path(f"{path}.pub").read_text().split()[1], said.split()[1]


@pytest.fixture
def pod(fake: FakeRunPod) -> FakePod:
    found = fake.create({"name": "small", "gpu": {"id": A100, "count": 1}})
    assert isinstance(found, FakePod)
    fake.clock.wait(90)
    return found


def scans(key: str) -> Callable[[str], Answer]:
    found = Answer(0, f"# comment\n[127.0.0.1]:1 ssh-ed25519 {key}\n", "")

    def answer(command: str) -> Answer:
        return found if "ssh-keyscan" in command else Answer(7, "", "")

    return answer


def test_the_fingerprint_is_ssh_keygens(key: tuple[str, str]) -> None:
    assert fingerprint(key[0]) == key[1]


def test_a_command_arrives_as_it_was_typed(
    fake: FakeRunPod, client: Client, pod: FakePod, key: tuple[str, str]
) -> None:
    fake.say(pod, f"sshd: on, port 22, host key {key[1]}")
    engine = Recorder(answers=scans(key[0]))
    code = run_inside(client, engine, cloud.find_pod(client, "small"), ["ls", "it's here", "$HOME"], terminal=True)
    assert code == 7
    words = shlex.split(engine.commands[-1])
    assert words[:2] == ["ssh", "-t"]
    assert words[words.index("-p") + 1 :] == [str(pod.port), "root@127.0.0.1", """ls 'it'"'"'s here' '$HOME'"""]
    assert "StrictHostKeyChecking=yes" in words


def test_the_newest_start_counts(fake: FakeRunPod, client: Client, pod: FakePod, key: tuple[str, str]) -> None:
    fake.say(pod, "sshd: on, port 22, host key SHA256:an-earlier-start")
    before = pod.port
    fake.restart(pod)
    fake.clock.wait(20)
    fake.say(pod, f"sshd: on, port 22, host key {key[1]}")
    engine = Recorder(answers=scans(key[0]))
    assert forward(client, engine, cloud.find_pod(client, "small"), [(16006, 6006)]) == 7
    words = shlex.split(engine.commands[-1])
    assert "127.0.0.1:16006:127.0.0.1:6006" in words
    assert words[words.index("-p") + 1] == str(pod.port) == str(before + 1)


@pytest.mark.parametrize(
    "case",
    [
        ("sshd: on, port 22, host key SHA256:other", "key", UserError, "shows another key"),
        ("sshd: on, port 22, host key SHA256:other", "", MissingError, "no SSH server answers yet"),
        ("sshd: off, PUBLIC_KEY is not set", "key", MissingError, "cannot be entered: sshd: off, PUBLIC_KEY"),
        ("step=1", "key", MissingError, "does not say that an SSH server was started"),
    ],
)
def test_a_server_that_is_not_surely_ours_is_not_entered(
    case: tuple[str, str, type[UserError], str],
    fake: FakeRunPod,
    client: Client,
    pod: FakePod,
    key: tuple[str, str],
) -> None:
    said, scanned, error, words = case
    fake.say(pod, said)
    engine = Recorder(answers=scans(key[0]) if scanned else lambda _: Answer(1, "", ""))
    with pytest.raises(error, match=words):
        run_inside(client, engine, cloud.find_pod(client, "small"), ["ls"], terminal=False)
    assert not [command for command in engine.commands if command.startswith("ssh ")]


def test_a_pod_that_cannot_be_entered_yet_is_a_sentence(fake: FakeRunPod, client: Client, pod: FakePod) -> None:
    fake.act(pod, "restart")
    fake.clock.wait(46)
    with pytest.raises(MissingError, match="RunPod names no SSH port of it; it needs 22/tcp"):
        run_inside(client, Recorder(), cloud.find_pod(client, "small"), [], terminal=True)
    fake.act(pod, "stop")
    with pytest.raises(UserError, match="is EXITED, and only a RUNNING pod"):
        run_inside(client, Recorder(), cloud.find_pod(client, "small"), [], terminal=True)


def test_ports_are_read_as_two_or_one() -> None:
    assert ports_of(["6006:6006", "8888", "1:65535"]) == [(6006, 6006), (8888, 8888), (1, 65535)]
    for wrong in ("x", "1:2:3", "0", "70000", "1:", "-1"):
        with pytest.raises(UserError, match="expected LOCAL:REMOTE"):
            ports_of([wrong])


def test_the_line_of_the_log_is_boots_own() -> None:
    source = (Path(__file__).resolve().parents[2] / "infra/boot/sshd.py").read_text()
    assert "sshd: on, port 22, host key {" in source
    assert ssh.FINGERPRINT.search("07:00 sshd: on, port 22, host key SHA256:abc")


@pytest.mark.parametrize("code", [0, 69])
def test_stop_reaches_a_run_that_only_its_pod_sees(
    code: int, fake: FakeRunPod, pod: FakePod, key: tuple[str, str]
) -> None:
    fake.say(pod, f"sshd: on, port 22, host key {key[1]}")
    scan = scans(key[0])
    environ = {"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": fake.url}
    engine = Recorder(environ, answers=lambda command: scan(command) if "keyscan" in command else Answer(code, "", ""))
    launch = Launch("small", "runpod", pod.id, "/nowhere", 0.0)
    if code == 0:
        assert "saves and ends" in ENDS["runpod"](launch, engine, "enough of it")
    else:
        with pytest.raises(
            MissingError, match=r"could not be told \(exit code 69\); `trainwright runpod delete pod1` ends it"
        ):
            ENDS["runpod"](launch, engine, "enough of it")
    assert shlex.split(engine.commands[-1])[-1] == "trainwright stop small --reason 'enough of it'"
    fake.pods.clear()
    with pytest.raises(UserError, match="is gone already, and its run is on the volume"):
        ENDS["runpod"](launch, engine, "again")
