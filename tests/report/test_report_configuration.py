from made_run import EXPERIMENT

from report.configuration import changed, experiment_source
from trainwright.spec.load import parse, validate
from trainwright.spec.resolved import experiment_hash


def test_the_experiment_shown_is_the_experiment_of_the_run() -> None:
    experiment = validate(parse(EXPERIMENT, "x")[0], "x")
    again = validate(parse(experiment_source(experiment), "y")[0], "y")
    assert experiment_hash(again) == experiment_hash(experiment)


def test_exactly_the_settings_that_differ_from_their_defaults_are_listed() -> None:
    text = "name: a\ntrain: {steps: 5, global_batch_sequences: 8, micro_batch: 8}\n"
    text += "optimizer: {kind: adamw, lr: 3e-4, beta1: 0.8}\n"
    found = {path: value for path, value, _ in changed(validate(parse(text, "x")[0], "x"))}
    assert found == {"name": "a", "train.steps": 5, "train.global_batch_sequences": 8, "optimizer.beta1": 0.8}


def test_another_kind_is_listed_and_compared_with_its_own_defaults() -> None:
    text = "name: a\ntrain: {steps: 5, global_batch_sequences: 8}\ntokenizer: {kind: bpe, vocab_size: 512}\n"
    found = {path: default for path, _, default in changed(validate(parse(text, "x")[0], "x"))}
    assert found["tokenizer.kind"] == "bytes"
    assert found["tokenizer.vocab_size"] == 32_768
    assert "tokenizer.pattern" not in found
