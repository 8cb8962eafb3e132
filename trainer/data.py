"""Batches: the computed order of samples, cut for one rank.

Global sample `cursor` is a position in the endless order of epochs. A step takes the next `global_batch` of them and
deals them to accumulation passes, then ranks, then rows; other ranks or passes deal the same samples differently. The
state is the cursor, and resuming is setting it. Batches that were refused are passed over wherever they come up again.

Tokens stay as narrow as on disk until they are on the device. A thread reads ahead, into pinned memory for a GPU.
"""

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.tokens.order import Indices, SampleOrder
from trainwright.tokens.shards import IGNORED, TokenCorpus

AHEAD = 3
"""Batches that are read before they are asked for."""
ORDERED_AT_ONCE = 4096
"""Samples whose places in the corpus are computed together: numpy takes longer to begin than to work."""
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of one optimizer step."""

    windows: Tensor
    """Tokens, shape (passes, micro_batch, T + 1); signed integers of two or four bytes, whose bits are unsigned."""
    filled: Tensor | None
    """The targets in each window, shape (passes, micro_batch); None when no window is padded."""
    num_targets: int
    """Targets of the whole global batch, over all ranks."""
    cursor: int
    """The first global sample of this batch."""
    next_cursor: int
    """The global sample after it."""
    epoch: float = 0.0
    """How often the corpus has been read by the end of this batch."""

    def on(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets of each pass on a device, int64 of shape (micro_batch, T)."""
        mask = (1 << 8 * self.windows.element_size()) - 1
        for index, narrow in enumerate(self.windows):
            tokens = narrow.to(device, non_blocking=True).to(torch.int64) & mask
            inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
            if self.filled is not None:
                ends = self.filled[index].to(device)[:, None]
                padding = torch.arange(inputs.shape[1], device=device)[None, :] >= ends
                inputs, targets = inputs.masked_fill(padding, 0), targets.masked_fill(padding, IGNORED)
            yield inputs, targets

    @property
    def passes(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return every pass on the CPU."""
        return tuple(self.on(CPU))


@dataclass(frozen=True, slots=True)
class Dealing:
    """How a global batch is cut: sequences of one pass, and which rank of how many takes which part of it."""

    micro_batch: int
    grad_accum: int
    rank: int
    ranks: int

    @property
    def global_batch(self) -> int:
        """Return the sequences of one step, over all ranks."""
        return self.micro_batch * self.grad_accum * self.ranks

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


def last_cursor(order: SampleOrder, derived: Derived) -> int | None:
    """Return the cursor at which `data.max_epochs` ends; raise `UserError` when the run's steps go beyond it."""
    epochs = derived.experiment.data.max_epochs
    if epochs is None:
        return None
    batch, available = derived.global_batch_sequences, epochs * order.num_samples
    if derived.steps * batch > available:
        what = f"{derived.steps} steps read {derived.steps * batch} samples, and the corpus has {order.num_samples}"
        way = f"train {available // batch} steps, add text, or raise data.max_epochs (null repeats without end)"
        raise UserError(f"data.max_epochs={epochs}: {what}; {way}")
    return available


@contextmanager
def batches(
    corpus: TokenCorpus,
    order: SampleOrder,
    dealing: Dealing,
    cursor: int,
    refused: Collection[int] = (),
    *,
    device: torch.device = CPU,
    end: int | None = None,
) -> Iterator[Iterator[Batch]]:
    """Yield one rank's endless batches from a global cursor on; the next ones are read while this one computes.

    `refused` are the cursors of batches to pass over. The numbers of a batch are the same on every rank. Nothing is
    read beyond the cursor `end`: there `UserError` is raised. `device` is where the batches will go.
    """
    reader = _BatchReader(corpus, order, dealing, device, end)

    def following(start: int) -> int:
        while start in refused:
            start += dealing.global_batch
        return start

    def read_ahead(thread: ThreadPoolExecutor) -> Iterator[Batch]:
        ahead: deque[Future[Batch]] = deque()
        start = cursor
        while True:
            while len(ahead) <= AHEAD:
                start = following(start)
                ahead.append(thread.submit(reader.read, start))
                start += dealing.global_batch
            yield ahead.popleft().result()

    with ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=reader.begin) as thread:
        try:
            yield read_ahead(thread)
        finally:
            thread.shutdown(cancel_futures=True)


class _BatchReader:
    """Reads one rank's batches in the reader's thread."""

    def __init__(
        self, corpus: TokenCorpus, order: SampleOrder, dealing: Dealing, device: torch.device, end: int | None
    ) -> None:
        self._corpus, self._order, self._dealing, self._device, self._end = corpus, order, dealing, device, end
        self._samples: dict[int, Indices] = {}

    def begin(self) -> None:
        """Pin memory by this rank's device, not by the first one."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def read(self, start: int) -> Batch:
        """Return the batch that begins at a cursor."""
        stop = start + self._dealing.global_batch
        if self._end is not None and stop > self._end:
            what = f"the batch of samples {start} to {stop} lies beyond the last epoch that data.max_epochs allows"
            raise UserError(f"{self._corpus.folder}: {what}; batches were refused on the way; raise data.max_epochs")
        shape = (self._dealing.grad_accum, self._dealing.micro_batch, self._order.seq_len_tokens + 1)
        narrow = np.dtype(f"i{self._corpus.dtype.itemsize}")
        dtype = torch.int16 if narrow.itemsize == 2 else torch.int32
        windows = torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")
        rows = windows.numpy().view(self._corpus.dtype).reshape(-1, shape[2])
        filled = self._corpus.windows(self._samples_at(start), rows)
        whole = bool((filled == self._order.seq_len_tokens).all())
        counted = None if whole else torch.from_numpy(filled.reshape(shape[:2]))
        num_targets = self._order.num_targets(start, stop)
        return Batch(windows, counted, num_targets, start, stop, stop / self._order.num_samples)

    def _samples_at(self, start: int) -> Indices:
        """Return this rank's samples of a batch, computed for many batches at once."""
        if start not in self._samples:
            size = self._dealing.global_batch
            count = max(1, ORDERED_AT_ONCE // (self._dealing.micro_batch * self._dealing.grad_accum))
            starts = [start + index * size for index in range(count)]
            rows = np.stack([self._dealing.rows(each).ravel() for each in starts])
            self._samples = dict(zip(starts, self._order.samples(rows.ravel()).reshape(rows.shape), strict=True))
        return self._samples[start]
