"""What a machine must have before anything is done on it: a volume, shared memory, GPUs and their driver.

Each check takes milliseconds, imports no torch, and says in one sentence what is missing and where to change it.
"""

import ctypes
import errno
import importlib.util
import os
import re
import shutil
from pathlib import Path

from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.paths import ROOT_VARIABLE, Places

IN_IMAGE_VARIABLE = "TRAINWRIGHT_IN_IMAGE"
"""Set in the image; there the root must be a volume, because what lies in a container goes with it."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's own place


def volume(places: Places, *, in_image: bool) -> str:
    """Hold that the root exists, outlives a container, and can be written; return what was found."""
    root = places.root
    if in_image and _is_of_the_container(root):
        way = f"mount one there, as in `-v /my/volume:{root}`"
        raise MissingError(f"{root}: no volume is mounted, and what is written would go with the container; {way}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        who = f"user {os.getuid()}, group {os.getgid()}"
        ways = {errno.EACCES: "change its owner, or run as its owner", errno.EROFS: "mount it for writing"}
        way = ways.get(error.errno or 0, f"choose another folder with {ROOT_VARIABLE}")
        raise UserError(f"{root}: cannot be written by {who} ({error.strerror}); {way}") from None
    return f"{root}, {shutil.disk_usage(root).free / 2**30:.1f} GiB free"


def _is_of_the_container(root: Path) -> bool:
    """Return whether a folder lies on the container's own file system rather than on a mount.

    Device numbers do not tell: a volume may lie on the disk that holds the container too.
    """
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    # Field 5 of proc_pid_mountinfo(5), with spaces and the like written in octal.
    points = {Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split(" ")[4])) for line in mounts}
    real = root.resolve()
    return not (points - {Path("/")}) & {real, *real.parents}


def shared_memory(resources: Resources) -> str:
    """Hold that /dev/shm is as large as the experiment asks; return what was found."""
    needed = resources.needed_shm_gib
    found = shutil.disk_usage(SHARED_MEMORY).total / 2**30 if SHARED_MEMORY.is_dir() else 0.0
    if found < needed:
        way = "give the container more (--shm-size, an emptyDir in memory), or lower resources.shm_gib"
        raise MissingError(f"{SHARED_MEMORY}: {found:.2f} GiB, and this experiment needs {needed:g}; {way}")
    return f"{SHARED_MEMORY}, {found:.2f} GiB"


def gpus(resources: Resources) -> str:
    """Hold that there are GPUs for all ranks, with a driver new enough for this torch; return what was found."""
    driver = driver_version()
    if resources.device != "cuda":
        return "not asked for" if driver is None else f"not asked for; driver for CUDA {driver[0]}.{driver[1]}"
    if driver is None:
        way = "run with GPUs (--gpus all, --nv, a GPU limit), or set resources.device=cpu"
        raise MissingError(f"resources.device=cuda: this machine shows no NVIDIA driver (libcuda.so.1); {way}")
    built = torch_cuda_version()
    if built is None:
        way = "use the CUDA image, or resources.device=cpu"
        raise UserError(f"resources.device=cuda: this torch is built for CPUs; {way}")
    # Within one major version of CUDA a newer runtime works on an older driver.
    if driver[0] < built[0]:
        need = f"this image needs one for CUDA {built[0]} or newer"
        raise MissingError(f"the NVIDIA driver is for CUDA {driver[0]}.{driver[1]}, and {need}; choose another machine")
    count = gpu_count()
    if count < resources.ranks_per_node:
        way = "ask for more GPUs, or lower resources.ranks_per_node"
        raise MissingError(f"resources.ranks_per_node={resources.ranks_per_node}: {count} GPUs are visible; {way}")
    return f"{count}, driver for CUDA {driver[0]}.{driver[1]}"


def driver_version() -> tuple[int, int] | None:
    """Return the newest CUDA that the driver supports, or None without a driver (cuDriverGetVersion of libcuda)."""
    library, number = _libcuda(), ctypes.c_int(0)
    if library is None or library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def gpu_count() -> int:
    """Return the number of GPUs that the driver shows to this process."""
    library, number = _libcuda(), ctypes.c_int(0)
    if library is None or library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(number)) != 0:
        return 0
    return number.value


def _libcuda() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def torch_cuda_version() -> tuple[int, int] | None:
    """Return the CUDA version that the installed torch is built for, read from its files; None for a CPU build."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    version = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda[^=]*= *['\"](\d+)\.(\d+)", version, re.MULTILINE)
    return (int(match[1]), int(match[2])) if match else None
