"""What a container leaves unsaid and programs rely on: a home, a name for its user, and folders for caches.

A site may run the image under any user id, with no entry in its list of users, no HOME, and nothing to write but the
root volume and a scratch folder. Launcher variables that a site presets are left out by `infra.rooms`.
"""

import os
import pwd
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trainwright.spec.exits import MissingError
from trainwright.spec.paths import ROOT_VARIABLE, Places

DEFAULT_SCRATCH = Path("/tmp")  # noqa: S108 - what is meant is the machine's own


def person(environ: Mapping[str, str], uid: int) -> dict[str, str]:
    """Return HOME, USER and LOGNAME where they are missing or of no use; the home is made in scratch."""
    found = {}
    if not _is_home(environ.get("HOME")):
        found["HOME"] = str(_home_in_scratch(uid))
    if not (environ.get("USER") and environ.get("LOGNAME")):
        # Libraries ask for the user's name to make folder names, and fail when the system knows none.
        name = environ.get("USER") or environ.get("LOGNAME") or _name(uid)
        found |= {"USER": name, "LOGNAME": name}
    return found


def scratch() -> Path:
    """Return the scratch folder (TMPDIR, else /tmp); raise `MissingError` when nothing can be written there."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        way = "mount a tmpfs or a folder there, or name another in TMPDIR"
        raise MissingError(f"{DEFAULT_SCRATCH}: no scratch folder can be written; {way}") from None


def room_folders(places: Places, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that keep what rooms write inside the root: their own files and their libraries' caches.

    Compiled kernels are worth keeping: without them every restart compiles again. What is set already stays.
    """
    caches = {
        "HF_HOME": places.hf_cache,
        "MPLCONFIGDIR": places.cache / "matplotlib",
        "TORCHINDUCTOR_CACHE_DIR": places.cache / "inductor",
        "TRITON_CACHE_DIR": places.cache / "triton",
        "XDG_CACHE_HOME": places.cache / "xdg",
    }
    folders = {name: environ.get(name) or str(folder) for name, folder in caches.items()}
    return {ROOT_VARIABLE: str(places.root), **folders}


def _is_home(path: str | None) -> bool:
    # Without HOME some engines say "/", which is no home even where it can be written.
    return path is not None and path != "/" and Path(path).is_dir() and os.access(path, os.W_OK | os.X_OK)


def _home_in_scratch(uid: int) -> Path:
    """Return a home for this user; one folder for all containers of a machine that share their scratch."""
    home = scratch() / f"home-{uid}"
    home.mkdir(mode=0o700, exist_ok=True)
    return home


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user{uid}"
