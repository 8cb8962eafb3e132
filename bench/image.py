"""What the images weigh, how soon a container says its first word, and how soon a finished run is known for one.

    make prove-image

Builds what is not built yet on this machine (the CUDA image too: some minutes and 10 GB of disk), by the documented
commands. A run of the demonstration, shortened, is finished once in a container; then containers take turns: one whose
boot is only watched until its first line, one that looks at the finished run. The medians count.
"""

import json
import os
from pathlib import Path
import re
from statistics import median
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engines"))

import machine

ROUNDS = 7
TARGETS = ("sharder", "trainer-cpu", "trainer")
LIMITS = {"sharder_mb": 600, "trainer-cpu_mb": 1800, "first_line_s": 1.5, "finished_run_s": 5.0}
CUDA_ALLOWANCE = 1.15
SHORT = ("train.steps=4", "evaluation.every_steps=4", "checkpoint.dump.every_steps=4", "logging.num_samples=0")
SMALL = ("model.dim=48", "model.num_layers=1", "model.num_heads=3", "model.num_kv_heads=3", "tokenizer.vocab_size=512")
SITE = "cd /opt/venv/lib/python3*/site-packages"
CUDA_WHEELS = f"{SITE} && du -smc torch* nvidia* triton*"


def main() -> int:
    images = {target: machine.build(target) for target in TARGETS}
    base = size_mb(machine.BASE)
    over_base = {f"{target}_mb": round(size_mb(image) - base) for target, image in images.items()}
    wheels = cuda_wheels_mb(images["trainer"])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        words = machine.container(images["trainer-cpu"], "boot", "demo", *SMALL, *SHORT, volume=Path(folder))
        first = subprocess.run([*machine.PODMAN, *words], capture_output=True, text=True, check=False)
        assert first.returncode == 0, first.stdout + first.stderr
        taken = [seconds(words) for _ in range(ROUNDS)]
    figures = {
        **over_base,
        "first_line_s": round(median(line for line, _ in taken), 3),
        "finished_run_s": round(median(end for _, end in taken), 3),
    }
    over = [name for name, limit in LIMITS.items() if figures[name] > limit]
    if over_base["trainer_mb"] > CUDA_ALLOWANCE * wheels:
        over.append("trainer_mb")
    result = {
        "bench": "image",
        "rounds": ROUNDS,
        "limits": {**LIMITS, "trainer_mb": round(CUDA_ALLOWANCE * wheels)},
        **figures,
        "torch_and_cuda_wheels_mb": wheels,
        "base_mb": round(base),
        "over": over,
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    machine.release()
    print(json.dumps(result))
    return 1 if over else 0


def size_mb(image: str) -> float:
    """Return the bytes of all layers of an image, unpacked, in megabytes."""
    return float(machine.podman("image", "inspect", "--format", "{{.Size}}", image).stdout) / 1e6


def cuda_wheels_mb(image: str) -> int:
    """Return what torch and the CUDA wheels weigh in the image, unpacked, in megabytes."""
    options = ("--entrypoint", "/bin/sh")
    said = machine.podman(*machine.container(image, "-c", CUDA_WHEELS, volume=None, uid=0, options=options)).stdout
    return round(int(re.findall(r"^(\d+)\s+total$", said, re.MULTILINE)[-1]) * 2**20 / 1e6)


def seconds(words: list[str]) -> tuple[float, float]:
    """Return how long a container takes to boot's first line, and to its end."""
    started, line_s = time.monotonic(), 0.0
    with subprocess.Popen(
        [*machine.PODMAN, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if " boot: " in line and not line_s:
                line_s = time.monotonic() - started
    assert run.returncode == 0
    return line_s, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
