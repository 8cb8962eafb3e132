"""Every optimizer: state under names that a checkpoint can use, the same on two ranks as on one, exact when resumed."""

import json
from pathlib import Path
import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from families import FAMILIES, overrides
from sources import ROOT
from sharded_cases import FRESH, SAVED, STEPS, build, train
from tiny_run import blank_model, checkpoint_tensors, clean_environment, tiny_experiment
from trainer.checkpoint import named_state
from trainer.initialise import initialise
from trainer.optim import OPTIMIZERS, build_optimizer
from trainer.ranks import Ranks
from trainer.resume import resume_or_start
from trainwright.spec.derived import Derived
from trainwright.spec.paths import RunFolder

STATES = {
    "adamw": {"exp_avg", "exp_avg_sq", "step"},
    "adana": {"mean", "square", "step"},
    "dana-mk4": {"mean", "square", "step"},
    "dana-star": {"mean", "square", "tau", "step"},
    "dana-star-mk4": {"mean", "square", "tau", "step"},
    "muon": {"mean", "square", "step"},
}
LR = "optimizer.lr=3e-3"
# In bf16 the products of Newton and Schulz depend on how they are cut.
MUON = ("optimizer.kind=muon", LR, "optimizer.newton_schulz=fp32")
CASES = {
    **{kind: [f"optimizer.kind={kind}", LR] for kind in STATES},
    "muon": [*MUON],
    "adamw-log-time": ["optimizer.kind=adamw", LR, "optimizer.decay=log_time"],
    "adana-bf16": ["optimizer.kind=adana", LR, "optimizer.moments=bf16"],
    "replicas": [*MUON, "resources.shard_ranks=1"],
    # Every family too, most under Muon, which needs whole matrices of whatever shape: one pair of processes serves all.
    "llama-3": [*overrides("llama-3"), LR],
    **{family: [*overrides(family), *MUON] for family in ("qwen-2", "qwen-3", "runpod", "qwen3", "nanochat")},
    # In so few steps a decay of 4 would take all of a weight, and rounding would decide what comes then.
    "enoki": [*overrides("enoki"), "optimizer.kind=adana", "optimizer.omega=0.5", LR],
    # Rows that two ranks cannot share evenly.
    "odd": [*MUON, "model.hidden_dim=33", "model.vocab_multiple=1", "model.num_kv_heads=1"],
    "reduced-every-pass": [LR, "train.reduce_every_pass=true"],
    "recomputed": [LR, "train.recompute=selective"],
}
FOUR = ("resources.ranks_per_node=4", "resources.shard_ranks=2", "train.micro_batch=1")
PAIRS = {case: [*CASES[case], *FOUR] for case in ("odd", "qwen-2")}
"""Cases that four ranks train too, each pair of them holding one copy of the model."""
LOOSE = {"adana-bf16": 2e-3}
"""A bf16 average that was rounded otherwise is off by a 256th."""


@pytest.mark.parametrize("kind", sorted(STATES))
def test_every_parameter_has_its_state_under_its_name(tmp_path: Path, kind: str) -> None:
    derived = Derived(tiny_experiment(tmp_path, *CASES[kind]))
    model = blank_model(derived)
    initialise(model, 0)
    optimizer = build_optimizer(derived, model)
    names = [name for name, _ in model.named_parameters()]
    assert list(named_state(model, optimizer)) == [f"model/{name}" for name in names]
    tokens = torch.zeros((1, 4), dtype=torch.int64)
    model(tokens, tokens).backward()
    optimizer.step()
    kept: dict[str, set[str]] = {name: set() for name in names}
    for name in set(named_state(model, optimizer)) - {f"model/{name}" for name in names}:
        kept[name.split("/")[1]].add(name.split("/")[2])
    for name, parameter in model.named_parameters():
        by_muon = kind == "muon" and name.startswith("blocks.") and parameter.dim() == 2
        assert kept[name] == ({"momentum", "step"} if by_muon else STATES[kind]), name


def test_the_settings_count_the_states_that_the_optimizers_keep(tmp_path: Path) -> None:
    assert set(STATES) == set(OPTIMIZERS)
    for kind, states in STATES.items():
        settings = tiny_experiment(tmp_path, *CASES[kind]).optimizer
        assert settings.states_of_others == len(states) - 1
        assert settings.states_of_matrices == (1 if kind == "muon" else len(states) - 1)


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of all cases as one rank and as two train them."""
    folder = tmp_path_factory.mktemp("cases")
    return trained(folder / "one", CASES, 1), trained(folder / "two", CASES, 2)


def trained(folder: Path, cases: dict[str, list[str]], ranks: int) -> Path:
    folder.mkdir()
    (folder / "cases.json").write_text(json.dumps(cases))
    words = [str(ROOT / "tests/trainer/sharded_cases.py"), str(folder), str(folder / "cases.json")]
    agent = ["-m", "trainer.agent", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(words if ranks == 1 else [*agent, *words])]
    environ = {**clean_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/trainer'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def tensors(folder: Path, case: str, way: str) -> dict[str, Tensor]:
    run = RunFolder(folder / case)
    (run.path / "checkpoints").unlink(missing_ok=True)
    (run.path / "checkpoints").symlink_to(folder / case / way)
    return checkpoint_tensors(run, 10)


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_learn_what_one_does(one_and_two: tuple[Path, Path], case: str) -> None:
    one, two = (tensors(folder, case, "straight") for folder in one_and_two)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=LOOSE.get(case, 2e-5), msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_optimizer_is_exact(one_and_two: tuple[Path, Path], case: str, ranks: int) -> None:
    straight, resumed = (tensors(one_and_two[ranks - 1], case, way) for way in ("straight", "resumed"))
    assert straight.keys() == resumed.keys()
    assert [name for name, tensor in straight.items() if not torch.equal(resumed[name], tensor)] == []


def test_every_family_and_every_optimizer_is_among_the_cases(tmp_path: Path) -> None:
    chosen = [tiny_experiment(tmp_path, *words) for words in CASES.values()]
    assert {each.optimizer.kind for each in chosen} == set(OPTIMIZERS)
    assert all(any(each.model.shape == family.shape for each in chosen) for family in FAMILIES.values())


@pytest.fixture(scope="module")
def in_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of some cases as two pairs of ranks train them."""
    return trained(tmp_path_factory.mktemp("pairs") / "four", PAIRS, 4)


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIRS)
def test_two_pairs_with_a_copy_each_learn_what_one_rank_does(
    one_and_two: tuple[Path, Path], in_pairs: Path, case: str
) -> None:
    one, four = tensors(one_and_two[0], case, "straight"), tensors(in_pairs, case, "straight")
    assert one.keys() == four.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(four[name], tensor, rtol=0, atol=2e-5, msg=name)
    resumed = tensors(in_pairs, case, "resumed")
    assert [name for name, tensor in four.items() if not torch.equal(resumed[name], tensor)] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", ["odd", "dana-star", "runpod"])
def test_what_two_ranks_saved_one_goes_on_with(
    one_and_two: tuple[Path, Path], one: Ranks, tmp_path: Path, case: str
) -> None:
    derived = Derived(tiny_experiment(tmp_path, *CASES[case]))
    shutil.copytree(one_and_two[1] / case / "resumed" / "step_00000005", tmp_path / "saved" / "step_00000005")
    model, optimizer = build(derived, one)
    resume_or_start(tmp_path / "saved", model, optimizer, FRESH, one, seed=1)
    train(derived, (model, optimizer), one, SAVED, STEPS)
    expected = tensors(one_and_two[1], case, "straight")
    for name, found in named_state(model, optimizer).items():
        torch.testing.assert_close(found.detach(), expected[name], rtol=0, atol=2e-5, msg=name)


@pytest.mark.slow
def test_gradients_are_reduced_once_a_step_unless_each_pass_is_asked_for(one_and_two: tuple[Path, Path]) -> None:
    made = {case: int((one_and_two[1] / case / "reductions").read_text()) for case in CASES}
    # Each of two blocks, and what is outside of them; of two passes only the last.
    assert made["adamw"] == made["muon"] == 3
    assert made["reduced-every-pass"] == 6
    assert int((one_and_two[0] / "adamw" / "reductions").read_text()) == 0
