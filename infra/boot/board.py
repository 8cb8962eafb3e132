"""TensorBoard beside the ranks: started when asked for, and never able to stop or fail a run."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from infra.rooms import child_environment, room_command
from trainwright.spec.paths import RunFolder

log = logging.getLogger("boot")


@contextmanager
def board(run: RunFolder, port: int | None) -> Iterator[None]:
    """Serve a run's events on this machine's port for the time of the block; None serves nothing.

    Whatever goes wrong with it, such as a port that is taken, stands in `logs/tensorboard.log`.
    """
    child = _start(run, port) if port is not None else None
    try:
        yield
    finally:
        if child is not None and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _start(run: RunFolder, port: int) -> "subprocess.Popen[bytes] | None":
    path = run.logs / "tensorboard.log"
    command = room_command("trainer.board", str(run.tensorboard), str(port))
    try:
        with path.open("ab") as output:
            child = subprocess.Popen(
                command, env=child_environment({}), stdout=output, stderr=output, start_new_session=True
            )
    except OSError as error:
        log.warning("boot: TensorBoard could not be started (%s); training goes on without it", error)
        return None
    log.info("boot: TensorBoard on http://127.0.0.1:%d (its words are in %s)", port, path)
    return child
