"""`plan` shows each derived number with its formula; `launch` refuses what does not fit, unless forced."""

from collections.abc import Callable
import json
from pathlib import Path

import pytest

from infra.cli import main
from infra.launches import Launch
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
    assert "4 x (parameters + averages of gradients) = 84.1 GiB" in said
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


@pytest.mark.parametrize("word", ["plan", "show"])
def test_no_rule_and_no_learning_rate_is_one_sentence_and_78(
    said: Callable[..., tuple[int, str, str]], word: str
) -> None:
    code, out, err = said(word, LLAMA_7B, "optimizer.kind=adana", "optimizer.lr=null")
    sentence = "no scaling rule knows optimizer.kind adana on model.kind llama; give a peak learning rate"
    assert (code, out, err.count("\n")) == (78, "", 1)
    assert f"optimizer.lr=null: {sentence}" in err


def test_the_enoki_experiment_shows_the_lines_of_its_guide(said: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = said("show", str(ROOT / "experiments/enoki-8h.yaml"))
    assert code == 0
    assert out.splitlines()[-5:-1] == [
        "n_head=8, n_layer=6, n_embd=512",
        "mlp_hidden_dim=2048, qkv_dim=64",
        "non_emb_params=18,874,368 (18.9M)",
        "total_params=70,385,664 (70.4M)",
    ]
    assert out.splitlines()[-1].startswith("real module: 70,393,088 parameters, 18,881,792 of them outside embedding")


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


def test_a_gpu_without_fp8_is_refused_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train.precision=fp8", "train.micro_batch=1", "resources.gpu=A100")
    with pytest.raises(UserError, match=r"train\.precision=fp8: A100 cannot multiply it .*; give bf16, .* or --force"):
        refuse_what_does_not_fit(experiment(*words), "local")
    assert main(["plan", LLAMA_7B, *words]) == 0
    said = capsys.readouterr().out
    assert "warning: train.precision=fp8: A100 cannot multiply it" in said
    assert "of the 224 matrices of the blocks, by their sides" in said


def test_launch_sends_what_does_not_fit_when_it_is_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def submit(target: str, *_: object) -> Launch:
        sent.append(target)
        return Launch("big", target, "nowhere", str(tmp_path), 0.0)

    monkeypatch.setattr("infra.submit.submit", submit)
    path = tmp_path / "big.yaml"
    path.write_text(Path(LLAMA_7B).read_text(), encoding="utf-8")
    assert main(["launch", str(path), "--target", "local", "--force", "resources.gpu=A100"]) == 0
    assert sent == ["local"]


def test_cpus_unknown_gpus_and_what_fits_pass() -> None:
    refuse_what_does_not_fit(experiment(), "local")
    refuse_what_does_not_fit(experiment("resources.gpu=A100", "resources.device=cpu"), "local")
    refuse_what_does_not_fit(experiment("resources.gpu=B200"), "local")
