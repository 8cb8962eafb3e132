"""Settings of the training itself: batch, horizon, precision, evaluation, checkpoints, logging."""

from collections.abc import Iterator
from typing import Annotated, Literal

from trainwright.spec.settings import Count, CountOrZero, NonNegative, Off, OptionalCount, OptionalPositive
from trainwright.spec.settings import OptionalPort, OptionalText, Problem, Settings


BATCH_WAYS = ("global_batch_sequences", "tokens_per_step", "batch_rule")
HORIZON_WAYS = ("steps", "tokens", "tokens_per_parameter", "tokens_per_matrix_weight", "flops")


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
    batch_rule: Annotated[Literal["depth"] | None, Off] = None
    """Let a rule give the tokens of a step: `depth` is nanochat's, a power of two that grows with the model."""
    steps: OptionalCount = None
    """Optimizer steps; or give tokens, tokens_per_parameter or flops."""
    tokens: OptionalCount = None
    """Tokens to train on."""
    tokens_per_parameter: OptionalPositive = None
    """Tokens to train on, as a multiple of the parameters (Chinchilla, arXiv 2203.15556, found about 20)."""
    tokens_per_matrix_weight: OptionalPositive = None
    """Tokens to train on, as a multiple of the weights in matrices, embedding left out (nanochat takes 8 to 12)."""
    flops: OptionalPositive = None
    """Training FLOPs to spend, by the model's own count."""
    precision: Literal["bf16", "fp8", "fp32"] = "bf16"
    """Compute type; parameters and reductions are kept in fp32. fp8: bf16, but the blocks' large matrices in float8."""
    grad_clip: OptionalPositive = 1.0
    """Largest norm of the whole gradient, over all ranks; null leaves it unclipped."""
    z_loss: NonNegative = 0.0
    """Factor of the squared logarithm of the softmax's sum, which keeps logits from drifting; 1e-4 is usual."""
    nonfinite: Nonfinite = Nonfinite()
    """Surviving a bad batch."""
    init_from: OptionalText = None
    """Initial weights: a run (name or folder), a Hugging Face folder, or hub:OWNER/NAME; null draws them."""
    compile: bool = False
    """Compile each block with torch.compile."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again instead of keeping it: nothing, all but matrix products, or each block."""
    reduce_every_pass: bool = False
    """Reduce gradients after each pass of an accumulation: more traffic, and no rank keeps a whole gradient."""
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
    profile_step: OptionalCount = None
    """Trace three steps from this one on into profile/ of the run folder; null traces nothing."""
    num_samples: CountOrZero = 5
    """Continuations written at the end of the run for the report."""
    sample_tokens: Count = 64
    """Tokens of one continuation."""
