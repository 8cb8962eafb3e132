"""From a manifest to a trained model and no pod: the fake RunPod, and in its pods the real boot."""

from pathlib import Path
import threading
import time

import pytest
import yaml

from infra.job import build_job
from infra.runpod import cloud
from infra.runpod.client import Client
from infra.runpod.key import Key
from infra.runpod.logs import follow
from infra.runpod.manifest import read_manifest
from infra.runpod.reap import outlived
from infra.runpod.wait import create_and_wait
from infra.submit import write_rendered
from infra.targets import runpod
from pod_host import Host
from recorder import IMAGE
from runpod_server import fake_runpod
from runpod_state import A100, H100, KEY, SXM
from tiny_boot import TINY, attempts, checkpoints, last_step, stages, write_corpus
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import RunFolder

pytestmark = pytest.mark.slow

EXPERIMENT = f"""\
{TINY.replace("device: cpu", "device: auto")}
image: {IMAGE}
targets:
  runpod: {{gpus: [A100-80GB, A100-SXM, H100-PCIE], volume: transformer-shared, max_hours: 100, max_dollars: 500}}
"""
OVERRIDES = ("data.path=the corpus", "resources.wait_minutes=1")


def test_a_pod_is_made_followed_interrupted_and_ends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "volume"
    write_corpus(volume / "the corpus", 40)
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    loaded = load_experiment(tmp_path / "tiny.yaml", OVERRIDES)
    write_rendered(runpod.render(build_job(loaded)), tmp_path)
    manifest = read_manifest(tmp_path / "pod.yaml")
    run = RunFolder(volume / "runs" / "tiny")
    # A minute of RunPod's is a second here, for its rate limit too.
    with fake_runpod(speed=60) as fake:
        fake.room |= {A100: 0, SXM: 0}
        client = Client(Key(KEY, "a test"), fake.url, fake.clock)
        monkeypatch.setattr("infra.runpod.wait.START_S", 3600.0)
        host, said = Host(fake, volume), list[str]()
        interrupting = threading.Thread(target=interrupt_at, args=(host, run, 20))
        try:
            made = create_and_wait(client, manifest, said.append)
            assert fake.only().body["gpu"]["id"] == H100
            interrupting.start()
            fake.drop_logs_after = 5
            lines = [line.text for line in follow(client, made.id, tail=5000)]
        finally:
            interrupting.join()
            host.close()
        assert [line for line in said if line.endswith("boot gives signs of life")]
        assert fake.pods == {}
        assert host.starts == 2
        assert fake.refused == 0
        assert cloud.pods(client) == []
        assert outlived(client) == []
    ends = [yaml.safe_load((attempt / "end.json").read_text())["code"] for attempt in attempts(run)]
    assert ends == [75, 0]
    assert last_step(run) == 100
    assert checkpoints(run)[-1] == 100
    assert "train" in stages(run)
    container = [line for line in lines if "start container" not in line]
    printed = [line.split(" ", 1)[1] for line in container if " step=" in line]
    assert printed == list(dict.fromkeys(printed)), "a line came twice"
    assert any("pod: the run is over: exit 0, so delete this pod" in line for line in container)


def interrupt_at(host: Host, run: RunFolder, step: int) -> None:
    limit = time.monotonic() + 90
    while time.monotonic() < limit and last_step(run) < step:
        time.sleep(0.01)
    host.interrupt()
