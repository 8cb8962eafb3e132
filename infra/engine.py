"""How this machine's own programs are called: docker, kubectl, sbatch. Tests give a recorder instead."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from trainwright.spec.exits import MissingError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs commands with this installation first on the path; values of secrets go in `environ`, never in words."""

    environ: Mapping[str, str] = field(default_factory=dict)

    def given(self, environ: Mapping[str, str]) -> Self:
        """Return this engine with more variables."""
        return replace(self, environ={**self.environ, **environ})

    def ask(self, *command: str) -> Answer:
        """Run a command and return what it said; a question that it asks is answered by the end of its input."""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                env=self._environ(),
            )
        except FileNotFoundError:
            raise MissingError(f"{command[0]}: not found on this machine; install it, or add it to PATH") from None
        return Answer(done.returncode, done.stdout, done.stderr)

    def show(self, *command: str) -> int:
        """Run a command at the terminal, such as one that follows a log; return its exit code."""
        try:
            return subprocess.run(command, check=False, env=self._environ()).returncode
        except FileNotFoundError:
            raise MissingError(f"{command[0]}: not found on this machine; install it, or add it to PATH") from None
        except KeyboardInterrupt:
            return 0

    def detach(self, log: Path, *command: str) -> int:
        """Start a command that outlives this one, its output appended to a log; return its process id."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environ(),
                start_new_session=True,
            )
        child.returncode = 0  # it is left to itself: Python would warn of a process that nobody waits for
        return child.pid

    def has(self, program: str) -> bool:
        """Return whether a program is on the path."""
        import shutil

        return shutil.which(program, path=self._environ()["PATH"]) is not None

    def _environ(self) -> dict[str, str]:
        here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, "PATH": here, **self.environ}
