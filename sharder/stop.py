"""The stop request: SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 ends the work at once, with nothing half-written (exit 75).

Everything that is written here is atomic and everything committed is resumed, so stopping needs no saving: the first
signal raises `KeyboardInterrupt`, and later ones do not disturb the clean-up. A library may swallow the exception,
therefore the long loops also look at the flag.
"""

import signal
from types import FrameType

from trainwright.spec.exits import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

_requested: list[str] = []


def obey_signals() -> None:
    """Install the handler for all four signals; call once, in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def check() -> None:
    """Raise `Interrupted` when a stop was requested."""
    if _requested:
        raise Interrupted(_requested[0])


def _on_signal(number: int, _frame: FrameType | None) -> None:
    first = not _requested
    _requested.append(signal.Signals(number).name)
    if first:
        raise KeyboardInterrupt(_requested[0])
