"""Every number that follows from an experiment, computed here and nowhere else.

Global batch in sequences = micro_batch x grad_accum x ranks. The user gives the global batch and the micro batch;
accumulation follows from the ranks, so that batch, steps and learning rate stay when the number of GPUs changes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trainwright.spec.experiment import Experiment
from trainwright.spec.rates import matrix_weights, muon_rates, peak_rate
from trainwright.spec.scaling import MuonRates, Ruled, depth_batch_tokens
from trainwright.spec.settings import Problem
from trainwright.spec.shape import FLOAT8_LEAST, FLOAT8_TILE


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
        if train.batch_rule is not None:
            return max(1, int(depth_batch_tokens(matrix_weights(self.experiment)).value) // train.seq_len_tokens)
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
        elif train.tokens_per_matrix_weight is not None:
            tokens = train.tokens_per_matrix_weight * matrix_weights(self.experiment)
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
    def peak(self) -> Ruled:
        """Return the peak learning rate with its rule."""
        found = peak_rate(self.experiment, self.global_batch_sequences)
        assert found is not None
        return found

    @property
    def peak_lr(self) -> float:
        """Return the peak learning rate: given, or by the scaling rule of the model's family."""
        return self.peak.value

    @property
    def muon_rates(self) -> MuonRates | None:
        """Return the peak rates of Muon's kinds of parameters; None for other optimizers."""
        return muon_rates(self.experiment, self.global_batch_sequences)

    @property
    def expected_first_loss(self) -> float:
        """Return the mean loss that random weights imply: ln(vocabulary) + half the variance of the logits.

        For logits z independent of the target with variance v: E[logsumexp(z) - z_target] = ln V + v/2, V large.
        """
        return math.log(self.vocab_size) + self.experiment.model.initial_logit_variance / 2

    def facts(self) -> dict[str, int | float]:
        """Return every derived number by name, for `show` and for the run's first lines."""
        names = (
            "ranks global_batch_sequences tokens_per_step grad_accum steps warmup_steps peak_lr vocab_size "
            "num_parameters flops_per_token expected_first_loss"
        )
        facts: dict[str, int | float] = {name: getattr(self, name) for name in names.split()}
        facts["total_tokens"] = self.steps * self.tokens_per_step
        facts["total_flops"] = float(self.steps * self.tokens_per_step * self.flops_per_token)
        return facts

    def dimension_lines(self) -> list[str]:
        """Return the model's dimensions and its counts: matrices alone, as scaling rules count, and the real module's.

        The first four lines are worded as ADana's authors word them.
        """
        model, shape, rows = self.experiment.model, self.experiment.model.shape, self.vocab_size
        tables = (1 if shape.tied else 2) * rows * shape.dim
        by_rule = shape.block_matrices + tables
        outside = f"{self.num_parameters - tables:,} of them outside embedding and output"
        rest = f"{shape.vectors:,} are norms and biases, which the two counts above leave out"
        return [
            f"n_head={model.num_heads}, n_layer={model.num_layers}, n_embd={model.dim}",
            f"mlp_hidden_dim={model.mlp_dim}, qkv_dim={model.head_dim}",
            f"non_emb_params={shape.block_matrices:,} ({shape.block_matrices / 1e6:.1f}M)",
            f"total_params={by_rule:,} ({by_rule / 1e6:.1f}M)",
            f"real module: {self.num_parameters:,} parameters, {outside}; {rest}",
        ]


def cross_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield what is wrong between sections; the sections themselves are already sound."""
    derived, train = Derived(experiment), experiment.train
    if peak_rate(experiment, derived.global_batch_sequences) is None:
        kinds = f"optimizer.kind {experiment.optimizer.kind} on model.kind {experiment.model.kind}"
        yield Problem("optimizer.lr", None, f"no scaling rule knows {kinds}; give a peak learning rate")
    shard_ranks = experiment.resources.shard_ranks
    if shard_ranks is not None and derived.ranks % shard_ranks:
        hint = f"the {derived.ranks} ranks cannot be cut into groups of so many; give a divisor"
        yield Problem("resources.shard_ranks", shard_ranks, hint)
    if train.precision == "fp8":
        yield from _float8_problems(experiment)
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


def _float8_problems(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.model.shape.float8_matrices:
        sides = f"two sides of at least {FLOAT8_LEAST}, both multiples of {FLOAT8_TILE}"
        yield Problem("train.precision", "fp8", f"no matrix of the model's blocks has {sides}; give bf16")
    length = experiment.train.seq_len_tokens
    if length % FLOAT8_TILE:
        hint = f"with train.precision=fp8 it must be a multiple of {FLOAT8_TILE}; try {_up(length, FLOAT8_TILE)}"
        yield Problem("train.seq_len_tokens", length, hint)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _largest_divisor(batch: int, ranks: int, at_most: int) -> int | None:
    if batch % ranks:
        return None
    share = batch // ranks
    largest = min(at_most, share)
    # Not all the way down: a typing error may have any size.
    return next((size for size in range(largest, max(0, largest - 4096), -1) if share % size == 0), None)
