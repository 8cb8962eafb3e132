"""What is put on a model, and what is left alone with one rank; sharded runs are held in test_trainer_run.py."""

from pathlib import Path

import pytest
import torch

from tiny_run import blank_model, tiny_experiment
from trainer.parallelize import computing, parallelize, set_gradient_sync
from trainwright.spec.derived import Derived
from trainwright.spec.experiment import Experiment

CPU = torch.device("cpu")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return tiny_experiment(tmp_path, "train.precision=bf16")


def test_one_rank_gets_the_model_as_it_is(experiment: Experiment) -> None:
    model = blank_model(Derived(experiment))
    before = dict(model.named_parameters())
    assert parallelize(model, experiment.train, None) is model
    assert dict(model.named_parameters()) == before
    assert type(model).__name__ == "LlamaModel"
    set_gradient_sync(model, sync=False)


def test_bf16_is_computed_on_one_rank_with_parameters_in_fp32(experiment: Experiment) -> None:
    weight, inputs = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2)
    with computing(experiment.train, CPU, None):
        product = inputs @ weight
    assert product.dtype == torch.bfloat16
    product.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_fp32_is_computed_as_it_is_written(tmp_path: Path) -> None:
    with computing(tiny_experiment(tmp_path).train, CPU, None):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


# torch's own compiler still uses the scripting that torch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_blocks_are_compiled_one_by_one(experiment: Experiment) -> None:
    model = blank_model(Derived(experiment))
    parallelize(model, experiment.train.model_copy(update={"compile": True}), None)
    assert [block._compiled_call_impl is not None for block in model.blocks] == [True, True]
    assert model._compiled_call_impl is None
