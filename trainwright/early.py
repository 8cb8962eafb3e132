"""Requests at the two ends of a process: before it can hear any, and when only its exit code is left to be given.

Imports nothing that takes time: a program calls `obey_until_heard` before its own imports, which take up to seconds.
"""

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
INTERRUPTED = 75
"""As in `trainwright.spec.exits`, which takes longer to import than this may."""


def obey_until_heard(program: str) -> None:
    """End this process with 75 when it is asked to stop, as long as nobody else listens: nothing has begun.

    Python's own answer to Ctrl-C would be a traceback out of whatever is being imported, and that of the system to the
    other signals another code. What the parent left ignored stays so.
    """

    def leave(_number: int, _frame: FrameType | None) -> None:
        os.write(2, f"{program}: interrupted before it began\n".encode())
        os._exit(INTERRUPTED)

    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, leave)


def hear_no_more() -> None:
    """Ignore every further request: it is too late for all of them, and the exit code stands."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
