"""Working through the pieces of a plan: in this process or in several, as one part or as one of many."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from sharder.plan import LEASE, Part, Piece
from sharder.progress import Progress
from sharder.publish import Ledger
from sharder.slices import Job, Limit, Slice, write_piece
from sharder.sources.ahead import fetched
from sharder.workers import num_workers, spread
from trainwright.spec.data import STREAMED_DOCUMENTS
from trainwright.store.lease import acquire

FETCHED_BEYOND_WORKERS = 2

log = logging.getLogger(__name__)

Task = tuple[Piece, Limit]
Tally = tuple[int, int]
"""Documents and bytes of text."""


def ingest(ledger: Ledger, part: Part, limit: Limit, asked_workers: int, after: Callable[[], None]) -> Progress:
    """Write every slice of this part's pieces; `after` is called when a piece is done. Return the progress."""
    job = ledger.job
    own = [piece for piece in job.plan.pieces if part.owns(piece)]
    todo = [piece for piece in own if not _is_done(ledger, piece)]
    processes = min(num_workers(asked_workers, sum(piece.num_bytes for piece in todo)), len(todo))
    if limit.documents is not None and limit.documents <= STREAMED_DOCUMENTS:
        # The first piece will do; others would be read in vain.
        processes = 1
    with Progress("shard") as progress:
        documents = 0

        def seen(tally: Tally) -> None:
            nonlocal documents
            documents += tally[0]
            progress.add(tally[1], documents=documents)

        wanted = (piece for piece in todo if ledger.left(limit, piece).refusal(1, 1) is None)
        near = fetched(wanted, partial(_fetch, job), processes + FETCHED_BEYOND_WORKERS)
        tasks = _tasks(ledger, near, limit)
        if processes <= 1:
            for piece, left in tasks:
                _work(job, piece, left, lambda one: seen((one.documents, one.text_bytes)))
                after()
            return progress
        with closing(spread(partial(_in_worker, job), tasks, processes, lambda: progress.add(0))) as done:
            for _, tally in done:
                seen(tally)
                after()
    return progress


def _is_done(ledger: Ledger, piece: Piece) -> bool:
    slices = ledger.slices(piece)
    return bool(slices) and slices[-1].last


def _tasks(ledger: Ledger, pieces: Iterator[Piece], limit: Limit) -> Iterator[Task]:
    """Yield pieces with what is left of the limit by now, until nothing is."""
    for piece in pieces:
        left = ledger.left(limit, piece)
        if left.refusal(1, 1) is None:
            yield piece, left


def _fetch(job: Job, piece: Piece) -> None:
    for file in piece.files:
        job.corpora[piece.corpus].fetch(file, job.temporary)


def _work(job: Job, piece: Piece, limit: Limit, seen: Callable[[Slice], None]) -> None:
    with acquire(job.folder(piece) / LEASE, f"sharding piece {piece.index}", wait=_say):
        write_piece(job, piece, limit, seen)


def _in_worker(job: Job, task: Task) -> Tally:
    made: list[Slice] = []
    _work(job, *task, made.append)
    return sum(one.documents for one in made), sum(one.text_bytes for one in made)


def _say(why: str) -> None:
    log.info("stage=shard waiting: %s", why)
