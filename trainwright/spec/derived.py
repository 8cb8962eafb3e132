"""Every number that follows from an experiment, computed here and nowhere else.

Global batch in sequences = micro_batch x grad_accum x ranks. The user gives the global batch and the micro batch;
accumulation follows from the ranks, so that batch, steps and learning rate stay when the number of GPUs changes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trainwright.spec.experiment import Experiment
from trainwright.spec.settings import Problem


@dataclass(frozen=True, slots=True)
class Derived:
    """Numbers derived from one experiment; construct only for an experiment without problems."""

    experiment: Experiment

    @property
    def ranks(self) -> int:
        """Return the data-parallel ranks: nodes x ranks_per_node."""
        return self.experiment.resources.nodes * self.experiment.resources.ranks_per_node

    @property
    def global_batch_sequences(self) -> int:
        """Return the sequences of one optimizer step, over all ranks."""
        train = self.experiment.train
        if train.global_batch_sequences is not None:
            return train.global_batch_sequences
        assert train.tokens_per_step is not None
        return train.tokens_per_step // train.seq_len_tokens

    @property
    def tokens_per_step(self) -> int:
        """Return the tokens of one optimizer step, over all ranks."""
        return self.global_batch_sequences * self.experiment.train.seq_len_tokens

    @property
    def grad_accum(self) -> int:
        """Return the forward passes of one rank in one optimizer step."""
        return self.global_batch_sequences // (self.experiment.train.micro_batch * self.ranks)

    @property
    def vocab_size(self) -> int:
        """Return the rows of the embedding: the tokenizer's vocabulary, padded."""
        return self.experiment.model.padded_vocab_size(self.experiment.tokenizer.max_vocab_size)

    @property
    def num_parameters(self) -> int:
        """Return all trainable parameters."""
        return self.experiment.model.num_parameters(self.experiment.tokenizer.max_vocab_size)

    @property
    def flops_per_token(self) -> int:
        """Return the training FLOPs of one token, attention counted causally."""
        experiment = self.experiment
        vocab_size = experiment.tokenizer.max_vocab_size
        return experiment.model.flops_per_token(vocab_size, experiment.train.seq_len_tokens)

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole run, rounded up to spend what was asked for."""
        train = self.experiment.train
        if train.steps is not None:
            return train.steps
        if train.tokens is not None:
            tokens: float = train.tokens
        elif train.tokens_per_parameter is not None:
            tokens = train.tokens_per_parameter * self.num_parameters
        else:
            assert train.flops is not None
            tokens = train.flops / self.flops_per_token
        return max(1, math.ceil(tokens / self.tokens_per_step))

    @property
    def warmup_steps(self) -> int:
        """Return the steps over which the learning rate rises."""
        schedule = self.experiment.schedule
        if schedule.warmup_steps is not None:
            return schedule.warmup_steps
        return round(schedule.warmup_fraction * self.steps)

    @property
    def expected_first_loss(self) -> float:
        """Return the mean loss that random weights imply: ln(vocabulary) + half the variance of the logits.

        For logits z independent of the target with variance v: E[logsumexp(z) - z_target] = ln V + v/2, V large.
        """
        return math.log(self.vocab_size) + self.experiment.model.initial_logit_variance / 2

    def facts(self) -> dict[str, int | float]:
        """Return every derived number by name, for `show` and for the run's first lines."""
        names = (
            "ranks global_batch_sequences tokens_per_step grad_accum steps warmup_steps vocab_size num_parameters "
            "flops_per_token expected_first_loss"
        )
        facts: dict[str, int | float] = {name: getattr(self, name) for name in names.split()}
        facts["total_tokens"] = self.steps * self.tokens_per_step
        facts["total_flops"] = float(self.steps * self.tokens_per_step * self.flops_per_token)
        return facts


def cross_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield what is wrong between sections; the sections themselves are already sound."""
    derived, train = Derived(experiment), experiment.train
    batch, pass_size = derived.global_batch_sequences, train.micro_batch * derived.ranks
    if batch % pass_size:
        in_tokens = train.tokens_per_step is not None
        unit = train.seq_len_tokens if in_tokens else 1
        below, above = batch // pass_size * pass_size, -(-batch // pass_size) * pass_size
        ways = " or ".join(str(way * unit) for way in (below, above) if way)
        micro = _largest_divisor(batch, derived.ranks, train.micro_batch)
        other = f", or train.micro_batch={micro}" if micro else ""
        sequences = f"{batch} sequences are" if in_tokens else "it is"
        hint = (
            f"{sequences} not a multiple of micro_batch {train.micro_batch} x {derived.ranks} ranks = {pass_size}; "
            f"try {ways}{other}"
        )
        path = "train.tokens_per_step" if in_tokens else "train.global_batch_sequences"
        yield Problem(path, batch * unit, hint)
        return
    warmup = experiment.schedule.warmup_steps
    if warmup is not None and warmup > derived.steps:
        hint = f"the whole run has {derived.steps} steps; give fewer"
        yield Problem("schedule.warmup_steps", warmup, hint)


def _largest_divisor(batch: int, ranks: int, at_most: int) -> int | None:
    if batch % ranks:
        return None
    share = batch // ranks
    largest = min(at_most, share)
    # Not all the way down: a typing error may have any size.
    return next((size for size in range(largest, max(0, largest - 4096), -1) if share % size == 0), None)
