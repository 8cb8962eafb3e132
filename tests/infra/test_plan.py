"""`plan` shows each derived number with its formula; `launch` refuses what does not fit, unless forced."""

import json
from pathlib import Path

import pytest

from infra.cli import main
from infra.plan import refuse_what_does_not_fit, ways_to_fit
from sources import ROOT
from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.gpus import find_gpu
from trainwright.spec.load import load_experiment
from trainwright.spec.memory import GIB, memory_plan

LLAMA_7B = str(ROOT / "experiments/llama-7b.yaml")


def experiment(*overrides: str) -> Experiment:
    return load_experiment(Path(LLAMA_7B), overrides, {}).experiment


def test_plan_tells_numbers_formulas_memory_hours_and_dollars(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", LLAMA_7B, "--gpu", "H100", "--dollars", "2", "train.micro_batch=4"]) == 0
    said = capsys.readouterr().out
    assert "20.0 x num_parameters / tokens_per_step, up" in said
    assert "H100, 79 GiB: does NOT fit" in said
    assert "it would with train.micro_batch=" in said
    assert "hours x ranks x 2" in said


def test_plan_without_a_gpu_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", LLAMA_7B]) == 0
    assert "Say for which GPU (--gpu or resources.gpu; known: B200, H200" in capsys.readouterr().out
    with pytest.raises(UserError, match="--gpu abacus: not known; choose one of B200"):
        main(["plan", LLAMA_7B, "--gpu", "abacus"])


def test_plans_json_holds_what_the_page_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", LLAMA_7B, "--target", "runpod", "--json", "--dollars", "1.5"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["gpu"], document["fits"]) == ("A100", False)
    assert document["dollars"] == pytest.approx(document["hours"] * 8 * 1.5)
    assert document["derived"]["checkpoint_bytes"]["value"] // GIB == 84
    assert document["memory"]["total"] > sum(document["memory"][name] for name in ("parameters", "optimizer"))


def test_a_warning_of_a_rule_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("model.kind=enoki", "optimizer.kind=adana", "optimizer.kappa=0.79")
    assert main(["plan", LLAMA_7B, *words]) == 0
    assert capsys.readouterr().out.count("warning: no fit was made for enoki with adana") == 1


def test_what_would_fit_really_fits() -> None:
    gpu = find_gpu("H100")
    assert gpu is not None
    ways = list(ways_to_fit(Derived(experiment()), gpu))
    assert len(ways) >= 2
    for way in ways:
        changed = Derived(experiment(*way.split()))
        assert memory_plan(changed).total <= gpu.memory_gib * GIB, way


def test_launch_refuses_what_does_not_fit_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text(Path(LLAMA_7B).read_text(), encoding="utf-8")
    with pytest.raises(UserError, match=r"micro_batch=4: needs [\d.]+ GiB of each GPU, and A100 has 79; try train\."):
        main(["launch", str(path), "--target", "local", "resources.gpu=A100"])


def test_cpus_unknown_gpus_and_what_fits_pass() -> None:
    refuse_what_does_not_fit(experiment(), "local")
    refuse_what_does_not_fit(experiment("resources.gpu=A100", "resources.device=cpu"), "local")
    refuse_what_does_not_fit(experiment("resources.gpu=B200"), "local")
