"""Every optimizer: state under names that a checkpoint can use, the same on two ranks as on one, exact when resumed."""

import json
from pathlib import Path
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from families import FAMILIES, overrides
from sources import ROOT
from tiny_run import blank_model, checkpoint_tensors, clean_environment, tiny_experiment
from trainer.checkpoint import named_state
from trainer.initialise import initialise
from trainer.optim import OPTIMIZERS, build_optimizer
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
CASES = {
    **{kind: [f"optimizer.kind={kind}", LR] for kind in STATES},
    # In bf16 the products of Newton and Schulz depend on how they are cut.
    "muon": ["optimizer.kind=muon", LR, "optimizer.newton_schulz=fp32"],
    "adamw-log-time": ["optimizer.kind=adamw", LR, "optimizer.decay=log_time"],
    "adana-bf16": ["optimizer.kind=adana", LR, "optimizer.moments=bf16"],
    "replicas": ["optimizer.kind=muon", LR, "optimizer.newton_schulz=fp32", "resources.shard_ranks=1"],
    # Every family too: one pair of processes serves all cases.
    **{f"family-{family}": [*overrides(family), LR] for family in FAMILIES},
    "nanochat-muon": [*overrides("nanochat"), "optimizer.kind=muon", "optimizer.newton_schulz=fp32", LR],
}
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
