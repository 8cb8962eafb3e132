"""Resolve pyproject.toml into the lock files of the image: `make lock`.

Four files, because each is a layer of its own and pip takes hashes for a whole file or not at all:

- `sharder.lock`: what the sharder needs, S3 among it, no torch.
- `torch-cuda.lock`: torch as PyPI has it, with NVIDIA's wheels and triton.
- `torch-cpu.lock`: the CPU build of the same torch, which PyTorch's own index has.
- `trainer.lock`: everything else that a trainer needs, the same beside either torch.

No file names an index: where packages come from is pip's configuration, what they are is their hash. The resolver is
uv's, which reads hashes from the index; pip-tools would write the same after downloading each wheel of each platform.
"""
# ruff: noqa: T201 - the terminal is what this is for

import hashlib
from pathlib import Path
import re
import subprocess
import sys
import tempfile

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "docker"
CUDA = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
PYTHON_VERSION = "3.11"
"""Of the base image's Debian."""
PLATFORM = "x86_64-unknown-linux-gnu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
HEADER = "# Made by `make lock`; docker/lock.py says how. Do not edit.\n"


def main() -> int:
    """Write the four files; versions already locked stay unless `--upgrade` is given."""
    everything = stanzas(resolve("all", previous=("trainer.lock", "torch-cuda.lock")))
    torch = {name: text for name, text in everything.items() if CUDA.match(text)}
    others = {name: text for name, text in everything.items() if name not in torch}
    write("torch-cuda.lock", torch)
    write("trainer.lock", others)
    # The sharder takes the same versions, so that both images encode alike.
    sharder = stanzas(resolve("sharder", "s3", previous=("trainer.lock",)))
    write("sharder.lock", sharder)
    write("torch-cpu.lock", {"torch": torch_cpu(version(torch["torch"]))})
    print(f"torch {version(torch['torch'])}; {len(others)} packages beside it, {len(sharder)} for the sharder")
    return 0


def resolve(*extras: str, previous: tuple[str, ...]) -> str:
    """Return the resolution of some extras, with the hash of every file, preferring what is locked already."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "lock"
        if "--upgrade" not in sys.argv or extras != ("all",):
            output.write_text("".join((HERE / name).read_text() for name in previous if (HERE / name).is_file()))
        command = ["uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header"]
        command += [word for extra in extras for word in ("--extra", extra)]
        command += ["--no-annotate", "--python-version", PYTHON_VERSION, "--python-platform", PLATFORM]
        run(*command, "pyproject.toml", "--output-file", str(output))
        return output.read_text()


def stanzas(text: str) -> dict[str, str]:
    """Return package -> its lines."""
    found = re.findall(r"^\S+==.*(?:\n +--hash=.*)*\n", text, re.MULTILINE)
    return {stanza.partition("==")[0]: stanza for stanza in found}


def version(stanza: str) -> str:
    """Return the version that a package is locked to."""
    return stanza.partition("==")[2].split()[0]


def torch_cpu(number: str) -> str:
    """Return the stanza of the CPU build; hashes known for this version stay, since an index may serve older files."""
    path, name = HERE / "torch-cpu.lock", f"torch=={number}+cpu"
    known = stanzas(path.read_text()).get("torch", "") if path.is_file() else ""
    if known.startswith(f"{name} "):
        return known
    with tempfile.TemporaryDirectory() as temporary:
        target = ["--no-deps", "--only-binary", ":all:", "--python-version", PYTHON_VERSION, "--dest", temporary]
        target += ["--platform", "manylinux_2_28_x86_64", "--extra-index-url", TORCH_CPU_INDEX]
        run("pip", "download", "--quiet", "--disable-pip-version-check", *target, name)
        wheel = next(Path(temporary).glob("*.whl"))
        return f"{name} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def write(name: str, packages: dict[str, str]) -> None:
    """Write one lock file."""
    (HERE / name).write_text(HEADER + "".join(packages[package] for package in sorted(packages)))


def run(tool: str, *arguments: str) -> None:
    """Run a tool of this Python's environment in the project's folder."""
    subprocess.run([sys.executable, "-m", tool, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
