"""Pieces of bash that the rendered scripts share."""


def failing(script: str) -> list[str]:
    """Return a function that says one sentence and ends the script with a code."""
    return [f'fail() {{ echo "{script}: $2" >&2; exit "$1"; }}']


def waiting(on_signal: str) -> list[str]:
    """Return what starts a command as `$child` in the background, and waits for its end through signals.

    A trapped signal ends `wait` too; only a second wait gives the command's own code. 127 is the answer to a second
    wait that came too late: then the first one had the code already.
    """
    return [
        "asked=''",
        f"trap 'asked=yes; {on_signal}' USR1 TERM INT",
        "finish() {",
        '    "$@" &',
        "    child=$! code=0 asked=''",
        '    wait "$child" || code=$?',
        '    while [ -n "$asked" ]; do',
        "        asked='' again=0",
        '        wait "$child" || again=$?',
        '        [ "$again" = 127 ] || code=$again',
        "    done",
        "}",
    ]


def scratch(site_scratch: str | None) -> list[str]:
    """Return what names a task's folder on its node's disk; in the job script, that of the first task."""
    place = site_scratch or "/tmp"  # noqa: S108 - the nodes' own
    variable, slash, rest = place[1:].partition("/") if place.startswith("$") else ("", "", "")
    text = f"${{{variable}:-}}{slash}{rest}" if variable else place
    return [
        f'disk="{text}"',
        '[ -n "${SLURM_JOB_ID:-}" ] || disk="${TMPDIR:-/tmp}"',
        'scratch="$disk/trainwright-${SLURM_JOB_ID:-$$}-${SLURM_RESTART_COUNT:-0}-${SLURM_NODEID:-0}"',
    ]


def demand(command: str, code: int, sentence: str) -> str:
    """Return a line that ends the script with a sentence when a command fails; the sentence may use variables."""
    return f'{command} || fail {code} "{sentence}"'
