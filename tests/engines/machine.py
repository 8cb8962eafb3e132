"""The container engines of the machine that the tests run on: found, installed where we may, kept out of the way.

Everything lies in one folder (`TRAINWRIGHT_ENGINES`, else below /var/tmp): the images, layers of earlier builds, and
a root of a newer Debian with Apptainer. Nothing can be pulled on some machines, so the base image is made from Debian's
packages; the Dockerfile is the real one. `python tests/engines/machine.py clean` gives the space back.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("TRAINWRIGHT_ENGINES") or f"/var/tmp/trainwright-engines-{os.getuid()}")
BASE = "localhost/debian:bookworm-slim"
STORE = ("--root", str(FOLDER / "images"), "--runroot", str(FOLDER / "run"), "--storage-driver", "overlay")
PODMAN = ("podman", *STORE, "--runtime", "runc")
BUILDAH = ("buildah", *STORE)
PROGRAMS = {
    "buildah": ("buildah",),
    "podman": ("podman", "runc", "netavark", "uidmap"),
    "mmdebstrap": ("mmdebstrap",),
    "slurmctld": ("slurm-wlm",),
    "munged": ("munge",),
}
"""Program -> the Debian packages that it needs."""
SID_PACKAGES = "apptainer,ca-certificates,catatonit,docker-cli,docker-compose,netavark,podman,runc,squashfuse"
ENTER = Path(__file__).with_name("enter.sh")


class AbsentError(Exception):
    """This machine lacks an engine, and it cannot be installed from here."""


@dataclass(frozen=True)
class Sif:
    """The image as a file, its hash beside it, and the program that runs it."""

    path: Path
    apptainer: str


def missing(reason: str) -> NoReturn:
    """Skip a test that this machine has no engine for; fail it where engines are required."""
    if os.environ.get("TRAINWRIGHT_REQUIRE_ENGINES") == "1":
        pytest.fail(f"required here: {reason}")
    pytest.skip(reason)


def need(*programs: str) -> None:
    """Install what is missing where we are root on a Debian; raise `AbsentError` elsewhere."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise AbsentError(f"{', '.join(missing)}: not on this machine; install them, or run as root on Debian")
    packages = [package for program in missing for package in PROGRAMS[program]]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *packages]):
        run("apt-get", *words, environ=environ)


def build(target: str, *options: str) -> str:
    """Build a target of the real Dockerfile by the documented command; return its name."""
    need("buildah", "podman", "mmdebstrap")
    if not has(BASE):
        make_base()
    given = [
        "--isolation",
        "chroot",
        "--network",
        "host",
        "--build-arg",
        f"BASE_IMAGE={BASE}",
        *pip_options(),
        *options,
    ]
    said = run("make", "--no-print-directory", "image", f"TARGET={target}", environ=environment(given))
    return re.findall(r"^built (\S+)$", said, re.MULTILINE)[-1]


def environment(image_options: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment in which `make image`, `make push` and `make sif` use these engines."""
    return {**os.environ, "ENGINE": shlex.join(BUILDAH), "IMAGE_OPTIONS": shlex.join(image_options)}


def has(image: str) -> bool:
    """Return whether an image is in our store."""
    return (
        subprocess.run([*BUILDAH, "inspect", "--type", "image", image], capture_output=True, check=False).returncode
        == 0
    )


def make_base() -> None:
    """Make the base image from Debian's packages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = FOLDER / "base.tar"
    # Debian's own slim images leave out the same files, and have dpkg leave them out ever after.
    slim = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")]
    wanted = ["--variant=minbase", "--include=ca-certificates", *slim]
    run("mmdebstrap", "--quiet", *wanted, "bookworm", str(archive), mirror())
    run(*PODMAN, "import", "--quiet", str(archive), BASE)
    archive.unlink()


def pip_options() -> list[str]:
    """Return what lets pip work in a build as it does here: its configuration, mounted and never part of the image."""
    settings = pip_settings()
    if not settings:
        return []
    mounts = {}
    if certificate := settings.get("cert"):
        # Not at its own path: the packages installed in the build rewrite that file.
        mounts[certificate] = settings["cert"] = "/etc/build-certificates.crt"
    folders = re.findall(r"(?:file://|(?<!\S))(/[^\s/]+/[^\s/]+)", " ".join(settings.values()))
    mounts |= {path: path for path in folders if Path(path).is_dir()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    configuration = FOLDER / "pip.conf"
    configuration.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    mounts[str(configuration)] = "/etc/pip.conf"
    volumes = [word for here, there in mounts.items() for word in ("--volume", f"{here}:{there}:ro")]
    return [*volumes, "--build-arg", f"TORCH_CPU_INDEX={settings.get('extra-index-url', '')}"]


def pip_settings() -> dict[str, str]:
    """Return where this machine's pip finds packages; the environment is stronger than the files."""
    said = run(sys.executable, "-m", "pip", "config", "list")
    found = re.findall(
        r"^(global|:env:)\.(cert|index-url|extra-index-url|find-links|trusted-host)='(.*)'$", said, re.MULTILINE
    )
    return {
        name: value.replace("\\n", " ")
        for place in ("global", ":env:")
        for where, name, value in found
        if where == place
    }


def podman(*arguments: str, limit_s: float = 300) -> "subprocess.CompletedProcess[str]":
    """Run podman on our store; return what it said, whatever its exit code."""
    words = [*PODMAN, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=limit_s, stdin=subprocess.DEVNULL)


def container(image: str, *words: str, volume: Path | None, uid: int = 12345, options: Sequence[str] = ()) -> list[str]:
    """Return podman's arguments that run the image as it is meant to run: no network, two places to write."""
    places = ["--volume", f"{volume}:/workspace"] if volume is not None else []
    # Limits may not be raised above our own on some machines; health is asked for by the test itself.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--no-healthcheck"]
    closed = ["--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--user", f"{uid}:0"]
    return ["run", "--rm", *closed, *limits, *places, *options, image, *words]


def apptainer() -> str:
    """Return a program that behaves as this machine's Apptainer would; it lives in a root of a newer Debian."""
    if os.geteuid() != 0:
        raise AbsentError("apptainer: runs in a root of its own here, which only root can enter")
    root = sid()
    # The root outlives this checkout and serves the next one, which has a path of its own.
    program = ROOT / "build" / "apptainer"
    program.parent.mkdir(exist_ok=True)
    words = shlex.join(["unshare", "--mount", str(ENTER), str(root), "/usr/bin/apptainer"])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return str(program)


def sid() -> Path:
    """Return the root of a newer Debian, made on first use, for programs that this one lacks or has too old."""
    need("mmdebstrap")
    root, unfinished = FOLDER / "sid", FOLDER / "sid.unfinished"
    if all((root / "usr/bin" / name).exists() for name in ("docker", "podman")):
        return root
    for folder in (root, unfinished):
        shutil.rmtree(folder, ignore_errors=True)
    stale = ['--aptopt=Acquire::Check-Valid-Until "false"', "--variant=minbase", f"--include={SID_PACKAGES}"]
    run("mmdebstrap", "--quiet", *stale, "sid", str(unfinished), mirror())
    (unfinished / "etc/localtime").unlink(missing_ok=True)
    (unfinished / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    return unfinished.rename(root)


@contextmanager
def docker(folder: Path) -> Iterator[dict[str, str]]:
    """Yield an environment in which `docker` and its `compose` are the real ones; podman runs what they ask for."""
    programs = sid() / "usr"
    (folder / "bin").mkdir()
    (folder / "bin/docker").symlink_to(programs / "bin/docker")
    plugin = next(programs.glob("**/cli-plugins/docker-compose"), programs / "bin/docker-compose")
    (folder / "cli-plugins").mkdir()
    (folder / "cli-plugins/docker-compose").symlink_to(plugin)
    # Limits may not be raised above our own on some machines.
    limits = folder / "containers.conf"
    limits.write_text('[containers]\ndefault_ulimits=["nofile=1024:1024", "nproc=1024:1024"]\n')
    address = f"unix://{folder}/docker.socket"
    words = [*PODMAN, "system", "service", "--time=0", address]
    with (folder / "service.log").open("wb") as log:
        service = subprocess.Popen(words, env={**os.environ, "CONTAINERS_CONF": str(limits)}, stdout=log, stderr=log)
    try:
        path = f"{folder}/bin:{os.environ['PATH']}"
        yield {**os.environ, "PATH": path, "DOCKER_HOST": address, "DOCKER_CONFIG": str(folder)}
    finally:
        service.terminate()
        service.wait(30)


def newer_podman(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return a podman that plays Jobs, with a store of its own beside our images, and its environment."""
    if os.geteuid() != 0:
        raise AbsentError("podman 5: runs in a root of its own here, which only root can enter")
    limits = folder / "containers.conf"
    limits.write_text('[containers]\ndefault_ulimits=["nofile=1024:1024", "nproc=1024:1024"]\n')
    store = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]
    images = ["--storage-opt", f"additionalimagestore={FOLDER / 'images'}"]
    command = ["unshare", "--mount", str(ENTER), str(sid()), "/usr/bin/podman", *store, *images, "--runtime", "runc"]
    return command, {**os.environ, "CONTAINERS_CONF": str(limits), "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}


def judges() -> Path:
    """Return the folder with the programs that judge manifests, installed as `make check` installs them."""
    folder = ROOT / ".venv/judges/bin"
    if not all((folder / name).exists() for name in ("kubectl", "kubernetes-validate", "checkov")):
        run("make", "--no-print-directory", "judges")
    return folder


def mirror() -> str:
    """Return the Debian mirror that this machine's apt uses."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in files if path.is_file())
    found = re.findall(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
    if not found:
        raise AbsentError("apt's sources name no Debian mirror; engines are installed from one")
    return found[0]


def release() -> None:
    """Undo the mounts that podman leaves in its store."""
    mounted = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in mounted if Path(point).is_relative_to(FOLDER)]):
        subprocess.run(["umount", point], check=False)


def run(*command: str, environ: Mapping[str, str] = os.environ) -> str:
    """Run a command and return its output; print all of it when it fails."""
    done = subprocess.run(
        command,
        env=environ,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout[-8000:])
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout[-2000:])
    return done.stdout


if __name__ == "__main__" and sys.argv[1:] == ["clean"]:
    release()
    shutil.rmtree(FOLDER, ignore_errors=True)
