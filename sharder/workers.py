"""Processes that do the work of a stage, so that the main one stays free to hear a stop request.

They are started anew rather than forked (threads and locks of libraries do not survive a fork), never hear the
terminal's signals, and die with this process however it dies. Each has a pipe of its own: a worker that is killed shows
as the end of its pipe at once, which the pools of the standard library miss in a race (seen with Python 3.11).
"""

import multiprocessing
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
import os
import signal
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from sharder.stop import SIGNALS, check
from trainwright.store.process import die_with_parent

LOOK_EVERY_S = 0.5
BYTES_WORTH_A_PROCESS = 16 << 20
"""Less text than this is worked through sooner than a process starts."""

KILLED = "a worker process was killed, most often for want of memory: lower data.workers or data.documents_per_shard"

Task = TypeVar("Task")
Result = TypeVar("Result")


def num_workers(asked: int, text_bytes: int) -> int:
    """Return how many processes `data.workers` means: 0 is one for each processor, while there is text for them."""
    return asked or min(len(os.sched_getaffinity(0)), 1 + text_bytes // BYTES_WORTH_A_PROCESS)


def spread(
    function: Callable[[Task], Result], tasks: Iterable[Task], num_processes: int, tick: Callable[[], None]
) -> Generator[tuple[int, Result]]:
    """Yield the index and result of each task as it is done, calling `tick` meanwhile.

    What a task raises is raised here. Close the generator (`contextlib.closing`): however it ends, all workers are
    killed. `function` and tasks must be picklable.
    """
    workers: dict[Connection, _Worker] = {}
    todo = iter(enumerate(tasks))
    try:
        for index, task in todo:
            worker = _Worker(function)
            workers[worker.pipe] = worker
            worker.give(index, task)
            if len(workers) == num_processes:
                break
        while busy := [pipe for pipe, worker in workers.items() if worker.index is not None]:
            ready = wait(busy, timeout=LOOK_EVERY_S)
            check()
            tick()
            for pipe in ready:
                assert isinstance(pipe, Connection)
                done, result = workers[pipe].take()
                workers[pipe].give(*next(todo, (None, None)))
                yield done, result
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """One process, its pipe, and the index of the task that it works on."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.index: int | None = None
        self._process = context.Process(target=_serve, args=(theirs, function, os.getpid()), daemon=True)
        # Started by the first process otherwise, and its start takes SIGINT and SIGTERM out of the mask again.
        resource_tracker.ensure_running()
        # The process inherits the mask: signals to the whole group of the terminal do not reach it.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()

    def give(self, index: int | None, task: object) -> None:
        self.index = index
        if index is None:
            return
        try:
            self.pipe.send(task)
        except ConnectionError:
            raise OSError(KILLED) from None

    def take(self) -> tuple[int, Any]:
        assert self.index is not None
        try:
            result, error = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise OSError(KILLED) from None
        if error is not None:
            raise error
        return self.index, result

    def end(self) -> None:
        # Killed, not asked: other signals are masked, and what a worker writes is atomic.
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection, function: Callable[[Any], Any], parent: int) -> None:
    die_with_parent(parent)
    while True:
        task = pipe.recv()
        try:
            answer: tuple[Any, Exception | None] = (function(task), None)
        except Exception as error:
            # Whatever it is, the parent raises it.
            answer = (None, error)
        pipe.send(answer)
