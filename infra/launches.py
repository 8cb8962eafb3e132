"""What was sent where: one record a launch below the root, so that later words find it again."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainwright.spec.exits import UserError
from trainwright.store.files import read_json, write_json


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a run."""

    name: str
    target: str
    id: str
    """What the engine calls it: a process, a container, a job."""
    folder: str
    """The rendered files that were sent."""
    time: float

    @property
    def path(self) -> Path:
        """Return the folder of the rendered files."""
        return Path(self.folder)


@dataclass(frozen=True, slots=True)
class State:
    """What an engine says of a launch."""

    word: str
    live: bool


def launch_folder(root: Path, name: str) -> Path:
    """Return the folder that a run's launch is rendered into."""
    return root / "launch" / name


def record(name: str, target: str, identity: str, folder: Path) -> Launch:
    """Write down a launch."""
    launch = Launch(name, target, identity, str(folder), round(time.time(), 3))
    write_json(folder / "launch.json", asdict(launch))
    return launch


def find_launch(root: Path, name: str) -> Launch | None:
    """Return the newest launch of a run, or None when it was never launched from here."""
    path = launch_folder(root, name) / "launch.json"
    try:
        document: Any = read_json(path)
        return Launch(**document)
    except FileNotFoundError:
        return None
    except TypeError:
        raise UserError(f"{path}: is no launch record; remove that folder") from None


def all_launches(root: Path) -> Iterator[Launch]:
    """Yield every launch recorded below the root, by name."""
    for path in sorted((root / "launch").glob("*/launch.json")):
        launch = find_launch(root, path.parent.name)
        if launch is not None:
            yield launch
