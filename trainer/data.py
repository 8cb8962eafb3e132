"""Batches: the computed order of samples, cut for one rank.

Global sample `cursor` is a position in the endless order of epochs. A step takes the next `global_batch` of them and
deals them to accumulation passes, then ranks, then rows; other ranks or passes deal the same samples differently. The
state is the cursor, and resuming is setting it. Batches that were refused are passed over wherever they come up again.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainwright.spec.derived import Derived
from trainwright.tokens.order import SampleOrder
from trainwright.tokens.shards import TokenCorpus


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of one optimizer step: a pair (inputs, targets) of shape (micro_batch, T) for each pass."""

    passes: tuple[tuple[Tensor, Tensor], ...]
    num_targets: int
    """Targets of the whole global batch, over all ranks."""
    cursor: int
    """The first global sample of this batch."""
    next_cursor: int
    """The global sample after it."""


@dataclass(frozen=True, slots=True)
class Dealing:
    """How a global batch is cut: sequences of one pass, and which rank of how many takes which part of it."""

    micro_batch: int
    grad_accum: int
    rank: int
    ranks: int

    def rows(self, cursor: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Return this rank's global cursors, shape (grad_accum, micro_batch)."""
        pass_size = self.micro_batch * self.ranks
        starts = cursor + np.arange(self.grad_accum) * pass_size + self.rank * self.micro_batch
        return (starts[:, None] + np.arange(self.micro_batch)[None, :]).astype(np.int64)


def open_corpus(folder: Path, derived: Derived) -> tuple[TokenCorpus, SampleOrder]:
    """Return a folder's corpus and the order in which this experiment visits its samples."""
    experiment = derived.experiment
    corpus = TokenCorpus(folder)
    group_tokens = experiment.data.shuffle_group_tokens
    order = SampleOrder(corpus.shard_tokens, experiment.train.seq_len_tokens, experiment.seed, group_tokens)
    return corpus, order


@contextmanager
def batches(
    corpus: TokenCorpus, order: SampleOrder, dealing: Dealing, cursor: int, refused: Collection[int] = ()
) -> Iterator[Iterator[Batch]]:
    """Yield one rank's endless batches from a global cursor on; the next one is read while this one computes.

    `refused` are the cursors of batches to pass over. The numbers of a batch are the same on every rank.
    """
    global_batch = dealing.micro_batch * dealing.grad_accum * dealing.ranks

    def read(start: int) -> Batch:
        everyone = order.samples(np.arange(start, start + global_batch, dtype=np.int64))
        mine = order.samples(dealing.rows(start).ravel()).reshape(dealing.grad_accum, dealing.micro_batch)
        windows = [corpus.windows(row, order.seq_len_tokens) for row in mine]
        passes = tuple((torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in windows)
        return Batch(passes, corpus.num_targets(everyone, order.seq_len_tokens), start, start + global_batch)

    def following(start: int) -> int:
        while start in refused:
            start += global_batch
        return start

    def read_ahead(reader: ThreadPoolExecutor) -> Iterator[Batch]:
        ahead: Future[Batch] = reader.submit(read, following(cursor))
        while True:
            batch = ahead.result()
            ahead = reader.submit(read, following(batch.next_cursor))
            yield batch

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as reader:
        yield read_ahead(reader)
