"""What was sent where: one record a launch below the root, so that later words find it again."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from trainwright.spec.exits import UserError
from trainwright.store.files import read_json, write_json

RECORD = "launch.json"


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
    run: str = ""
    """The run folder, where this machine sees it; empty where only the target does, and for a sweep."""

    @property
    def path(self) -> Path:
        """Return the folder of the rendered files."""
        return Path(self.folder)

    @property
    def record(self) -> Path:
        """Return the file that says all this."""
        return self.path / RECORD


@dataclass(frozen=True, slots=True)
class State:
    """What an engine says of a launch."""

    word: str
    live: bool


def launch_folder(root: Path, name: str) -> Path:
    """Return the folder that a run's launch is rendered into."""
    return root / "launch" / name


def record(name: str, target: str, identity: str, folder: Path, run: str = "") -> Launch:
    """Write down a launch."""
    launch = Launch(name, target, identity, str(folder), round(time.time(), 3), run)
    write_json(launch.record, asdict(launch))
    return launch


def find_launch(root: Path, name: str) -> Launch | None:
    """Return the newest launch of a run, or None when it was never launched from here."""
    path = launch_folder(root, name) / RECORD
    try:
        launch = Launch(**read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UserError, TypeError):
        launch = None
    texts = (launch.name, launch.target, launch.id, launch.folder, launch.run) if launch is not None else ()
    if launch is None or launch.name != name or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: is no launch record; remove that folder")
    return launch


def launched(root: Path) -> list[str]:
    """Return the names of all runs with a launch record below the root; what a record says may still be unreadable."""
    return sorted(path.parent.name for path in (root / "launch").glob(f"*/{RECORD}"))
