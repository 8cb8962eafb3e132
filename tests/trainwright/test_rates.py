"""The learning rate is the experiment's own, else its family's rule, else an error with a way out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment
from trainwright.spec.rates import block_weights, matrix_weights

Write = Callable[..., Path]
ENOKI = ("model.kind=enoki", "model.heads=8", "train.micro_batch=32", "train.global_batch_sequences=32")
NANOCHAT = (
    *("model.kind=nanochat", "model.depth=12", "train.micro_batch=1", "train.global_batch_sequences=null"),
    *("train.batch_rule=depth", "train.seq_len_tokens=2048", "optimizer.kind=muon", "optimizer.scale=spectral"),
)


def derived(path: Path, *overrides: str) -> Derived:
    return Derived(load_experiment(path, overrides, {}).experiment)


def test_a_given_rate_is_taken_as_it_is(experiment_file: Write) -> None:
    found = derived(experiment_file(), *ENOKI, "optimizer.kind=adana", "optimizer.lr=0.125").peak
    assert (found.value, found.formula, found.warning) == (0.125, "given: optimizer.lr", None)


def test_a_rate_that_is_left_out_is_that_of_the_familys_fit(experiment_file: Write) -> None:
    found = derived(experiment_file(), *ENOKI, "optimizer.kind=adana")
    assert block_weights(found.experiment) == 12 * 512**2 * 6
    assert found.peak_lr == pytest.approx(7.1444e-4, rel=1e-4)
    assert found.facts()["peak_lr"] == found.peak_lr
    adamw = derived(experiment_file(), *ENOKI, "optimizer.lr=null", "optimizer.decay=log_time")
    assert adamw.peak_lr == pytest.approx(2.48e-3, rel=5e-3)


def test_a_fit_is_of_a_batch_in_tokens_however_it_is_cut_into_sequences(experiment_file: Write) -> None:
    adana = (*ENOKI, "optimizer.kind=adana")
    as_fitted, half = (derived(experiment_file(), *adana, f"train.seq_len_tokens={size}").peak for size in (2048, 1024))
    assert as_fitted.warning is None
    assert half.warning is not None
    assert "at a batch of 16 x 2,048 tokens; the nearest is taken, of a batch of 32, kappa 0.85" in half.warning
    words = ("train.seq_len_tokens=1024", "train.global_batch_sequences=64")
    assert derived(experiment_file(), *adana, *words).peak == as_fitted


def test_no_rule_and_no_rate_is_an_error(experiment_file: Write) -> None:
    sentence = (
        r"optimizer.lr=null: no scaling rule knows optimizer.kind adana on model.kind llama; give a peak learning rate"
    )
    with pytest.raises(UserError, match=sentence):
        derived(experiment_file(), "optimizer.kind=adana")
    with pytest.raises(UserError, match=r"knows optimizer\.kind adamw on model\.kind llama"):
        derived(experiment_file(), "optimizer.lr=null")


def test_nanochats_dial_gives_batch_rates_and_horizon(experiment_file: Write) -> None:
    found = derived(experiment_file(), *NANOCHAT, "train.steps=null", "train.tokens_per_matrix_weight=12")
    assert found.tokens_per_step == 2**19 or matrix_weights(found.experiment) < 110_100_480
    by_batch = (found.tokens_per_step / 2**19) ** 0.5
    rates = found.muon_rates
    assert rates is not None
    assert (rates.matrices, rates.embedding) == pytest.approx((0.02 * by_batch, 0.3 * by_batch))
    assert found.peak_lr == rates.matrices
    assert found.steps == -(-12 * matrix_weights(found.experiment) // found.tokens_per_step)


def test_muons_own_rates_stand_before_the_rule(experiment_file: Write) -> None:
    rates = derived(experiment_file(), *NANOCHAT, "optimizer.embedding_lr=0.7").muon_rates
    assert rates is not None
    assert rates.embedding == 0.7
    plain = derived(experiment_file(), "optimizer.kind=muon", "optimizer.lr=0.01", "optimizer.output_lr=0.5").muon_rates
    assert plain is not None
    assert (plain.matrices, plain.embedding, plain.output, plain.rest) == (0.01, 0.01, 0.5, 0.01)
    assert derived(experiment_file()).muon_rates is None


def test_groups_of_ranks_must_divide_them(experiment_file: Write) -> None:
    assert derived(experiment_file(), "resources.ranks_per_node=2", "resources.shard_ranks=1").ranks == 2
    with pytest.raises(UserError, match=r"resources\.shard_ranks=3: the 4 ranks cannot be cut"):
        derived(experiment_file(), "resources.ranks_per_node=4", "resources.shard_ranks=3")


def test_groups_of_parameters_are_read_and_their_mistakes_named(experiment_file: Write) -> None:
    path = experiment_file('optimizer:\n  groups:\n    - {match: "embedding.*", lr_scale: 0.5}\n    - {match: norm}\n')
    groups = load_experiment(path, (), {}).experiment.optimizer.groups
    assert [(group.match, group.lr_scale, group.decay) for group in groups] == [
        ("embedding.*", 0.5, True),
        ("norm", 1.0, True),
    ]
    wrong = experiment_file('optimizer:\n  groups:\n    - {match: "a", rate: 3}\n')
    with pytest.raises(UserError, match=r"optimizer\.groups\.0\.rate: unknown key; known here: decay, lr_scale, match"):
        load_experiment(wrong, (), {})
