"""Makes the bare word `runpod` answer to the verbs here, and leaves every other word to RunPod's own program."""

from pathlib import Path

from trainwright.store.files import write_text

VERBS = ("create", "get", "logs", "port-forward", "stop", "start", "delete", "reap", "shell-init")
"""Words that RunPod's own `runpod` does not have. Its `exec python` stays its own; any other `exec` is ours."""


def function_text() -> str:
    """Return a shell function, for `eval "$(trainwright runpod shell-init)"`."""
    return f"""\
runpod() {{
  case "${{1-}} ${{2-}}" in
    "exec python") command runpod "$@" ;;
    {_patterns()}) trainwright runpod "$@" ;;
    *) command runpod "$@" ;;
  esac
}}
"""


def script_text() -> str:
    """Return a script of the name `runpod`; it finds RunPod's own further on in PATH."""
    return f"""\
#!/bin/sh
# Written by `trainwright runpod shell-init --shim`; remove it to undo.
set -eu
case "${{1-}} ${{2-}}" in
  "exec python") ;;
  {_patterns()}) exec trainwright runpod "$@" ;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
rest=$(printf '%s' "$PATH" | tr ':' '\\n' | grep -vxF -- "$here" | paste -sd: -)
if ! PATH=$rest command -v runpod >/dev/null; then
  echo "runpod: RunPod's own program is not installed (pip install runpod), and this word is its own" >&2
  exit 69
fi
PATH=$rest exec runpod "$@"
"""


def _patterns() -> str:
    return "|".join(f'"{verb} "*' for verb in (*VERBS, "exec"))


def write_shim(folder: Path) -> Path:
    """Write the script into a folder of the PATH."""
    path = folder / "runpod"
    write_text(path, script_text())
    path.chmod(0o755)
    return path
