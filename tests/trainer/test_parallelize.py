"""What is put on a model, and what is left alone with one rank; sharded runs are held in test_trainer_run.py."""

from pathlib import Path

import pytest
import torch

from tiny_run import blank_model, tiny_experiment
from trainer.initialise import initialise
from trainer.parallelize import parallelize, set_gradient_sync
from trainwright.spec.derived import Derived
from trainwright.spec.experiment import Experiment


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


def outputs(experiment: Experiment) -> tuple[torch.Tensor, torch.nn.Module]:
    """Return the loss of some tokens after one backward pass, and the model."""
    derived = Derived(experiment)
    model = parallelize(blank_model(derived), experiment.train, None)
    initialise(model, 3)
    tokens = torch.arange(2 * 9).view(2, 9) % 7
    loss = model(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    return loss.detach(), model


@pytest.mark.parametrize("family", [(), ("model.kind=enoki", "model.heads=2"), ("model.kind=qwen3", "model.heads=1")])
def test_one_rank_computes_in_bf16_with_weights_and_gradients_in_fp32(tmp_path: Path, family: tuple[str, ...]) -> None:
    wide, model = outputs(tiny_experiment(tmp_path, *family))
    narrow, cast = outputs(tiny_experiment(tmp_path, "train.precision=bf16", *family))
    seen: list[torch.dtype] = []
    cast.blocks[0].register_forward_hook(lambda *each: seen.append(each[-1].dtype))
    assert cast(torch.zeros((1, 4), dtype=torch.int64)).dtype == torch.bfloat16
    assert seen == [torch.bfloat16]
    assert narrow.dtype == torch.float32
    assert narrow != wide
    torch.testing.assert_close(narrow, wide, rtol=1e-2, atol=0)
    for (name, found), expected in zip(cast.named_parameters(), model.parameters(), strict=True):
        assert found.dtype == found.grad.dtype == torch.float32, name
        assert (found.grad - expected.grad).norm() <= 0.05 * expected.grad.norm() + 1e-6, name


@pytest.mark.parametrize("how", ["selective", "full"])
def test_what_is_recomputed_is_the_same_to_the_bit(tmp_path: Path, how: str) -> None:
    kept_loss, kept = outputs(tiny_experiment(tmp_path))
    loss, model = outputs(tiny_experiment(tmp_path, f"train.recompute={how}"))
    assert torch.equal(loss, kept_loss)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in kept.named_parameters()]
    for found, expected in zip(model.parameters(), kept.parameters(), strict=True):
        assert torch.equal(found.grad, expected.grad)


@pytest.mark.parametrize("words", [(), ("train.recompute=selective",), ("train.precision=fp8", "model.dim=128")])
# torch's own compiler still uses the scripting that torch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_the_compiler_takes_all_blocks_for_one_program(tmp_path: Path, words: tuple[str, ...]) -> None:
    derived = Derived(tiny_experiment(tmp_path, "train.precision=bf16", "model.num_layers=3", *words))
    model = parallelize(blank_model(derived), derived.experiment.train, None)
    initialise(model, 3)
    programs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> object:
        programs.append(graph)
        return graph.forward

    for block in model.blocks:
        block.compile(backend=backend)
    model(torch.zeros((1, 16), dtype=torch.int64), torch.zeros((1, 16), dtype=torch.int64))
    assert len(programs) == 1


# torch's own compiler still uses the scripting that torch has deprecated.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_what_is_compiled_and_recomputed_computes_what_the_plain_model_does(tmp_path: Path) -> None:
    plain_loss, plain = outputs(tiny_experiment(tmp_path))
    loss, model = outputs(tiny_experiment(tmp_path, "train.recompute=selective", "train.compile=true"))
    torch.testing.assert_close(loss, plain_loss, rtol=1e-6, atol=0)
    for (name, found), expected in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5, msg=name)


# torch's own compiler still uses the scripting that torch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_blocks_are_compiled_one_by_one(experiment: Experiment) -> None:
    model = blank_model(Derived(experiment))
    parallelize(model, experiment.train.model_copy(update={"compile": True}), None)
    assert [block._compiled_call_impl is not None for block in model.blocks] == [True, True]
    assert model._compiled_call_impl is None
