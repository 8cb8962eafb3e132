"""Assembles a run from `training.yaml` and drives it: data, model, optimizer, resume, loop, samples."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint
from trainer.attempt import Attempt
from trainer.checkpoint import TrainState
from trainer.data import Dealing, batches, open_corpus
from trainer.device import choose_device, describe_device, peak_flops, peak_memory_gib, prepare_device
from trainer.evaluate import Score, Validation, evaluate
from trainer.generate import TEMPERATURE, sample_rows
from trainer.initialise import initialise
from trainer.loop import Parts, StepResult, train
from trainer.metrics import Metrics
from trainer.models import build_model
from trainer.optim import build_optimizer
from trainer.parallelize import parallelize
from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainwright.progress import Progress
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import Training, experiment_hash, fixed_fields
from trainwright.store.files import write_text
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.shards import TokenCorpus, verify_shards

log = logging.getLogger("trainer")


def run_training(training: Training, local_rank: int, local_ranks: int) -> Exit:
    """Run one rank from start or resume to completion or request; return the exit code that is meant."""
    derived = Derived(training.experiment)
    run = RunFolder(training.run)
    requests = Requests(run.ended)
    device = choose_device(training.experiment.resources, local_rank)
    prepare_device(device, deterministic=training.experiment.train.deterministic, local_ranks=local_ranks)
    ranks = Ranks(device)
    attempt = Attempt(run, ranks.rank)
    if ranks.size != derived.ranks:
        raise UserError(f"resources ask for {derived.ranks} ranks, but {ranks.size} were started")
    _log_first_lines(derived, run, device, attempt)
    outcome, step = _drive(training, derived, ranks, requests, attempt)
    reason = {Exit.OK: "complete", Exit.INTERRUPTED: "interrupted"}[outcome]
    if outcome is Exit.OK and step < derived.steps:
        reason = "ended on request"
    log.info("stage=train step=%d/%d %s", step, derived.steps, reason)
    ranks.close()
    attempt.end(outcome, reason, step)
    return outcome


def _drive(
    training: Training, derived: Derived, ranks: Ranks, requests: Requests, attempt: Attempt
) -> tuple[Exit, int]:
    experiment, run = training.experiment, RunFolder(training.run)
    bundle = Bundle.load(training.tokenizer)
    corpus, order = open_corpus(training.train_tokens, derived)
    val_corpus, _ = open_corpus(training.val_tokens, derived)
    _verify_data((corpus, val_corpus), bundle, derived, ranks)
    model = build_sharded(derived, ranks)
    optimizer = build_optimizer(experiment.optimizer, model)
    base = TrainState(0, 0, corpus.manifest.identity, fixed_fields(experiment))
    state = _resume_or_start(run, model, optimizer, base, ranks, experiment.seed)
    resumed = state is not base
    metrics = (
        Metrics(run, state.step if resumed else None, tensorboard=experiment.logging.tensorboard)
        if (ranks.is_first)
        else None
    )
    token_bytes = torch.zeros(derived.vocab_size, dtype=torch.int64)
    token_bytes[: bundle.vocab_size] = torch.from_numpy(bundle.token_bytes)
    validation = Validation(val_corpus, token_bytes.to(ranks.device), experiment.evaluation.max_tokens)
    dealing = Dealing(experiment.train.micro_batch, derived.grad_accum, ranks.rank, ranks.size)
    started = time.monotonic()
    with Progress("train", total=derived.steps, start=state.step, unit="step", quiet=not ranks.is_first) as bar:

        def save(step: int, cursor: int) -> None:
            attempt.check_lease()
            seconds = state.train_seconds + time.monotonic() - started
            now = TrainState(step, cursor, base.corpus, base.fixed, round(seconds, 3))
            took = checkpoint.save(run.checkpoints, checkpoint.named_state(model, optimizer), now, ranks)
            requests.save_s = max(requests.save_s, took)
            log.info("stage=train step=%d saved=%s seconds=%.2f", step, run.checkpoints, took)
            if ranks.is_first:
                checkpoint.prune(run.checkpoints, experiment.checkpoint)

        parts = Parts(
            derived=derived,
            model=model,
            optimizer=optimizer,
            batches=batches(corpus, order, dealing, state.cursor),
            ranks=ranks,
            requests=requests,
            evaluate=_evaluator(model, validation, training, ranks, requests, metrics),
            save=save,
            record=_recorder(derived, ranks, metrics, attempt, bar),
            step=state.step,
            cursor=state.cursor,
            saved_step=state.step if resumed else None,
            evaluated_step=ranks.from_first(metrics.evaluated_step if metrics else None),
        )
        request = train(parts)
    attempt.beat(parts.step, derived.steps, now=True)
    if parts.step < derived.steps:
        return (Exit.OK if request is Request.END else Exit.INTERRUPTED), parts.step
    _write_samples(model, validation, bundle, training, ranks, parts.step)
    if metrics is not None:
        metrics.close()
    # A request that came with the last step changes nothing: all is done but, perhaps, the last evaluation.
    return (Exit.OK if parts.evaluated_step == parts.step else Exit.INTERRUPTED), parts.step


def build_sharded(derived: Derived, ranks: Ranks) -> torch.nn.Module:
    """Return the model on its device, sharded, with memory but without values."""
    experiment = derived.experiment
    with torch.device("meta"):
        model = build_model(experiment.model, derived.vocab_size, experiment.train.seq_len_tokens)
    parallelize(model, experiment.train, ranks.mesh)
    return model.to_empty(device=ranks.device)


def _verify_data(corpora: tuple[TokenCorpus, ...], bundle: Bundle, derived: Derived, ranks: Ranks) -> None:
    """Hash every shard, shared out over the ranks, and hold the parts against each other; all ranks agree."""
    wrong = None
    for corpus in corpora:
        if corpus.manifest.tokenizer_hash != bundle.hash:
            wrong = (
                f"{corpus.folder}: was made by tokenizer {corpus.manifest.tokenizer_hash[:8]}, not {bundle.hash[:8]}"
            )
        if corpus.manifest.vocab_size > derived.vocab_size:
            size = derived.vocab_size
            wrong = (
                f"{corpus.folder}: a vocabulary of {corpus.manifest.vocab_size} does not fit the model's {size} rows"
            )
        try:
            verify_shards(corpus.folder, corpus.manifest.shards[ranks.rank :: ranks.size], hashes=True)
        except UserError as error:
            wrong = str(error)
    found = next((each for each in ranks.gather(wrong) if each), None)
    if found:
        raise UserError(found)


def _resume_or_start(
    run: RunFolder, model: torch.nn.Module, optimizer: torch.optim.Optimizer, base: TrainState, ranks: Ranks, seed: int
) -> TrainState:
    """Load the newest sound checkpoint, or initialise; say which and why. Damaged ones are passed over by name."""
    found = [
        checkpoint.Committed(step, Path(path))
        for step, path in ranks.from_first(
            [(each.step, str(each.folder)) for each in checkpoint.committed(run.checkpoints)]
        )
    ]
    for each in found:
        wrong = checkpoint.verify(each, ranks)
        if wrong:
            log.warning("resume: %s is refused: %s", each.folder.name, wrong)
            continue
        stored = checkpoint.read_train_state(each)
        checkpoint.check_same_run(each, stored, base)
        initialise(model, seed)
        _make_optimizer_state(optimizer)
        checkpoint.load(each, checkpoint.named_state(model, optimizer))
        log.info("resume: from %s, the newest checkpoint that verifies", each.folder.name)
        return stored
    if found:
        ways = f"restore one, or move {run.checkpoints} away to start again"
        raise UserError(f"{run.checkpoints}: none of {len(found)} checkpoints verifies; {ways}")
    log.info("resume: starting from step 0, because %s holds no checkpoint", run.checkpoints)
    initialise(model, seed)
    return base


def _make_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer allocate its state, by an update of size zero; the checkpoint then overwrites all of it."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _evaluator(
    model: torch.nn.Module,
    validation: Validation,
    training: Training,
    ranks: Ranks,
    requests: Requests,
    metrics: Metrics | None,
) -> Callable[[int], Request]:
    def run_evaluation(step: int) -> Request:
        score = evaluate(model, validation, training.experiment.train, ranks, requests)
        if not isinstance(score, Score):
            return score
        log.info("stage=train step=%d eval_loss=%.4f bits_per_byte=%.4f", step, score.loss, score.bits_per_byte)
        if metrics is not None:
            metrics.write(score.row(step))
        return Request.NONE

    return run_evaluation


def _recorder(
    derived: Derived, ranks: Ranks, metrics: Metrics | None, attempt: Attempt, bar: Progress
) -> Callable[[int, StepResult, float], None]:
    peak = peak_flops(ranks.device)
    every = derived.experiment.logging.print_every_steps

    def record(step: int, result: StepResult, seconds: float) -> None:
        speed = derived.tokens_per_step / seconds
        mfu = speed * derived.flops_per_token / (peak * ranks.size) if peak else None
        row: dict[str, Any] = {
            "step": step,
            "loss": result.loss,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
            "tokens": step * derived.tokens_per_step,
            "step_seconds": round(seconds, 4),
            "tokens_per_second": round(speed, 1),
            "mfu": mfu,
            "peak_memory_gib": peak_memory_gib(ranks.device),
        }
        if metrics is not None:
            metrics.write(row)
        attempt.beat(step, derived.steps)
        bar.advance(1, loss=f"{result.loss:.4f}")
        if step % every == 0 or step == 1:
            facts = f"loss={result.loss:.4f} lr={result.lr:.2e} grad_norm={result.grad_norm:.3f}"
            log.info("stage=train step=%d/%d %s tokens_per_second=%.0f", step, derived.steps, facts, speed)

    return record


def _write_samples(
    model: torch.nn.Module, validation: Validation, bundle: Bundle, training: Training, ranks: Ranks, step: int
) -> None:
    import json

    settings = training.experiment.logging
    rows = sample_rows(
        model,
        validation,
        bundle,
        training.experiment.train,
        ranks,
        count=settings.num_samples,
        length=settings.sample_tokens,
    )
    if ranks.is_first:
        facts = {"step": step, "temperature": TEMPERATURE}
        lines = [json.dumps({**row, **facts}, ensure_ascii=False) + "\n" for row in rows]
        write_text(RunFolder(training.run).samples, "".join(lines))


def _log_first_lines(derived: Derived, run: RunFolder, device: torch.device, attempt: Attempt) -> None:
    experiment, train = derived.experiment, derived.experiment.train
    model = experiment.model
    log.info("run: %s attempt=%s folder=%s", experiment.name, attempt.number, run)
    log.info("experiment: hash=%s", experiment_hash(experiment)[:12])
    shape = f"dim={model.dim} layers={model.num_layers} heads={model.num_heads} kv_heads={model.kv_heads}"
    sizes = f"mlp={model.mlp_dim} vocabulary={derived.vocab_size} parameters={derived.num_parameters:,}"
    log.info("model: %s %s %s", model.kind, shape, sizes)
    cut = f"micro {train.micro_batch} x accum {derived.grad_accum} x ranks {derived.ranks}"
    log.info("batch: %d sequences = %s; %s tokens", derived.global_batch_sequences, cut, f"{derived.tokens_per_step:,}")
    facts = derived.facts()
    total = f"{facts['total_tokens']:,} tokens, {facts['total_flops']:.3g} FLOPs"
    log.info("steps: %d (%s), %d of them warm-up", derived.steps, total, derived.warmup_steps)
    log.info("learning rate: %.3g peak, %s", experiment.optimizer.lr, experiment.schedule.kind)
    sharding = "FSDP2" if derived.ranks > 1 else "one rank, unsharded"
    log.info("device: %s, %s, %s", describe_device(device), train.precision, sharding)
