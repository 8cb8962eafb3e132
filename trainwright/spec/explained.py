"""Every derived number with the formula that gave it, for `plan`."""

from collections.abc import Iterator
from dataclasses import dataclass

from trainwright.spec.derived import Derived
from trainwright.spec.memory import checkpoint_bytes, peak_disk_bytes
from trainwright.spec.rates import block_weights, matrix_weights
from trainwright.spec.scaling import CHINCHILLA_TOKENS_PER_PARAMETER, chinchilla_for_flops, depth_batch_tokens
from trainwright.spec.scaling import depth_weight_decay


@dataclass(frozen=True, slots=True)
class Explained:
    """A number, and where it comes from."""

    name: str
    value: float
    formula: str


def explained(derived: Derived) -> Iterator[Explained]:
    """Yield each number that follows from an experiment, in the order in which they follow from one another."""
    yield from _sizes(derived)
    yield from _batch(derived)
    yield from _horizon(derived)
    yield from _rates(derived)
    yield Explained("checkpoint_bytes", checkpoint_bytes(derived), "4 x (parameters + averages of gradients)")
    yield Explained("peak_disk_bytes", peak_disk_bytes(derived), "checkpoint_bytes x (kept + the one being written)")


def _sizes(derived: Derived) -> Iterator[Explained]:
    model = derived.experiment.model
    wanted = derived.experiment.tokenizer.max_vocab_size
    yield Explained("vocab_size", derived.vocab_size, f"{wanted} entries, up to a multiple of {model.vocab_multiple}")
    yield Explained("block_weights", block_weights(derived.experiment), "matrices of the blocks")
    yield Explained(
        "matrix_weights", matrix_weights(derived.experiment), "block_weights + vocab_size x dim of the output"
    )
    yield Explained("num_parameters", derived.num_parameters, "matrix_weights + embedding, norms and biases")
    if derived.experiment.train.precision == "fp8":
        rest = "the others, embedding and output compute in bf16"
        formula = f"of the {model.shape.num_matrices} matrices of the blocks, by their sides; {rest}"
        yield Explained("float8_matrices", model.shape.float8_matrices, formula)
    formula = "6 x matrix_weights + 6 x layers x sequence x heads x head width (attention counted causally)"
    yield Explained("flops_per_token", derived.flops_per_token, formula)
    formula = "ln(vocab_size) + half the variance of the first logits"
    yield Explained("expected_first_loss", derived.expected_first_loss, formula)


def _batch(derived: Derived) -> Iterator[Explained]:
    train, resources = derived.experiment.train, derived.experiment.resources
    yield Explained("ranks", derived.ranks, f"{resources.nodes} nodes x {resources.ranks_per_node} ranks")
    formula = "given"
    if train.batch_rule is not None:
        formula = f"{depth_batch_tokens(matrix_weights(derived.experiment)).formula} / {train.seq_len_tokens}"
    elif train.tokens_per_step is not None:
        formula = f"train.tokens_per_step / {train.seq_len_tokens}"
    yield Explained("global_batch_sequences", derived.global_batch_sequences, formula)
    yield Explained("tokens_per_step", derived.tokens_per_step, f"global_batch_sequences x {train.seq_len_tokens}")
    formula = f"global_batch_sequences / (micro batch {train.micro_batch} x ranks)"
    yield Explained("grad_accum", derived.grad_accum, formula)


def _horizon(derived: Derived) -> Iterator[Explained]:
    train = derived.experiment.train
    total = derived.steps * derived.tokens_per_step
    ways = {
        "given": train.steps,
        "train.tokens / tokens_per_step, up": train.tokens,
        f"{train.tokens_per_parameter} x num_parameters / tokens_per_step, up": train.tokens_per_parameter,
        f"{train.tokens_per_matrix_weight} x matrix_weights / tokens_per_step, up": train.tokens_per_matrix_weight,
        f"{train.flops} / flops_per_token / tokens_per_step, up": train.flops,
    }
    yield Explained("steps", derived.steps, next(formula for formula, given in ways.items() if given is not None))
    yield Explained("total_tokens", total, "steps x tokens_per_step")
    flops = float(total * derived.flops_per_token)
    yield Explained("total_flops", flops, "total_tokens x flops_per_token")
    ratio = total / derived.num_parameters
    usual = f"total_tokens / num_parameters (Chinchilla: about {CHINCHILLA_TOKENS_PER_PARAMETER:.0f})"
    yield Explained("tokens_per_parameter", ratio, usual)
    best, _ = chinchilla_for_flops(flops)
    yield Explained("chinchilla_parameters", best, "sqrt(total_flops / 120): what would use these FLOPs best")


def _rates(derived: Derived) -> Iterator[Explained]:
    experiment = derived.experiment
    schedule, optimizer = experiment.schedule, experiment.optimizer
    formula = "given" if schedule.warmup_steps is not None else f"{schedule.warmup_fraction} x steps"
    yield Explained("warmup_steps", derived.warmup_steps, formula)
    yield Explained("peak_lr", derived.peak.value, derived.peak.formula)
    if rates := derived.muon_rates:
        yield Explained("embedding_lr", rates.embedding, "AdamW's rate for the embedding")
        yield Explained("output_lr", rates.output, "AdamW's rate for the output matrix")
    if optimizer.decay == "coupled":
        yield Explained(
            "decay_per_step", derived.peak_lr * optimizer.weight_decay, "peak_lr x weight_decay, at the peak"
        )
    elif optimizer.decay == "independent":
        yield Explained("decay_per_step", optimizer.omega / derived.steps, "omega / steps, at the peak")
    else:
        start = optimizer.start_steps(derived.steps)
        formula = f"omega {optimizer.omega:g} / decay_start_steps, falling as 1 / (start + t)"
        yield Explained("decay_start_steps", start, f"int(steps / {optimizer.decay_start_divisor:g})")
        yield Explained("decay_at_start", optimizer.omega / start, formula)
    if experiment.model.kind == "nanochat":
        ruled = depth_weight_decay(matrix_weights(experiment), derived.tokens_per_step)
        yield Explained("nanochat_weight_decay", ruled.value, f"{ruled.formula}; advice, not applied")
