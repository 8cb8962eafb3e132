"""Real disks of a few hundred KiB that a test can fill: a tmpfs, which the kernel lets only root mount."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import errno
import os
from pathlib import Path
import subprocess


class MountRefusedError(Exception):
    """This machine lets us mount nothing."""


@dataclass(frozen=True)
class SmallDisk:
    """A mounted disk, and the file that fills it."""

    path: Path

    @property
    def _filler(self) -> Path:
        return self.path / ".filler"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_kib: int = 0) -> None:
        """Leave so much room, by a file that takes the rest."""
        self.free()
        with self._filler.open("wb", buffering=0) as file:
            try:
                while (more := self.free_bytes - (leave_kib << 10)) > 0:
                    file.write(bytes(min(more, 1 << 20)))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path, kib: int) -> Iterator[SmallDisk]:
    """Mount a disk over a folder, and unmount it whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "trainwright-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MountRefusedError(f"no small disk can be mounted: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that a failed test left behind must not keep the mount.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
