"""Assembles a run from `training.yaml` and drives it: data, model, optimizer, resume, loop, samples."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from trainer import checkpoint
from trainer.attempt import Attempt
from trainer.checkpoint import TrainState
from trainer.data import Dealing, batches, open_corpus
from trainer.device import choose_device, describe_device, prepare_device
from trainer.evaluate import Score, Validation, evaluate
from trainer.generate import write_samples
from trainer.loop import Parts, StepResult, train
from trainer.metrics import Metrics, step_row
from trainer.models import build_model
from trainer.optim import build_optimizer
from trainer.parallelize import parallelize
from trainer.progress import progress_bar
from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainer.resume import resume_or_start
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import Training, experiment_hash, fixed_fields
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.shards import TokenCorpus, verify_shards

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Setting:
    """One rank's view of a run: what was asked for, and who else is there."""

    training: Training
    derived: Derived
    run: RunFolder
    ranks: Ranks
    requests: Requests
    attempt: Attempt


def run_training(training: Training, local_rank: int, local_ranks: int) -> Exit:
    """Run one rank from start or resume to completion or request; return the exit code that is meant."""
    experiment = training.experiment
    derived, run = Derived(experiment), RunFolder(training.run)
    requests = Requests(run.ended)
    device = choose_device(experiment.resources, local_rank)
    prepare_device(device, deterministic=experiment.train.deterministic, local_ranks=local_ranks)
    ranks = Ranks(device)
    if ranks.size != derived.ranks:
        raise UserError(f"resources ask for {derived.ranks} ranks, but {ranks.size} were started")
    setting = Setting(training, derived, run, ranks, requests, Attempt(run, ranks.rank))
    _log_first_lines(setting)
    code, reason, step = _drive(setting)
    log.info("stage=train step=%d/%d %s", step, derived.steps, reason)
    ranks.close()
    setting.attempt.end(code, reason, step)
    return code


def _drive(setting: Setting) -> tuple[Exit, str, int]:
    """Build everything, train, and write the samples of a finished run; return code, reason and step."""
    training, derived, ranks = setting.training, setting.derived, setting.ranks
    experiment = training.experiment
    bundle = Bundle.load(training.tokenizer)
    corpus, order = open_corpus(training.train_tokens, derived)
    val_corpus, _ = open_corpus(training.val_tokens, derived)
    _verify_data((corpus, val_corpus), bundle, derived, ranks)
    model = build_sharded(derived, ranks)
    optimizer = build_optimizer(experiment.optimizer, model)
    fresh = TrainState(0, 0, corpus.manifest.identity, fixed_fields(experiment))
    state = resume_or_start(setting.run.checkpoints, model, optimizer, fresh, ranks, experiment.seed)
    validation = Validation(val_corpus, _token_bytes(bundle, derived, ranks), experiment.evaluation.max_tokens)
    dealing = Dealing(experiment.train.micro_batch, derived.grad_accum, ranks.rank, ranks.size)
    with ExitStack() as stack:
        resumed = None if state is fresh else state.step
        metrics = None
        if ranks.is_first:
            metrics = stack.enter_context(Metrics(setting.run, resumed, tensorboard=experiment.logging.tensorboard))
        parts = Parts(
            derived=derived,
            model=model,
            optimizer=optimizer,
            batches=stack.enter_context(batches(corpus, order, dealing, state.cursor)),
            ranks=ranks,
            requests=setting.requests,
            evaluate=_evaluating(setting, model, validation, metrics),
            save=_saving(setting, model, optimizer, state),
            record=_recording(setting, metrics, state.step, stack),
            step=state.step,
            cursor=state.cursor,
            saved_step=resumed,
            evaluated_step=ranks.from_first(metrics.evaluated_step if metrics else None),
        )
        request = train(parts)
        setting.attempt.beat(parts.step, derived.steps, now=True)
        if parts.evaluated_step == derived.steps:
            # A request that came with the very end changes nothing: the work is done.
            write_samples(setting.run.samples, model, validation, bundle, experiment, ranks)
            return Exit.OK, "complete", parts.step
    if request is Request.END:
        return Exit.OK, "ended on request", parts.step
    return Exit.INTERRUPTED, "interrupted, saved", parts.step


def build_sharded(derived: Derived, ranks: Ranks) -> torch.nn.Module:
    """Return the model on its device, sharded, with memory but without values."""
    experiment = derived.experiment
    with torch.device("meta"):
        model = build_model(experiment.model, derived.vocab_size, experiment.train.seq_len_tokens)
    return parallelize(model, experiment.train, ranks.mesh).to_empty(device=ranks.device)


def _token_bytes(bundle: Bundle, derived: Derived, ranks: Ranks) -> torch.Tensor:
    """Return the bytes that each row of the vocabulary stands for; padding rows stand for none."""
    lengths = torch.zeros(derived.vocab_size, dtype=torch.int64)
    lengths[: bundle.vocab_size] = torch.from_numpy(bundle.token_bytes)
    return lengths.to(ranks.device)


def _verify_data(corpora: tuple[TokenCorpus, ...], bundle: Bundle, derived: Derived, ranks: Ranks) -> None:
    """Hash every shard, shared out over the ranks, and hold corpus, tokenizer and model together; all ranks agree."""
    wrong = None
    for corpus in corpora:
        made_by, rows = corpus.manifest.tokenizer_hash, corpus.manifest.vocab_size
        if made_by != bundle.hash:
            wrong = f"{corpus.folder}: was made by tokenizer {made_by[:8]}, but the run's is {bundle.hash[:8]}"
        if rows > derived.vocab_size:
            wrong = f"{corpus.folder}: its vocabulary of {rows} does not fit the model's {derived.vocab_size} rows"
        try:
            verify_shards(corpus.folder, corpus.manifest.shards[ranks.rank :: ranks.size], hashes=True)
        except UserError as error:
            wrong = str(error)
    found = next((each for each in ranks.gather(wrong) if each), None)
    if found:
        raise UserError(found)


def _evaluating(
    setting: Setting, model: torch.nn.Module, validation: Validation, metrics: Metrics | None
) -> Callable[[int], Request]:
    def run_evaluation(step: int) -> Request:
        score = evaluate(model, validation, setting.training.experiment.train, setting.ranks, setting.requests)
        if not isinstance(score, Score):
            return score
        log.info("stage=train step=%d eval_loss=%.4f bits_per_byte=%.4f", step, score.loss, score.bits_per_byte)
        if metrics is not None:
            metrics.write(score.row(step))
        return Request.NONE

    return run_evaluation


def _saving(
    setting: Setting, model: torch.nn.Module, optimizer: torch.optim.Optimizer, start: TrainState
) -> Callable[[int, int], None]:
    began = time.monotonic()

    def save(step: int, cursor: int) -> None:
        setting.attempt.check_lease()
        seconds = round(start.train_seconds + time.monotonic() - began, 3)
        state = TrainState(step, cursor, start.corpus, start.fixed, seconds)
        folder = setting.run.checkpoints
        took = checkpoint.save(folder, checkpoint.named_state(model, optimizer), state, setting.ranks)
        setting.requests.save_s = max(setting.requests.save_s, took)
        log.info("stage=train step=%d checkpoint saved seconds=%.2f", step, took)
        if setting.ranks.is_first:
            checkpoint.prune(folder, setting.training.experiment.checkpoint)

    return save


def _recording(
    setting: Setting, metrics: Metrics | None, start: int, stack: ExitStack
) -> Callable[[int, StepResult, float], None]:
    derived = setting.derived
    every = derived.experiment.logging.print_every_steps
    bar = progress_bar("train", derived.steps, start=start, unit="step", shown=setting.ranks.is_first)
    advance = stack.enter_context(bar)

    def record(step: int, result: StepResult, seconds: float) -> None:
        row = step_row(derived, setting.ranks, step, result, seconds)
        if metrics is not None:
            metrics.write(row)
        setting.attempt.beat(step, derived.steps)
        advance(f"loss={result.loss:.4f}")
        if step % every == 0 or step == 1:
            facts = f"loss={result.loss:.4f} lr={result.lr:.2e} grad_norm={result.grad_norm:.3f}"
            speed = row["tokens_per_second"]
            log.info("stage=train step=%d/%d %s tokens_per_second=%.0f", step, derived.steps, facts, speed)

    return record


def _log_first_lines(setting: Setting) -> None:
    derived, experiment = setting.derived, setting.training.experiment
    model, train_settings, facts = experiment.model, experiment.train, derived.facts()
    log.info("run: %s attempt=%s folder=%s", experiment.name, setting.attempt.number, setting.run)
    log.info("experiment: hash=%s", experiment_hash(experiment)[:12])
    shape = f"dim={model.dim} layers={model.num_layers} heads={model.num_heads} kv_heads={model.kv_heads}"
    sizes = f"mlp={model.mlp_dim} vocabulary={derived.vocab_size} parameters={derived.num_parameters:,}"
    log.info("model: %s %s %s", model.kind, shape, sizes)
    cut = f"micro {train_settings.micro_batch} x accum {derived.grad_accum} x ranks {derived.ranks}"
    log.info("batch: %d sequences = %s; %s tokens", derived.global_batch_sequences, cut, f"{derived.tokens_per_step:,}")
    total = f"{facts['total_tokens']:,} tokens, {facts['total_flops']:.3g} FLOPs"
    log.info("steps: %d (%s), %d of them warm-up", derived.steps, total, derived.warmup_steps)
    log.info("learning rate: %.3g peak, %s", experiment.optimizer.lr, experiment.schedule.kind)
    sharding = "FSDP2" if derived.ranks > 1 else "one rank, unsharded"
    log.info("device: %s, %s, %s", describe_device(setting.ranks.device), train_settings.precision, sharding)
