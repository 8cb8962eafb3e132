"""A machine that lacks something is refused in one sentence, against real mounts and a real libcuda of our own."""

from collections.abc import Callable
import ctypes.util
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from infra.boot.preflight import shared_memory, torch_cuda_version, volume
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.experiment import Experiment, Resources
from trainwright.spec.paths import Places


def places(root: Path) -> Places:
    smallest = {"name": "small", "train": {"steps": 1, "global_batch_sequences": 8}}
    return Places(root, Experiment.model_validate(smallest))


# --- the volume ------------------------------------------------------------------------------------------------------


def test_a_root_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    assert volume(places(root), in_image=False).startswith(f"{root}, ")
    assert list(root.iterdir()) == []


def test_a_root_that_is_no_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "root").touch()
    for root in (tmp_path / "root", tmp_path / "root" / "below"):
        with pytest.raises(
            UserError, match=rf"^{root}: cannot be written by user \d+, group \d+ \(.*TRAINWRIGHT_ROOT$"
        ):
            volume(places(root), in_image=False)


def as_nobody(work: Callable[[], None]) -> int:
    """Do something as a user who owns nothing; return the exit code of the process that did it."""
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            work()
            os._exit(0)
        except BaseException as error:  # told through the exit code
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else or mount")


@needs_root
def test_a_root_of_somebody_else_is_refused_with_who_we_are(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o055)

    def check() -> None:
        with pytest.raises(UserError) as caught:
            volume(places(root), in_image=False)
        way = "change its owner, or run as its owner"
        assert str(caught.value) == f"{root}: cannot be written by user 65534, group 65534 (Permission denied); {way}"

    assert as_nobody(check) == 0


VOLUME = """
import sys
from pathlib import Path
from infra.boot.preflight import volume
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.paths import Places
smallest = {"name": "small", "train": {"steps": 1, "global_batch_sequences": 8}}
for root in sys.argv[1:]:
    try:
        print(volume(Places(Path(root), Experiment.model_validate(smallest)), in_image=True))
    except UserError as error:
        print(f"{int(error.exit)} {error}")
"""


@needs_root
def test_in_the_image_the_root_must_lie_on_a_mount(tmp_path: Path) -> None:
    alone, mounted, read_only = tmp_path / "alone", tmp_path / "a volume", tmp_path / "read only"
    for folder in (alone, mounted / "below", read_only):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(mounted)
    # Of a machine whose disk is one with the folder's: a bind mount is a volume all the same.
    mounts = 'mount --bind "$1" "$1" && mount --bind "$2" "$2" && mount -o remount,bind,ro "$2" && shift 2 && exec "$@"'
    roots = [alone, mounted, mounted / "below", mounted / "new", tmp_path / "link", read_only]
    command = [
        "unshare",
        "-m",
        "bash",
        "-c",
        mounts,
        "bash",
        str(mounted),
        str(read_only),
        sys.executable,
        "-c",
        VOLUME,
    ]
    if own_mount(tmp_path):
        pytest.skip(f"{tmp_path} lies on a mount of its own")
    done = subprocess.run([*command, *map(str, roots)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"69 {alone}: no volume is mounted, and what is written would go with the container;")
    assert lines[0].endswith(f"`-v /my/volume:{alone}`")
    assert [line.rpartition(", ")[0] for line in lines[1:5]] == [str(root) for root in roots[1:5]]
    assert lines[5].startswith(
        f"78 {read_only}: cannot be written by user 0, group 0 (Read-only file system); mount it"
    )
    assert len(lines) == 6


def own_mount(folder: Path) -> bool:
    return any(parent.is_mount() for parent in (folder, *folder.parents) if parent != Path("/"))


# --- shared memory ---------------------------------------------------------------------------------------------------


def test_too_little_shared_memory_is_told_with_what_is_needed() -> None:
    found = shutil.disk_usage("/dev/shm").total / 2**30
    assert shared_memory(Resources(shm_gib=found / 2)) == f"/dev/shm, {found:.2f} GiB"
    with pytest.raises(MissingError) as caught:
        shared_memory(Resources(shm_gib=10 * found))
    assert str(caught.value).startswith(f"/dev/shm: {found:.2f} GiB, and this experiment needs {10 * found:g}; give")
    assert "resources.shm_gib" in str(caught.value)


def test_gpus_need_shared_memory_and_cpus_none() -> None:
    assert (Resources().needed_shm_gib, Resources(device="cpu").needed_shm_gib) == (1.0, 0.0)
    assert Resources(device="cpu", shm_gib=2).needed_shm_gib == 2.0


# --- GPUs ------------------------------------------------------------------------------------------------------------

DRIVER = """
#include <stdlib.h>
int cuDriverGetVersion(int *version) { *version = atoi(getenv("FAKE_DRIVER")); return 0; }
int cuInit(unsigned flags) { return getenv("FAKE_GPUS") ? 0 : 100; }
int cuDeviceGetCount(int *count) { *count = atoi(getenv("FAKE_GPUS")); return 0; }
"""
GPUS = """
import sys
from infra.boot.preflight import gpus
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Resources
try:
    print("0", gpus(Resources(device=sys.argv[1], ranks_per_node=int(sys.argv[2]))))
except UserError as error:
    print(int(error.exit), error)
assert "torch" not in sys.modules
"""
TORCH_FOR_CUDA = "__version__ = '9'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"
TORCH_FOR_CPUS = "__version__ = '9+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a driver and a torch, both our own."""
    place = tmp_path_factory.mktemp("machine")
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler to make a libcuda with")
    (place / "cuda.c").write_text(DRIVER)
    command = ["gcc", "-shared", "-fPIC", "-o", str(place / "libcuda.so.1"), str(place / "cuda.c")]
    subprocess.run(command, check=True)
    (place / "torch").mkdir()
    (place / "torch" / "__init__.py").write_text("raise ImportError('nobody imports torch to look at a machine')")
    return place


def looked_at(machine: Path, device: str, ranks: int, torch: str = TORCH_FOR_CUDA, **variables: str) -> str:
    (machine / "torch" / "version.py").write_text(torch)
    library = {"LD_LIBRARY_PATH": str(machine)} if variables else {}
    environ = {**os.environ, "PYTHONPATH": str(machine), **library, **variables}
    command = [sys.executable, "-c", GPUS, device, str(ranks)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="this machine has a driver")
def test_gpus_without_a_driver_are_missing(machine: Path) -> None:
    assert looked_at(machine, "cuda", 1).startswith("69 resources.device=cuda: this machine shows no NVIDIA driver")
    assert looked_at(machine, "cpu", 1) == "0 not asked for"
    assert looked_at(machine, "auto", 1) == "0 not asked for"


def test_a_driver_older_than_the_build_is_told_with_both(machine: Path) -> None:
    found = looked_at(machine, "cuda", 1, FAKE_DRIVER="11080", FAKE_GPUS="8")
    assert found == (
        "69 the NVIDIA driver is for CUDA 11.8, and this image needs one for CUDA 12 or newer; choose another machine"
    )
    # Within a major version the driver may be older.
    assert looked_at(machine, "cuda", 1, FAKE_DRIVER="12020", FAKE_GPUS="8") == "0 8, driver for CUDA 12.2"


def test_a_torch_for_cpus_is_refused_on_gpus(machine: Path) -> None:
    found = looked_at(machine, "cuda", 1, TORCH_FOR_CPUS, FAKE_DRIVER="12080", FAKE_GPUS="8")
    assert (
        found == "78 resources.device=cuda: this torch is built for CPUs; use the CUDA image, or resources.device=cpu"
    )


def test_every_rank_needs_a_gpu(machine: Path) -> None:
    for count in ("4", None):
        driver = {"FAKE_DRIVER": "13000", **({"FAKE_GPUS": count} if count else {})}
        found = looked_at(machine, "cuda", 8, **driver)
        assert found.startswith(f"69 resources.ranks_per_node=8: {count or 0} GPUs are visible; ask for more GPUs")
    assert looked_at(machine, "cuda", 8, FAKE_DRIVER="13000", FAKE_GPUS="8") == "0 8, driver for CUDA 13.0"
    assert looked_at(machine, "cpu", 8, FAKE_DRIVER="13000") == "0 not asked for; driver for CUDA 13.0"


def test_the_version_of_this_torch_is_the_one_that_it_says_itself() -> None:
    import torch

    said = torch.version.cuda
    found = torch_cuda_version()
    assert found == (tuple(map(int, said.split(".")[:2])) if said else None)
