"""The environment variables that set values of an experiment, for pods and jobs that cannot pass arguments.

Unset is not zero: a variable counts only when it is present and not empty. `RUN_CONFIG` is a path rather than a
value: the experiment file when no argument names one.
"""

from collections.abc import Mapping

RUN_CONFIG = "RUN_CONFIG"
RUN_CONFIG_TEXT = "RUN_CONFIG_TEXT"
"""The experiment itself, for pods, which are given no file; an argument and `RUN_CONFIG` go before it."""

MAX_HOURS_VARIABLE = "TRAINWRIGHT_MAX_HOURS"
"""The hours that a run may take in all its attempts; a target sets it, and boot saves and ends the run."""

# What boot tells the rooms that it starts; users set only the first.
STOP_FILE_VARIABLE = "TRAINWRIGHT_STOP_FILE"
"""When this file appears the attempt saves and stops; a target may put it into its own scratch folder."""
ATTEMPT_VARIABLE = "TRAINWRIGHT_ATTEMPT"
"""The attempt's folder, for end records and signs of life."""
LEASE_VARIABLE = "TRAINWRIGHT_LEASE"
"""The lease that must be held for a checkpoint to be committed."""
DEADLINE_VARIABLE = "TRAINWRIGHT_DEADLINE"
"""The machine's monotonic clock when it is taken away; one clock serves all processes of a machine."""
PARENT_VARIABLE = "TRAINWRIGHT_PARENT"
"""The process that a room was started by and dies with."""

BOOT_VARIABLES = {
    "RUN_EXPERIMENT": "name",
    "RUN_SHARD": "data.shard",
    "SHARD_LINES": "data.documents_per_shard",
}
"""Variable name -> the dotted path that it sets."""


def boot_values(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return path -> (variable, text) for the boot variables that are set."""
    return {path: (name, environ[name]) for name, path in BOOT_VARIABLES.items() if environ.get(name)}
