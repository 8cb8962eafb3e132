"""Exit codes, and the errors that carry them.

Schedulers act on the code alone, so every process of this project ends with one of these. A `UserError` is what a
user can cause: its text is one sentence with path, value and way out, and `main` functions print it without a
traceback.
"""

import errno
import sys
from collections.abc import Callable
from enum import IntEnum


class Exit(IntEnum):
    """Process exit codes, the same on every target."""

    OK = 0
    """Complete, or ended on request."""
    FAILED = 1
    """A failure that nobody foresaw; counted against the failure budget."""
    MISSING = 69
    """Something outside is missing: an asset, a secret, a GPU, the lease of a run."""
    INTERRUPTED = 75
    """Interrupted and saved; run the same command again."""
    REFUSED = 78
    """Configuration or data is wrong; running again changes nothing."""


class UserError(ValueError):
    """Something a user can cause and mend; ends the process with `REFUSED`."""

    exit = Exit.REFUSED


class MissingError(UserError):
    """Something outside this process is absent; ends the process with `MISSING`."""

    exit = Exit.MISSING


class Interrupted(Exception):  # noqa: N818 - a request that was obeyed, not an error
    """Work stopped on request with everything saved; ends the process with `INTERRUPTED`."""


def guarded(program: str, main: Callable[[], int]) -> int:
    """Run `main` and turn what a user can cause into one line on stderr and an exit code."""
    try:
        return main()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"{program}: interrupted{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        return Exit.INTERRUPTED
    except OSError as error:
        # Disks fill and permissions differ: facts of the machine, which deserve a sentence rather than a traceback.
        print(f"{program}: {describe_os_error(error)}", file=sys.stderr)
        return Exit.FAILED


def describe_os_error(error: OSError) -> str:
    """Return one sentence for an operating-system error: the file if there is one, and the way out of a full disk."""
    where = f"{error.filename}: " if error.filename else ""
    way = "; free some space, then run the same command again" if is_full_disk(error) else ""
    return f"{where}{error.strerror or error}{way}"


def is_full_disk(error: OSError) -> bool:
    """Return whether an error says that a disk, or what one user may have of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
