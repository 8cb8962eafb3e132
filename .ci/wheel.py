"""Build the wheel from the files git knows, and hold what users would install against the sources.

Called by `make check`. The build runs in a copy: setuptools keeps a `build/` folder beside the sources and would pack
modules that were deleted long ago.
"""
# ruff: noqa: T201 - the terminal is what this is for

import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Return 0 when the wheel holds every file of every package and its command starts from it alone."""
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        sources = known_files()
        wheel = build(sources, scratch)
        absent = missing_files(sources, wheel)
        if absent:
            print(f"wheel: {wheel.name} lacks {', '.join(absent)}; see [tool.setuptools] in pyproject.toml")
            return 1
        start_from(wheel, scratch / "site")
    print(f"wheel: {wheel.name} holds every package file, and its command starts")
    return 0


def known_files() -> list[Path]:
    """Return the files that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def build(sources: list[Path], scratch: Path) -> Path:
    """Build the wheel from a copy of the sources."""
    for source in sources:
        target = scratch / "sources" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / source, target)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(scratch), str(scratch / "sources"))
    return next(scratch.glob("*.whl"))


def missing_files(sources: list[Path], wheel: Path) -> list[str]:
    """Return the package files that the wheel lacks; a package is a top folder that says it is typed."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    packages = {source.parts[0] for source in sources if source.parts[1:] == ("py.typed",)}
    return sorted(str(source) for source in sources if source.parts[0] in packages and source.as_posix() not in packed)


def start_from(wheel: Path, site: Path) -> None:
    """Start the installed command with the wheel's packages before the checkout's; raise when it fails."""
    pip("install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = "import infra, sys; sys.exit(not infra.__file__.startswith(sys.argv[1]))"
    for command in (["-c", where, str(site)], [str(site / "bin" / "trainwright"), "--help"]):
        subprocess.run([sys.executable, *command], cwd=site, env=environment, check=True, stdout=subprocess.DEVNULL)


def pip(*arguments: str) -> None:
    """Run this interpreter's pip."""
    subprocess.run([sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"], check=True)


if __name__ == "__main__":
    sys.exit(main())
