"""Assembles a run from `training.yaml` and drives it: data, model, optimizer, resume, loop, samples."""

import logging
import os
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch

from trainer.attempt import Attempt
from trainer.checkpoint import TrainState
from trainer.collection import no_collection_in_steps
from trainer.data import Dealing, batches, last_cursor, open_corpus
from trainer.device import choose_device, explaining_memory, prepare_device
from trainer.evaluate import Validation
from trainer.generate import write_samples
from trainer.loop import Parts, train
from trainer.loss import LossOptions
from trainer.metrics import Metrics
from trainer.models import build_model
from trainer.nonfinite import Refusals, RollBackError
from trainer.optim import build_optimizer
from trainer.parallelize import parallelize
from trainer.pretrained import initial_weights
from trainer.ranks import Ranks
from trainer.reporting import Setting, evaluating, log_first_lines, recording, saving
from trainer.requests import Request, Requests
from trainer.resume import resume_or_start
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import Places, RunFolder, root_from
from trainwright.spec.resolved import Training, fixed_fields
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.order import SampleOrder
from trainwright.tokens.shards import TokenCorpus, verify_shards

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Built:
    """What is built once and outlives a return to an earlier checkpoint."""

    bundle: Bundle
    corpus: TokenCorpus
    order: SampleOrder
    validation: Validation
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer


def run_training(training: Training, attempt: Attempt, local_rank: int, local_ranks: int) -> Exit:
    """Run one rank from start or resume to completion or request; return the exit code that is meant."""
    requests = Requests(RunFolder(training.run).ended)
    attempt.beat("start", now=True)
    # By hand nobody counts the seconds, nor reads why a rank left.
    leaving = requests.leaving(lambda: _leave(attempt)) if attempt.is_of_boot else nullcontext()
    with leaving:
        code, reason, ranks = _run(training, attempt, requests, local_rank, local_ranks)
    log.info("stage=train %s", reason)
    ranks.close()
    attempt.end(code, reason)
    return code


def _leave(attempt: Attempt) -> None:
    """End this process at once, whatever it is in the middle of: all that it has is saved."""
    reason = "interrupted before another update; all that was learned is saved"
    attempt.end(Exit.INTERRUPTED, reason, left=True)
    log.info("stage=train %s", reason)
    # torchrun takes any other code for a failure.
    os._exit(Exit.OK if "TORCHELASTIC_RUN_ID" in os.environ else Exit.INTERRUPTED)


def _run(
    training: Training, attempt: Attempt, requests: Requests, local_rank: int, local_ranks: int
) -> tuple[Exit, str, Ranks]:
    experiment = training.experiment
    derived, run = Derived(experiment), RunFolder(training.run)
    device = choose_device(experiment.resources, local_rank)
    prepare_device(device, deterministic=experiment.train.deterministic, local_ranks=local_ranks)
    ranks = Ranks(device, shard_ranks=experiment.resources.shard_ranks)
    if ranks.size != derived.ranks:
        raise UserError(f"resources ask for {derived.ranks} ranks, but {ranks.size} were started")
    setting = Setting(training, derived, run, ranks, requests, attempt)
    log_first_lines(setting)
    with explaining_memory(derived, device):
        return (*_drive(setting, _build(setting)), ranks)


def _build(setting: Setting) -> Built:
    training, derived, ranks = setting.training, setting.derived, setting.ranks
    experiment = training.experiment
    bundle = Bundle.load(training.tokenizer)
    corpus, order = open_corpus(training.train_tokens, derived)
    val_corpus, _ = open_corpus(training.val_tokens, derived)
    last_cursor(order, derived)
    _verify_data((corpus, val_corpus), bundle, derived, ranks)
    validation = Validation(val_corpus, _token_bytes(bundle, derived, ranks), experiment.evaluation.max_tokens)
    model = build_sharded(derived, ranks)
    return Built(bundle, corpus, order, validation, model, build_optimizer(derived, model))


def _drive(setting: Setting, built: Built) -> tuple[Exit, str]:
    """Train, going back to the newest checkpoint when the loop asks for it; return the exit code and why."""
    state, saved_step = _resume(setting, built)
    settings = setting.training.experiment.train.nonfinite
    refusals = Refusals(settings, state.refused, state.rollbacks)
    while True:
        try:
            return _train_from(state, saved_step, setting, built, refusals)
        except RollBackError:
            refusals.roll_back()
            state, saved_step = _resume(setting, built)


def _resume(setting: Setting, built: Built) -> tuple[TrainState, int | None]:
    """Return the state to go on from, and the step of the checkpoint that holds it, if one does."""
    experiment, run = setting.training.experiment, setting.run
    fresh = TrainState(0, 0, built.corpus.manifest.identity, fixed_fields(experiment))
    init_from = experiment.train.init_from
    weights = None
    if init_from is not None:
        assets = Places(root_from(), experiment).assets
        weights = initial_weights(init_from, run, assets, setting.ranks, built.bundle)
    state = resume_or_start(
        run.checkpoints,
        built.model,
        built.optimizer,
        fresh,
        setting.ranks,
        seed=experiment.seed,
        init_from=weights,
    )
    return state, None if state is fresh else state.step


def _train_from(
    state: TrainState, saved_step: int | None, setting: Setting, built: Built, refusals: Refusals
) -> tuple[Exit, str]:
    derived, ranks, experiment = setting.derived, setting.ranks, setting.training.experiment
    dealing = Dealing(experiment.train.micro_batch, derived.grad_accum, ranks.rank, ranks.size)
    with ExitStack() as stack:
        metrics = None
        if ranks.is_first:
            metrics = stack.enter_context(Metrics(setting.run, saved_step, tensorboard=experiment.logging.tensorboard))
        end = last_cursor(built.order, derived)
        stream = batches(
            built.corpus, built.order, dealing, state.cursor, refusals.refused, device=ranks.device, end=end
        )
        parts = Parts(
            derived=derived,
            model=built.model,
            optimizer=built.optimizer,
            batches=stack.enter_context(stream),
            ranks=ranks,
            requests=setting.requests,
            evaluate=evaluating(setting, built.model, built.validation, metrics),
            save=saving(setting, built.model, built.optimizer, state, refusals, metrics),
            refuse=refusals.refuse,
            record=recording(setting, metrics, state.step, stack),
            step=state.step,
            cursor=state.cursor,
            saved_step=saved_step,
            evaluated_step=ranks.from_first(metrics.evaluated_step if metrics else None),
        )
        with no_collection_in_steps():
            request = train(parts)
        setting.attempt.beat("finish", parts.step, now=True)
        if parts.evaluated_step == derived.steps or parts.step > derived.steps:
            # Nothing is left to learn, also when steps were lowered; a request that came too late to matter is moot.
            request = write_samples(setting, built.model, built.validation, built.bundle, parts.step)
            if request is Request.NONE:
                return Exit.OK, f"complete at step {parts.step}"
    at = f"at step {parts.step} of {derived.steps}"
    if request is Request.END:
        return Exit.OK, f"ended on request {at}, saved"
    return Exit.INTERRUPTED, f"interrupted {at}, saved"


def build_sharded(derived: Derived, ranks: Ranks) -> torch.nn.Module:
    """Return the model on its device, sharded, with memory but without values."""
    experiment = derived.experiment
    with torch.device("meta"):
        model = build_model(experiment.model, derived.vocab_size, experiment.train.seq_len_tokens)
    model.loss = LossOptions(experiment.train.z_loss, fused=experiment.train.compile)  # type: ignore[assignment]
    return parallelize(model, experiment.train, ranks.mesh, ranks.device).to_empty(device=ranks.device)


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
