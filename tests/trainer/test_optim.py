"""The table of optimizers gives one whose whole state has names that a checkpoint can use."""

from pathlib import Path

import torch

from tiny_run import blank_model, tiny_experiment
from trainer.checkpoint import named_state
from trainer.initialise import initialise
from trainer.optim import build_optimizer
from trainwright.spec.derived import Derived


def test_every_parameter_has_its_state_under_its_name(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    model = blank_model(Derived(experiment))
    initialise(model, 0)
    optimizer = build_optimizer(experiment.optimizer, model)
    names = [name for name, _ in model.named_parameters()]
    assert list(named_state(model, optimizer)) == [f"model/{name}" for name in names]
    tokens = torch.zeros((1, 4), dtype=torch.int64)
    model(tokens, tokens).backward()
    optimizer.step()
    kept = {f"optimizer/{name}/{key}" for name in names for key in ("exp_avg", "exp_avg_sq", "step")}
    assert set(named_state(model, optimizer)) == kept | {f"model/{name}" for name in names}
