"""Validation by all ranks: mean loss, and bits per byte, which compares models across tokenizers.

Bits per byte = sum of nats over targets that stand for bytes / (ln 2 x those bytes); special tokens stand for none and
are left out of both sums. The samples are the first of the validation shards in file order, whatever the ranks.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.ranks import Ranks
from trainer.requests import Request, Requests
from trainwright.spec.training import Train
from trainwright.tokens.shards import IGNORED, TokenCorpus


@dataclass(frozen=True, slots=True)
class Score:
    """One evaluation."""

    loss: float
    bits_per_byte: float
    num_tokens: int
    seconds: float

    def row(self, step: int) -> dict[str, float]:
        """Return the row of metrics.jsonl."""
        return {
            "step": step,
            "eval_loss": self.loss,
            "bits_per_byte": self.bits_per_byte,
            "eval_tokens": self.num_tokens,
            "eval_seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Validation:
    """What is scored: a corpus, how much of it, and the bytes that each token stands for, shape (vocabulary,)."""

    corpus: TokenCorpus
    token_bytes: Tensor
    max_tokens: int

    def samples(self, seq_len_tokens: int) -> int:
        """Return how many samples are scored: all that fit max_tokens, at least one."""
        available = -(-(self.corpus.manifest.num_tokens - 1) // seq_len_tokens)
        return min(available, max(1, self.max_tokens // seq_len_tokens))


@torch.no_grad()
def evaluate(
    model: nn.Module, validation: Validation, train: Train, ranks: Ranks, requests: Requests
) -> Score | Request:
    """Score a model by all ranks together; return the request instead when one comes in between."""
    started = time.monotonic()
    num_samples = validation.samples(train.seq_len_tokens)
    totals = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    pass_size = train.micro_batch * ranks.size
    model.eval()
    # Every rank makes the same number of passes, with samples or without, because each pass gathers weights.
    for start in range(0, num_samples, pass_size):
        first = start + ranks.rank * train.micro_batch
        totals += _score(model, validation, train, ranks, np.arange(first, first + train.micro_batch), num_samples)
        seen = requests.look()
        votes = ranks.sum(torch.tensor([float(seen == kind) for kind in Request], device=ranks.device))
        asked = max((kind for kind in Request if votes[kind] > 0), default=Request.NONE)
        if asked is not Request.NONE:
            model.train()
            return asked
    model.train()
    nats, targets, byte_nats, num_bytes = ranks.sum(totals).tolist()
    bits = byte_nats / (math.log(2) * num_bytes) if num_bytes else 0.0
    return Score(nats / targets, bits, int(targets), time.monotonic() - started)


def _score(
    model: nn.Module,
    validation: Validation,
    train: Train,
    ranks: Ranks,
    samples: np.ndarray[tuple[int], np.dtype[np.int64]],
    num_samples: int,
) -> Tensor:
    """Return nats, targets, nats of targets with bytes, and bytes of this rank's samples, as fp64."""
    inputs, targets = validation.corpus.pairs(samples[samples < num_samples], train.seq_len_tokens)
    missing = len(samples) - len(inputs)
    tokens = torch.from_numpy(np.pad(inputs, ((0, missing), (0, 0)))).to(ranks.device)
    wanted = torch.from_numpy(np.pad(targets, ((0, missing), (0, 0)), constant_values=IGNORED)).to(ranks.device)
    losses = model(tokens, wanted, each_token=True).double()
    lengths = validation.token_bytes[wanted.clamp(min=0)] * (wanted != IGNORED)
    parts = losses.sum(), (wanted != IGNORED).sum(), losses[lengths > 0].sum(), lengths.sum()
    return torch.stack([part.double() for part in parts])
