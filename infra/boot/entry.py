"""`docker/entrypoint.sh` runs this: makes the container a place to work in, then runs one word of `trainwright`."""

import os
import sys
from collections.abc import Sequence

from trainwright.early import hear_no_more, obey_until_heard


def main(argv: Sequence[str]) -> int:
    """Run one word; `boot` in this very process, so that its first line comes one interpreter sooner."""
    from infra.boot.__main__ import main as boot
    from infra.boot.environment import person, scratch
    from infra.boot.pod import in_pod
    from infra.boot.sshd import start
    from infra.rooms import become

    os.environ.update(person(os.environ, os.getuid()))
    print(start(os.environ, scratch(), os.getuid()), file=sys.stderr, flush=True)  # noqa: T201 - the one line it says
    if argv[:1] == ["boot"]:
        return in_pod(boot, argv[1:])
    become("infra", argv)
    raise AssertionError


if __name__ == "__main__":
    # Before all that takes time to import; boot's `Interrupts` hears from then on.
    obey_until_heard("trainwright")
    from trainwright.spec.exits import guarded

    exit_code = guarded("trainwright", lambda: main(sys.argv[1:]))
    hear_no_more()
    sys.exit(exit_code)
