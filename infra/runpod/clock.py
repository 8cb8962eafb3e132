"""Time, as the client sees it; tests give one that the fake server shares."""

import time


class Clock:
    """The machine's own time."""

    def now(self) -> float:
        """Return the seconds since 1970."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)
