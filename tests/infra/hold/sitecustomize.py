"""Holds a rank in one of its phases: Python imports this by itself from PYTHONPATH, and real code runs all around it.

HOLD names what to hold, separated by spaces: `MODULE:FUNCTION:CALL:SECONDS`, where CALL counts from 1. The rank touches
`HOLD_MARKS/entered` when it gets there, and goes on after the seconds, or once `HOLD_MARKS/go` exists, whichever comes
first; `limit` in place of the seconds holds it until its wall-clock limit is near enough to be obeyed.
"""

from collections.abc import Callable, Sequence
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
from pathlib import Path
import sys
import time
from types import ModuleType
from typing import Any

NEAR_LIMIT_S = 19.5


class Hold(importlib.abc.MetaPathFinder):
    """Wraps functions of modules as these are imported."""

    def __init__(self, wanted: list[list[str]]) -> None:
        self.wanted = wanted

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        found = [words for words in self.wanted if words[0] == name]
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if found else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            for _, function, call, seconds in found:
                owner, _, last = function.rpartition(".")
                of: Any = getattr(module, owner) if owner else module
                setattr(of, last, held(getattr(of, last), int(call), seconds))

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def held(function: Callable[..., Any], at_call: int, seconds: str) -> Callable[..., Any]:
    """Return a function that waits before one of its calls."""
    calls = 0

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at_call:
            wait(seconds)
        return function(*arguments, **named)

    return wrapped


def wait(seconds: str) -> None:
    marks = Path(os.environ["HOLD_MARKS"])
    (marks / "entered").touch()
    if seconds == "limit":
        until = float(os.environ["TRAINWRIGHT_DEADLINE"]) - NEAR_LIMIT_S
    else:
        until = time.monotonic() + float(seconds)
    while time.monotonic() < until and not (marks / "go").exists():
        time.sleep(0.05)


if "RANK" in os.environ and "HOLD" in os.environ:
    sys.meta_path.insert(0, Hold([word.split(":") for word in os.environ["HOLD"].split()]))
