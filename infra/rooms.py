"""How one room starts another: as a command, through this function and no other way."""

import os
import sys
from collections.abc import Mapping, Sequence

from trainwright.spec.variables import PARENT_VARIABLE


def room_command(room: str, *arguments: str) -> list[str]:
    """Return the command that runs a room (`sharder`, `trainer.agent`, `report`, `infra.boot`) in this Python."""
    return [sys.executable, "-m", room, *arguments]


def become(room: str, arguments: Sequence[str]) -> None:
    """Replace this process by a room, so that signals and the exit code are the room's own."""
    command = room_command(room, *arguments)
    os.execv(command[0], command)  # noqa: S606 - an argument list, no shell


def child_environment(extra: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a room that this process starts and that must die with it.

    What a site presets for another launcher (`WORLD_SIZE` without `RANK`, say) is left out: torchrun sets its own.
    """
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
    kept = {key: value for key, value in environ.items() if key not in launcher and not key.startswith("PET_")}
    return {**kept, PARENT_VARIABLE: str(os.getpid()), **extra}
