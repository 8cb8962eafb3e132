"""What is rendered is RunPod's own create body, and arrives in boot as it was meant."""

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.job import IMAGE_ROOT, build_job
from infra.runpod.body import argument_text, document
from infra.runpod.gpus import ALIASES, gpu_id, nearest
from infra.runpod.manifest import checked, read_manifest
from infra.submit import stale
from infra.targets import runpod
from recorder import a_job
from runpod_server import wrong_with
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.load import find_experiment, load_experiment
from trainwright.spec.runpod import RunpodTarget
from trainwright.spec.targets import Targets

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"


def job(resources: Resources | None = None, more: dict[str, Any] | None = None, **settings: Any) -> Any:
    target = RunpodTarget(**{"volume": "transformer-shared", **settings})
    return a_job(targets=Targets(runpod=target), resources=resources or Resources(), **(more or {}))


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("runpod-pod", job(gpus=("H100", "H200"), max_hours=10)),
        ("runpod-cluster", job(Resources(nodes=2, ranks_per_node=8), gpus=("H100",), carry="image")),
    ],
)
def test_the_whole_text(name: str, job: Any, golden: Callable[[Path, str], None]) -> None:
    (file,) = runpod.render(job)
    golden(GOLDEN / f"{name}.yaml", file.text)
    body = checked(yaml.safe_load(file.text), name).body
    schema = "CreateClusterRequest" if "cluster" in name else "CreatePodRequest"
    assert wrong_with(body, schema) == []


def test_the_committed_manifest_is_what_its_experiment_renders() -> None:
    loaded = load_experiment(ROOT / "experiments/runpod-1b.yaml", environ={})
    assert stale(runpod.render(build_job(loaded)), ROOT / "infra") == []
    body = read_manifest(ROOT / "infra/pod.yaml").body
    assert wrong_with(body, "CreatePodRequest") == []
    assert (body["gpu"]["id"], body["mounts"]["network"][0]["volumeId"]) == (ALIASES["A100-80GB"], "transformer-shared")


@pytest.mark.parametrize(("name", "millions"), [("runpod-1b", 1072), ("runpod-2b", 1970), ("runpod-4b", 3723)])
def test_larger_models_need_only_the_variables_changed(name: str, millions: int) -> None:
    environ = read_manifest(ROOT / "infra/pod.yaml").body["env"]
    changed = {key: value.replace("runpod-1b", name) for key, value in environ.items()}
    carried = changed["RUN_CONFIG"].replace("/opt/trainwright/experiments", str(ROOT / "experiments"))
    experiment = load_experiment(find_experiment(None, {"RUN_CONFIG": carried}), environ=changed).experiment
    assert experiment.name == name
    assert experiment.model.num_parameters(experiment.tokenizer.max_vocab_size) // 10**6 == millions


def test_the_experiment_travels_as_its_author_wrote_it(tmp_path: Path) -> None:
    text = (ROOT / "experiments/demo.yaml").read_text()
    environ = document(job(more={"experiment_text": text}))["env"]
    path = find_experiment(None, environ)
    assert path.read_text() == text
    (tmp_path / "other.yaml").write_text("name: other\n")
    assert find_experiment(str(tmp_path / "other.yaml"), environ) == tmp_path / "other.yaml"


def test_plain_words_stay_plain_and_all_others_arrive_whole() -> None:
    assert argument_text(("train.steps=20", "--continue")) == "boot train.steps=20 --continue"
    words = ("data.path=/workspace/it's here", 'x="a b"')
    assert json.loads(argument_text(words)) == {"cmd": ["boot", *words]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (job(volume=None), "targets.runpod.volume: is not set"),
        (job(Resources(device="cpu")), "resources.device=cpu"),
        (job(Resources(walltime_minutes=60)), "use targets.runpod.max_hours"),
        (job(more={"folders": ("/scratch/me",)}), "/scratch/me: is not on the volume"),
        (job(more={"runs": "/elsewhere"}), "paths.runs=/elsewhere"),
        (job(Resources(nodes=2), {"registry": "mine"}), "clusters at RunPod pull public images only"),
        (job(more={"experiment_text": "#" * 50_000}), "set targets.runpod.carry=image"),
        (job(more={"experiment_text": "name: '{{ RUNPOD_SECRET_x }}'"}), "RunPod would read as a reference"),
        (job(more={"secrets": tuple(f"S{n}" for n in range(60))}), "name fewer secrets"),
        (job(more={"image": None}), "image: this target runs the image"),
    ],
)
def test_what_a_pod_cannot_do_is_refused_before_it_costs(given: Any, words: str) -> None:
    with pytest.raises(UserError) as told:
        runpod.render(given)
    assert words in str(told.value)


def test_folders_on_the_volume_are_fine() -> None:
    assert document(job(more={"folders": (f"{IMAGE_ROOT}/mine",)}))["name"] == "small"


def test_secrets_go_as_references_never_as_values() -> None:
    assert document(job())["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_HF_TOKEN }}"


@pytest.mark.parametrize("name", ["a100-80gb", "A100 80GB", "NVIDIA A100-PCIE-80GB", "NVIDIA A100 80GB PCIe"])
def test_one_gpu_has_many_names(name: str) -> None:
    assert gpu_id(name) == "NVIDIA A100 80GB PCIe"


def test_a_gpu_that_is_not_listed_passes_and_a_slip_is_answered_with_a_guess() -> None:
    assert gpu_id("NVIDIA X900") == "NVIDIA X900"
    assert nearest("NVIDIA H10 PCIe", ["NVIDIA H100 PCIe"]) == "did you mean NVIDIA H100 PCIe?"
    assert "get gpus" in nearest("?", [])
