"""Build, push and convert the image, with whichever of docker, podman and buildah works here.

    python3 docker/image.py build [TARGET]
    python3 docker/image.py push [TARGET] REGISTRY/NAME
    python3 docker/image.py sif [TARGET]

`make image`, `make push` and `make sif` call this. It needs Python and nothing else, so that a machine that only builds
images installs nothing. From the environment: ENGINE (such as `buildah --root /scratch/images`) instead of the search;
IMAGE_OPTIONS and PUSH_OPTIONS, passed on to the engine's build and push, SIF_OPTIONS to apptainer build; APPTAINER
instead of apptainer or singularity.
"""
# ruff: noqa: T201 - the terminal is what this is for

import datetime as dt
import hashlib
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("trainer", "trainer-cpu", "sharder")
BUILD_FOLDER = ROOT / "build"
SIF_OPTIONS = "--mksquashfs-args '-comp gzip -Xcompression-level 1'"
"""Left alone, gzip does its utmost: 8 times as long for files a tenth smaller. zstd is faster still; not every site
reads it."""


def main(argv: list[str]) -> int:
    """Do one of the words; return the exit code."""
    words = {"build": build, "push": push, "sif": sif}
    word, rest = (argv[0] if argv else ""), argv[1:]
    target = rest.pop(0) if rest and rest[0] in TARGETS else TARGETS[0]
    if word not in words or len(rest) != (word == "push"):
        print(__doc__, file=sys.stderr)
        return 78
    try:
        words[word](target, *rest)
    except subprocess.CalledProcessError as error:
        print(f"image: `{shlex.join(error.cmd)}` ended with {error.returncode}", file=sys.stderr)
        return 1
    except LookupError as error:
        print(f"image: {error.args[0]}", file=sys.stderr)
        return 69
    return 0


def build(target: str) -> None:
    """Build one target of the Dockerfile."""
    engine = find_engine()
    options = [word for name, value in build_arguments().items() for word in ("--build-arg", f"{name}={value}")]
    # Docker's own format: an OCI image has no place for HEALTHCHECK.
    ours = [] if engine[0] == "docker" else ["--format", "docker", "--layers"]
    verb = "bud" if engine[0] == "buildah" else "build"
    given = shlex.split(os.environ.get("IMAGE_OPTIONS", ""))
    run(*engine, verb, *ours, *options, *given, "--target", target, "--tag", name_of(target), str(ROOT))
    print(f"built {name_of(target)}")


def push(target: str, name: str) -> None:
    """Push a built target, and print the reference that stays the same for ever."""
    engine = find_engine()
    reference = f"{name}:{version()}"
    run(*engine, "tag", name_of(target), reference)
    given = shlex.split(os.environ.get("PUSH_OPTIONS", ""))
    if engine[0] == "docker":
        digest = re.findall(r"digest: (sha256:[0-9a-f]{64})", output(*engine, "push", *given, reference))[-1]
    else:
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / "digest"
            run(*engine, "push", *given, "--digestfile", str(file), reference)
            digest = file.read_text().strip()
    print(f"pushed {reference}; write this into the experiment:\nimage: {name}@{digest}")


def sif(target: str) -> None:
    """Convert a built target into an Apptainer image, without root, with its sha256 beside it."""
    engine, apptainer = find_engine(), find_apptainer()
    BUILD_FOLDER.mkdir(exist_ok=True)
    path = BUILD_FOLDER / f"trainwright-{target}.sif"
    with tempfile.TemporaryDirectory(dir=BUILD_FOLDER) as temporary:
        archive = Path(temporary) / "image.tar"
        save(engine, name_of(target), archive)
        given = shlex.split(os.environ.get("SIF_OPTIONS", SIF_OPTIONS))
        run(*apptainer, "build", "--force", *given, str(path), f"docker-archive:{archive}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    print(f"{path}: sha256 {digest}\n{hint(path, target)}")


def save(engine: list[str], name: str, archive: Path) -> None:
    """Write an image as a docker archive."""
    if engine[0] == "buildah":
        run(*engine, "push", "--quiet", name, f"docker-archive:{archive}:{name}")
    else:
        run(*engine, "save", "--output", str(archive), name)


def hint(path: Path, target: str) -> str:
    """Return how to run the SIF by hand, in the words of the one recipe."""
    sys.path.insert(0, str(ROOT))
    from infra.apptainer import Container

    container = Container(path.name, root="/my/volume", scratch="/my/scratch", gpus=target == "trainer")
    return f"run it as\n  {shlex.join(container.arguments(['boot', 'demo']))}"


def find_engine() -> list[str]:
    """Return the command of an engine that answers; the docker client alone, without its server, builds nothing."""
    if given := shlex.split(os.environ.get("ENGINE", "")):
        return given
    for name, question in (("docker", ["info"]), ("podman", ["info"]), ("buildah", ["info"])):
        if shutil.which(name) and subprocess.run([name, *question], capture_output=True, check=False).returncode == 0:
            return [name]
    raise LookupError("docker, podman, buildah: none of them works here; install one, or name it in ENGINE")


def find_apptainer() -> list[str]:
    """Return the command of Apptainer, or of Singularity before it had that name."""
    if given := shlex.split(os.environ.get("APPTAINER", "")):
        return given
    for name in ("apptainer", "singularity"):
        if shutil.which(name):
            return [name]
    raise LookupError("apptainer, singularity: neither is on this machine; install one, or name it in APPTAINER")


def build_arguments() -> dict[str, str]:
    """Return what the labels say; the time is the commit's, so that the same commit gives the same labels."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or "0"
    created = dt.datetime.fromtimestamp(int(epoch), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    revision = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "unknown"
    return {"VERSION": version(), "REVISION": revision, "CREATED": created}


def version() -> str:
    """Return the project's version."""
    text = (ROOT / "trainwright/__init__.py").read_text()
    return re.findall(r'^__version__ = "(.+)"', text, re.MULTILINE)[0]


def name_of(target: str) -> str:
    """Return the name of a target on this machine."""
    return f"localhost/trainwright-{target}:{version()}"


def git(*arguments: str) -> str:
    """Return what git says; nothing outside a checkout."""
    if not shutil.which("git"):
        return ""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def run(*command: str) -> None:
    """Run a command, its output on the terminal."""
    subprocess.run(command, check=True)


def output(*command: str) -> str:
    """Run a command and return what it printed, which the terminal sees too."""
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(said, end="")
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
