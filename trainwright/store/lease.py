"""The claim of one process on a folder: one boot writes a run, one sharder writes a corpus.

The holder counts up in `lease.json`. A claimant watches the counter by its own monotonic clock, because clocks of
different machines disagree: a counter that moves is a living holder, one that stands still for `patience_s` is a dead
one. On the same machine a holder whose process is gone is dead at once. A takeover is won by creating the file
`lease.json.N` exclusively, where N is the next generation, so that of several claimants one wins.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from trainwright.spec.exits import MissingError, UserError
from trainwright.store.files import read_json, write_json

BEAT_S = 2.0
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease file says of the process that holds it."""

    id: str
    generation: int
    host: str
    pid: int
    process_start: str
    counter: int
    what: str


class LeaseHeldError(MissingError):
    """Another living process holds the lease."""


class Lease:
    """A held lease; use `acquire`, and `release` or a `with` block."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Stop counting and remove the claim if it is still ours."""
        self._stop.set()
        self._thread.join()
        if holds(self.path, self.holder.id):
            # The claim goes first: who finds a claim without its lease waits for that lease to appear.
            _claim(self.path, self.holder.generation).unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        counter = self.holder.counter
        while not self._stop.wait(BEAT_S):
            counter += 1
            try:
                if not holds(self.path, self.holder.id):
                    return
                _write(self.path, replace(self.holder, counter=counter))
            except OSError:
                # A full or absent disk must not kill the run: claimants are patient, and commits re-read the lease.
                continue


def acquire(
    path: Path,
    what: str,
    *,
    wait: Callable[[str], None] = lambda _: None,
    heed: Callable[[], None] = lambda: None,
    patience_s: float = PATIENCE_S,
) -> Lease:
    """Take the lease at `path`, waiting while its holder may be dead; raise `LeaseHeldError` when it is alive.

    `what` says in a few words what the holder does, for the claimant's message; `wait` is told once why we wait.
    `heed` is called while we do, several times a second: what it raises ends the waiting, with nothing taken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = secrets.token_hex(8)
    dead = _wait_for_death(path, wait, heed, patience_s)
    generation = dead.generation if dead else 0
    while not _take_claim(path, generation, dead):
        # Another claimant was first. If it lives its lease appears; if it died between claim and lease, go past it.
        if _wait_for_lease(path, dead, heed, patience_s):
            dead = _wait_for_death(path, wait, heed, patience_s)
            generation = dead.generation if dead else 0
        else:
            generation += 1
    holder = Holder(identity, generation + 1, socket.gethostname(), os.getpid(), _process_start(os.getpid()), 0, what)
    try:
        _write(path, holder)
    except OSError:
        # A full disk: a claim without its lease would make the next claimant wait in vain.
        _claim(path, generation + 1).unlink(missing_ok=True)
        raise
    _clear_claims_before(path, holder)
    return Lease(path, holder)


def _take_claim(path: Path, generation: int, dead: Holder | None) -> bool:
    """Return whether we may be the next generation: its claim is ours, and the lease still the one judged dead."""
    claim = _claim(path, generation + 1)
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    if read_holder(path) == dead:
        return True
    # We slept while others came and went: the claim that we made had been used and cleared away.
    claim.unlink(missing_ok=True)
    return False


def holds(path: Path, identity: str) -> bool:
    """Return whether the lease at `path` is held by this identity; ranks ask before each commit."""
    holder = read_holder(path)
    return holder is not None and holder.id == identity


def read_holder(path: Path) -> Holder | None:
    """Return what the lease file says, or None when there is none or it cannot be read as one."""
    try:
        return Holder(**read_json(path, max_bytes=1 << 16))
    except (FileNotFoundError, UserError, TypeError):
        return None


def is_live(path: Path, watch_s: float = 3 * BEAT_S) -> bool:
    """Return whether somebody holds the lease now: its process is here, or its counter moves while we watch."""
    holder = read_holder(path)
    if holder is None:
        return False
    alive = _alive_here(holder)
    if alive is not None:
        return alive
    deadline = time.monotonic() + watch_s
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if read_holder(path) != holder:
            return True
    return False


def _wait_for_death(
    path: Path, wait: Callable[[str], None], heed: Callable[[], None], patience_s: float
) -> Holder | None:
    """Return the dead holder (None when there is none); raise when the holder lives."""
    holder = read_holder(path)
    if holder is None:
        return None
    alive = _alive_here(holder)
    who = f"{holder.what} (pid {holder.pid} on {holder.host})"
    if alive:
        raise LeaseHeldError(f"{path}: held by {who}; stop that one first, or choose another name")
    if alive is None:
        wait(f"{path} is held by {who}; watching its counter for {patience_s:.0f} s to see whether it lives")
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            heed()
            time.sleep(min(0.2, patience_s / 4))
            now = read_holder(path)
            if now is None:
                return None
            if now != holder:
                raise LeaseHeldError(f"{path}: held by {who}, whose counter moves; stop that one first")
    return holder


def _wait_for_lease(path: Path, dead: Holder | None, heed: Callable[[], None], patience_s: float) -> bool:
    """Return whether the lease changes within the patience: whoever made the next claim lives, or has been and gone."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if read_holder(path) != dead:
            return True
        heed()
        time.sleep(min(0.2, patience_s / 4))
    return False


def _alive_here(holder: Holder) -> bool | None:
    """Return whether the holder's process lives, or None when it ran on another machine."""
    if holder.host != socket.gethostname():
        return None
    start = _process_start(holder.pid)
    # A container has the host name of its pod but other process ids: an absent pid proves death only where the
    # boot that wrote it could be seen from here, which the kernel's boot id and pid namespace in the stamp say.
    if start.rpartition(":")[0] != holder.process_start.rpartition(":")[0]:
        return None
    return start == holder.process_start


def _process_start(pid: int) -> str:
    """Return a stamp of a process: kernel boot, pid namespace, and start time (empty when there is no such process)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").readlink()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return f"{boot}:{namespace}:"
    fields = stat.rpartition(")")[2].split()
    # Field 22 of stat(5), counted after the parenthesised name; a zombie counts as gone.
    return f"{boot}:{namespace}:{'' if fields[0] == 'Z' else fields[19]}"


def _claim(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation}")


def _clear_claims_before(path: Path, holder: Holder) -> None:
    """Remove the claims of all earlier holders: one that was killed between its lease and this has left its own."""
    for claim in path.parent.glob(f"{path.name}.*"):
        generation = claim.suffix[1:]
        if generation.isdecimal() and int(generation) < holder.generation:
            claim.unlink(missing_ok=True)


def _write(path: Path, holder: Holder) -> None:
    write_json(path, asdict(holder))
