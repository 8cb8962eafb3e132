"""Settings of the training itself: batch, horizon, optimizer, schedule, evaluation, checkpoints, logging."""

from collections.abc import Iterator
from typing import Literal

from trainwright.spec.settings import Count, CountOrZero, NonNegative, OptionalCount, OptionalPositive, Positive
from trainwright.spec.settings import OptionalPort, OptionalText, Problem, Settings, Share


class AdamW(Settings):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101); weight decay on matrices only."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive = 3e-4
    """Peak learning rate."""
    beta1: Share = 0.9
    """Decay of the mean of gradients."""
    beta2: Share = 0.95
    """Decay of the mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.1
    """Decoupled decay, scaled by the learning rate; norms and biases are not decayed."""

    def problems(self) -> Iterator[Problem]:
        """Check that the averages forget."""
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if beta == 1:
                yield Problem(name, beta, "an average that forgets nothing never moves; it must be below 1")


Optimizer = AdamW
"""The union of optimizer settings, told apart by `kind`; a second optimizer makes it a real one."""


class Cosine(Settings):
    """Linear warm-up from zero to the peak, then half a cosine down to a share of it at the last step."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: OptionalCount = None
    """Steps to the peak; null takes `warmup_fraction` of the run."""
    warmup_fraction: Share = 0.02
    """Share of the run that warms up when `warmup_steps` is null."""
    min_lr_ratio: Share = 0.1
    """Learning rate at the last step as a share of the peak."""


Schedule = Cosine
"""The union of schedules, told apart by `kind`; a second schedule makes it a real one."""

BATCH_WAYS = ("global_batch_sequences", "tokens_per_step")
HORIZON_WAYS = ("steps", "tokens", "tokens_per_parameter", "flops")


class Nonfinite(Settings):
    """What follows a loss or gradient that is no finite number. The update itself is refused on all ranks, always."""

    skips_in_a_row: CountOrZero = 2
    """Global batches passed over before the weights themselves are suspected."""
    rollbacks: CountOrZero = 2
    """Returns to the last checkpoint, from where the bad batches are passed over; then the run stops."""


class Train(Settings):
    """Batch and horizon. Global batch in sequences = micro_batch x grad_accum x data-parallel ranks."""

    seq_len_tokens: Count = 1024
    """Tokens a sample feeds to the model; a sample covers one more, the last target."""
    micro_batch: Count = 8
    """Sequences in one forward pass of one rank."""
    global_batch_sequences: OptionalCount = None
    """Sequences in one optimizer step over all ranks; or give tokens_per_step."""
    tokens_per_step: OptionalCount = None
    """Tokens in one optimizer step over all ranks; or give global_batch_sequences."""
    steps: OptionalCount = None
    """Optimizer steps; or give tokens, tokens_per_parameter or flops."""
    tokens: OptionalCount = None
    """Tokens to train on."""
    tokens_per_parameter: OptionalPositive = None
    """Tokens to train on, as a multiple of the parameters (Chinchilla, arXiv 2203.15556, found about 20)."""
    flops: OptionalPositive = None
    """Training FLOPs to spend, by the model's own count."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Compute type; parameters and reductions are kept in fp32."""
    grad_clip: OptionalPositive = 1.0
    """Largest norm of the whole gradient, over all ranks; null leaves it unclipped."""
    nonfinite: Nonfinite = Nonfinite()
    """Surviving a bad batch."""
    init_from: OptionalText = None
    """A run (name or folder) whose newest checkpoint gives the initial weights; null draws them from the seed."""
    compile: bool = False
    """Compile each block with torch.compile."""
    deterministic: bool = False
    """On GPUs, use only kernels that repeat bit for bit (slower). CPUs always do."""

    def problems(self) -> Iterator[Problem]:
        """Check that batch and horizon are each given in exactly one way."""
        for ways in (BATCH_WAYS, HORIZON_WAYS):
            given = [way for way in ways if getattr(self, way) is not None]
            if len(given) != 1:
                found = f"{' and '.join(given)} are given" if given else "none is given"
                first, value = (given[-1], getattr(self, given[-1])) if given else (ways[0], None)
                yield Problem(first, value, f"give exactly one of {', '.join(ways)} ({found})")
        tokens = self.tokens_per_step
        if tokens is not None and tokens % self.seq_len_tokens:
            down = max(1, tokens // self.seq_len_tokens) * self.seq_len_tokens
            hint = f"not a multiple of train.seq_len_tokens {self.seq_len_tokens}; try {down}"
            yield Problem("tokens_per_step", tokens, hint)


class Evaluation(Settings):
    """Loss and bits per byte on the first samples of the validation shards, by all ranks."""

    every_steps: OptionalCount = 100
    """Evaluate at step 0, every so many steps and at the end; null only at the end."""
    max_tokens: Count = 1_000_000
    """Targets scored in one evaluation."""


class DumpRetention(Settings):
    """Checkpoints to resume from."""

    every_steps: OptionalCount = 1000
    """Save every so many steps; null leaves it to `every_minutes`, the end and a stop."""
    every_minutes: OptionalPositive = None
    """Save when so much time has passed since the last save; null leaves it to the steps."""
    keep: Count = 2
    """How many of the newest to keep."""


class EvalRetention(Settings):
    """Checkpoints to keep for later study."""

    every_steps: OptionalCount = None
    """Save every so many steps; null keeps none for study."""
    keep: OptionalCount = None
    """How many of the newest to keep; null keeps all."""


class Checkpoint(Settings):
    """When the state is saved and which states are kept. The newest committed one is never deleted."""

    dump: DumpRetention = DumpRetention()
    """Checkpoints to resume from."""
    eval: EvalRetention = EvalRetention()
    """Checkpoints to keep for later study."""


class Logging(Settings):
    """Where figures go. `metrics.jsonl` always gets one row a step."""

    print_every_steps: Count = 10
    """A line on the terminal every so many steps."""
    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""
    tensorboard_port: OptionalPort = None
    """Serve them on this port of 127.0.0.1 where rank 0 runs, while it trains; 6006 is usual, null serves nothing."""
    num_samples: CountOrZero = 5
    """Continuations written at the end of the run for the report."""
    sample_tokens: Count = 64
    """Tokens of one continuation."""
