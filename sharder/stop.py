"""The stop request: SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 ends the work at once, with nothing half-written (exit 75).

Everything that is written here is atomic and everything committed is resumed, so stopping needs no saving: the first
signal raises `StopRequest`, and later ones do not disturb the clean-up. A library may swallow the exception,
therefore the long loops also look at the flag.
"""

import signal
from types import FrameType

from trainwright.spec.exits import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest(KeyboardInterrupt):
    """A signal that was heard.

    A class of its own: where the very `KeyboardInterrupt` leaves an `exec`, as of a data class that is being made,
    Python (3.11) notes to end by SIGINT, whoever catches it afterwards.
    """


_requested: list[str] = []
_over: list[bool] = []


def obey_signals() -> None:
    """Install the handler for all four signals; call once, in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def check() -> None:
    """Raise `Interrupted` when a stop was requested."""
    if _requested:
        raise Interrupted(_requested[0])


def over() -> None:
    """Hear no more requests: the work is done or has failed, and only the exit code is left to be given."""
    _over.append(True)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    first = not _requested and not _over
    _requested.append(signal.Signals(number).name)
    if first:
        raise StopRequest(_requested[0])
