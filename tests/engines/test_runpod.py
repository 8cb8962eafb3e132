"""The real image in a pod of the fake RunPod: it trains, says that the run is over, and deletes its own pod."""

from pathlib import Path
import sys
import time

import pytest

import machine

# The fake RunPod of the unit tests; pytest adds that folder to the path only when it collects them.
sys.path.append(str(Path(__file__).resolve().parents[1] / "infra"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ["model.dim=48", "model.num_layers=1", "model.num_heads=3", "model.num_kv_heads=3", "tokenizer.vocab_size=512"]
SHORT = ["train.steps=12", "evaluation.every_steps=12", "checkpoint.dump.every_steps=6", "logging.num_samples=1"]
VOLUME = ["targets.runpod.volume=transformer-shared", "targets.runpod.max_hours=10"]
LIMIT_S = 300


def test_the_real_image_trains_and_deletes_its_own_pod(trainer_cpu: str, volume: Path, tmp_path: Path) -> None:
    from infra.job import build_job
    from infra.runpod.client import Client
    from infra.runpod.create import candidates, create, prepared
    from infra.runpod.key import Key
    from infra.runpod.manifest import read_manifest
    from infra.submit import write_rendered
    from infra.targets import runpod
    from pod_host import Host
    from recorder import IMAGE
    from runpod_server import fake_runpod
    from runpod_state import KEY
    from trainwright.spec.load import find_experiment, load_experiment

    def podman(words: list[str], environ: dict[str, str]) -> list[str]:
        # RunPod's own variables and its secrets come through the environment; the network is for its API.
        given = [word for name in environ if name not in ("HOME", "PYTHONPATH") for word in ("--env", name)]
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--no-healthcheck"]
        user = ["--user", f"{environ.get('RUNPOD_POD_USER', '10001')}:0", "--cap-drop", "all"]
        place = ["--network", "host", "--read-only", "--tmpfs", "/tmp", "--volume", f"{volume}:/workspace"]
        return [*machine.PODMAN, "run", "--rm", *user, *limits, *place, *given, trainer_cpu, *words]

    overrides = [*SMALL, *SHORT, *VOLUME, f"image={IMAGE}", "resources.shm_gib=0.01"]
    loaded = load_experiment(find_experiment("demo"), overrides)
    write_rendered(runpod.render(build_job(loaded)), tmp_path)
    with fake_runpod(speed=60) as fake:
        client = Client(Key(KEY, "a test"), fake.url, fake.clock)
        host = Host(fake, tmp_path, podman, root_inside="/workspace")
        try:
            manifest = prepared(client, read_manifest(tmp_path / "pod.yaml"))
            create(client, manifest, iter(candidates(client, manifest)), print)
            pod, limit = fake.only(), time.monotonic() + LIMIT_S
            while fake.pods and time.monotonic() < limit:
                time.sleep(0.2)
        finally:
            host.close()
        said = "\n".join(text for _, _, text in pod.log)
        assert fake.pods == {}, said
        assert host.starts == 1, said
    assert "boot: source=" in said
    assert "pod: heartbeat of run demo" in said
    assert "pod: the run is over: exit 0, so delete this pod" in said
    assert (volume / "runs/demo/report.md").is_file()
    assert list((volume / "pods").glob("pod*.json"))
