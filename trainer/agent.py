"""torchrun as boot uses it: the same arguments, launched by torchrun's own code, without its tracebacks.

`python -m trainer.agent --nproc-per-node 2 ... -m trainer RUN/training.yaml`. A rank that fails has said why, in words
and in its end record; torchrun's summary of it would bury that sentence. The agent dies with boot, its ranks with it.

Some engines send a signal to every process of a job (SLURM does). torchrun would give its ranks 30 s after SIGTERM, and
die at once of SIGUSR1; boot has heard the signal too and asks the ranks itself, so the agent hears none.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from trainwright.early import obey_until_heard


def main(argv: Sequence[str] | None = None) -> int:
    """Start the ranks and wait for them; return 0 when all ended with 0, else 1."""
    from trainwright.spec.exits import Exit
    from trainwright.spec.variables import PARENT_VARIABLE
    from trainwright.store.process import die_with_boot

    die_with_boot()
    words = list(sys.argv[1:] if argv is None else argv)
    if PARENT_VARIABLE in os.environ:
        words = [*_leave_signals_to_boot(), *words]
    # From here on this is the parent whose death the ranks wait for.
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        run(parse_args(words))  # type: ignore[no-untyped-call]
    except (ChildFailedError, SignalException):
        return Exit.FAILED
    return Exit.OK


def _leave_signals_to_boot() -> list[str]:
    """Ignore what asks a run to stop; return torchrun's arguments that keep it from listening again."""
    # Ranks inherit this until they listen for themselves, so that they do not die of it while they import.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # It takes no empty list.
    return ["--signals-to-handle", "SIGQUIT"]


if __name__ == "__main__":
    # Some seconds pass until the signals are left to boot; nothing has begun by then.
    obey_until_heard("agent")
    sys.exit(main())
