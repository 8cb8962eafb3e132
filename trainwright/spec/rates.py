"""Which learning rate a run has, and why: its own, or that of its family's scaling rule."""

from trainwright.spec.experiment import Experiment
from trainwright.spec.optimizers import Adana, Muon
from trainwright.spec.scaling import FITTED_SEQ_LEN, MuonRates, Ruled, depth_muon_rates, fitted_learning_rate

GIVEN = "given: optimizer.lr"


def matrix_weights(experiment: Experiment) -> int:
    """Return the weights that tokens are multiplied by: the matrices of the blocks and the output."""
    return experiment.model.matrix_parameters(experiment.tokenizer.max_vocab_size)


def block_weights(experiment: Experiment) -> int:
    """Return the weights in the matrices of the blocks, by which the fits of learning rates go."""
    model = experiment.model
    return matrix_weights(experiment) - model.padded_vocab_size(experiment.tokenizer.max_vocab_size) * model.dim


def peak_rate(experiment: Experiment, batch_sequences: int) -> Ruled | None:
    """Return the peak learning rate; None where none is given and no rule knows this model with this optimizer."""
    optimizer = experiment.optimizer
    if optimizer.lr is not None:
        return Ruled(optimizer.lr, GIVEN)
    if rates := _depth_rates(experiment, batch_sequences):
        return Ruled(rates[0].matrices, rates[1])
    kappa = optimizer.kappa if isinstance(optimizer, Adana) else None
    batch = batch_sequences * experiment.train.seq_len_tokens / FITTED_SEQ_LEN
    return fitted_learning_rate(experiment.model.kind, _fitted_as(experiment), kappa, batch, block_weights(experiment))


def muon_rates(experiment: Experiment, batch_sequences: int) -> MuonRates | None:
    """Return the peak rates of Muon's kinds of parameters; None for other optimizers."""
    optimizer = experiment.optimizer
    peak = peak_rate(experiment, batch_sequences)
    if not isinstance(optimizer, Muon) or peak is None:
        return None
    by_depth = _depth_rates(experiment, batch_sequences) if optimizer.lr is None else None
    base = by_depth[0] if by_depth else MuonRates(peak.value, peak.value, peak.value, peak.value)
    return MuonRates(
        base.matrices,
        optimizer.embedding_lr or base.embedding,
        optimizer.output_lr or base.output,
        optimizer.rest_lr or base.rest,
    )


def _depth_rates(experiment: Experiment, batch_sequences: int) -> tuple[MuonRates, str] | None:
    optimizer = experiment.optimizer
    family: str = experiment.model.kind
    if family != "nanochat" or not isinstance(optimizer, Muon) or optimizer.scale != "spectral":
        return None
    return depth_muon_rates(experiment.model.dim, batch_sequences * experiment.train.seq_len_tokens)


def _fitted_as(experiment: Experiment) -> str:
    """Return the name under which the fits know an optimizer with its kind of decay."""
    optimizer = experiment.optimizer
    if optimizer.kind == "adamw" and optimizer.decay == "log_time":
        return "adamw-log-time"
    return optimizer.kind
