"""What the fixtures of `conftest.py` hand to tests: runs that were booted stage by stage, or disturbed on their way."""

from dataclasses import dataclass

from tiny_boot import Done, Place


@dataclass(frozen=True)
class Staged:
    """A run of one rank that was booted up to each stage in turn."""

    place: Place
    done: dict[str, Done]
    records: dict[str, set[str]]
    """Which stages had a record after boot had gone until this one."""


@dataclass(frozen=True)
class Told:
    """One attempt of a run that was disturbed: when, how it ended, and what it left."""

    what: str
    at: int
    """The last finished step when it happened."""
    done: Done
    saved: list[int]
    seconds: float
    """From the disturbance to the end of boot."""


@dataclass(frozen=True)
class Disturbed:
    """A run of two ranks that was disturbed again and again, and then left to finish."""

    place: Place
    told: dict[str, Told]
    last: Done
