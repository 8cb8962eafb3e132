"""The environment variables that set values of an experiment, for pods and jobs that cannot pass arguments.

Unset is not zero: a variable counts only when it is present and not empty. `RUN_CONFIG` is a path rather than a
value: the experiment file when no argument names one.
"""

from collections.abc import Mapping

RUN_CONFIG = "RUN_CONFIG"

BOOT_VARIABLES = {
    "RUN_EXPERIMENT": "name",
    "RUN_SHARD": "data.shard",
    "SHARD_LINES": "data.documents_per_shard",
}
"""Variable name -> the dotted path that it sets."""


def boot_values(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return path -> (variable, text) for the boot variables that are set."""
    return {path: (name, environ[name]) for name, path in BOOT_VARIABLES.items() if environ.get(name)}
