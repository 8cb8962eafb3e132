"""What the loop calls back: evaluation, saving and recording of one rank, and the run's first lines."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

import torch

from trainer import checkpoint
from trainer.attempt import Attempt
from trainer.checkpoint import TrainState
from trainer.collection import collect
from trainer.device import describe_device, peak_flops
from trainer.evaluate import Score, Validation, evaluate
from trainer.loop import Spent, StepResult
from trainer.metrics import Metrics, Row, step_row
from trainer.nonfinite import Refusals
from trainer.parallelize import settle
from trainer.profiling import profiling
from trainer.progress import progress_bar
from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainwright.spec.derived import Derived
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import Training, experiment_hash

log = logging.getLogger("trainer")

RECENT_STEPS = 50
"""Steps whose median the remaining time is told by."""
FIGURES = {
    "loss": "loss={:.4f}",
    "lr": "lr={:.2e}",
    "grad_norm": "grad_norm={:.3f}",
    "tokens_per_second": "tokens_per_second={:.0f}",
    "tokens_per_second_per_device": "per_device={:.0f}",
    "mfu": "mfu={:.1%}",
    "peak_memory_gib": "memory={:.1f}GiB",
    "data_wait_seconds": "data_wait={:.3f}s",
    "save_seconds": "save_stall={:.2f}s",
    "power_watts": "power={:.0f}W",
}
"""What the terminal tells of a step, and how."""


@dataclass(frozen=True)
class Setting:
    """One rank's view of a run: what was asked for, and who else is there."""

    training: Training
    derived: Derived
    run: RunFolder
    ranks: Ranks
    requests: Requests
    attempt: Attempt


def evaluating(
    setting: Setting, model: torch.nn.Module, validation: Validation, metrics: Metrics | None
) -> Callable[[int], Request]:
    """Return the loop's `evaluate`."""

    def run_evaluation(step: int) -> Request:
        setting.attempt.beat("evaluate", now=True)
        score = evaluate(model, validation, setting.training.experiment.train, setting.ranks, setting.requests)
        if not isinstance(score, Score):
            return score
        log.info("stage=train step=%d eval_loss=%.4f bits_per_byte=%.4f", step, score.loss, score.bits_per_byte)
        if metrics is not None:
            metrics.write(score.row(step))
        return Request.NONE

    return run_evaluation


def saving(
    setting: Setting,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    start: TrainState,
    refusals: Refusals,
    metrics: Metrics | None,
) -> Callable[[int, int], None]:
    """Return the loop's `save`."""
    began = time.monotonic()

    def save(step: int, cursor: int) -> None:
        setting.attempt.beat("save", now=True)
        setting.attempt.check_lease()
        seconds = round(start.train_seconds + time.monotonic() - began, 3)
        state = replace(
            start,
            step=step,
            cursor=cursor,
            train_seconds=seconds,
            refused=tuple(refusals.refused),
            rollbacks=refusals.rollbacks,
        )
        folder = setting.run.checkpoints
        # Before the commit: who resumes from it counts on the rows up to its step.
        setting.ranks.together(lambda: metrics.settle() if metrics is not None else None)
        settle(model)
        took = checkpoint.save(folder, checkpoint.named_state(model, optimizer), state, setting.ranks)
        setting.requests.save_s = max(setting.requests.save_s, took)
        log.info("stage=train step=%d checkpoint saved seconds=%.2f", step, took)
        # The ranks have just waited for one another: the moment for what stops them.
        collect(everything=True)
        if metrics is not None:
            metrics.save_seconds += took
        if setting.ranks.is_first:
            checkpoint.prune(folder, setting.training.experiment.checkpoint)

    return save


def recording(
    setting: Setting, metrics: Metrics | None, start: int, stack: ExitStack
) -> Callable[[int, StepResult, Spent], None]:
    """Return the loop's `record`."""
    derived = setting.derived
    every = derived.experiment.logging.print_every_steps
    bar = progress_bar("train", derived.steps, start=start, unit="step", shown=setting.ranks.is_first)
    advance = stack.enter_context(bar)
    traced = derived.experiment.logging.profile_step if setting.ranks.is_first else None
    profile = stack.enter_context(profiling(setting.run.path / "profile", traced, start))
    recent: deque[float] = deque(maxlen=RECENT_STEPS)

    def record(step: int, result: StepResult, spent: Spent) -> None:
        recent.append(spent.seconds)
        told = step % every == 0 or step in (1, derived.steps)
        if metrics is not None:
            times = {"save_seconds": metrics.save_seconds, "eta_seconds": median(recent) * (derived.steps - step)}
            row = step_row(derived, setting.ranks, step, result, spent)
            row = {**row, **{name: round(seconds, 3) for name, seconds in times.items()}}
            metrics.write(row)
            metrics.save_seconds = 0.0
            if told:
                log.info("stage=train step=%d/%d %s", step, derived.steps, step_words(row))
        profile()
        setting.attempt.beat("step", step)
        advance(f"loss={result.loss:.4f}")
        if told:
            collect(everything=False)

    return record


def step_words(row: Row) -> str:
    """Return a step's figures for the terminal; what this device does not tell is left out."""
    figures = [words.format(row[name]) for name, words in FIGURES.items() if row[name] is not None]
    return " ".join([*figures, f"eta_minutes={row['eta_seconds'] / 60:.1f}"])


def log_first_lines(setting: Setting) -> None:
    """State what is about to be trained, and how it is cut over the ranks."""
    derived, experiment = setting.derived, setting.training.experiment
    model, settings, facts = experiment.model, experiment.train, derived.facts()
    log.info("run: %s attempt=%s folder=%s", experiment.name, setting.attempt.number, setting.run)
    log.info("experiment: hash=%s", experiment_hash(experiment)[:12])
    shape = f"dim={model.dim} layers={model.num_layers} heads={model.num_heads} kv_heads={model.kv_heads}"
    sizes = f"mlp={model.mlp_dim} vocabulary={derived.vocab_size} parameters={derived.num_parameters:,}"
    log.info("model: %s %s %s", model.kind, shape, sizes)
    log.info("model: %s", "; ".join(derived.dimension_lines()))
    cut = f"micro {settings.micro_batch} x accum {derived.grad_accum} x ranks {derived.ranks}"
    log.info("batch: %d sequences = %s; %s tokens", derived.global_batch_sequences, cut, f"{derived.tokens_per_step:,}")
    total = f"{facts['total_tokens']:,} tokens, {facts['total_flops']:.3g} FLOPs"
    log.info("steps: %d (%s), %d of them warm-up", derived.steps, total, derived.warmup_steps)
    peak = derived.peak
    log.info("learning rate: %.3g peak (%s), %s", peak.value, peak.formula, experiment.schedule.kind)
    if peak.warning:
        log.warning("learning rate: %s", peak.warning)
    if settings.precision == "fp8":
        counts = f"{model.shape.float8_matrices} of the {model.shape.num_matrices} matrices of the blocks in fp8"
        log.info("precision: %s, all else in bf16, scores and samples too", counts)
    sharding = "FSDP2" if derived.ranks > 1 else "one rank, unsharded"
    log.info("device: %s, %s, %s", describe_device(setting.ranks.device), settings.precision, sharding)
    peak_rate = peak_flops(setting.ranks.device)
    if peak_rate is not None:
        flops, per_device = f"{derived.flops_per_token:,}", f"{peak_rate / 1e12:g} TFLOP/s"
        log.info("mfu: tokens_per_second x %s FLOPs of a token / (%d ranks x %s)", flops, derived.ranks, per_device)
