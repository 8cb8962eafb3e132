"""Step time and tokens a second against plain PyTorch, litgpt and torchtitan, taking turns.

All have the same shape, type, batch and device.

    python bench/step_time.py                # 10 million parameters on this CPU, compiled
    python bench/step_time.py --precision fp32   # the same where a CPU has no products of bf16 to speak of
    python bench/step_time.py --tiny         # seconds instead of minutes: shows only that it works
    python bench/step_time.py --device cuda --size 124m

Contenders take turns of a few steps, so that a slow moment of the machine falls on all; the median counts. A peer that
is not installed is named with the reason (`pip install litgpt torchtitan==0.1.0`, in an environment of its own). The
last line is one JSON object.
"""

import argparse
import json
from pathlib import Path
import platform
from statistics import median
import sys
import time

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import torch  # noqa: E402 - the peers may bring one of their own

from contenders import CONTENDERS, Size, Step  # noqa: E402 - lies beside this file

SIZES = {
    "tiny": Size(128, 2, 2, 512, 64, 2),
    "10m": Size(256, 6, 4, 8192, 256, 8),
    "124m": Size(768, 12, 12, 50_304, 1024, 32),
    "1b": Size(2048, 20, 16, 50_304, 2048, 8),
    "2b": Size(2560, 24, 20, 50_304, 2048, 8),
    "4b": Size(3072, 32, 24, 50_304, 2048, 4),
}
WARM_UP, TURN = 3, 2


def main() -> int:
    """Print the medians as one JSON object; return 1 when ours is not the fastest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=sorted(SIZES), default="10m")
    parser.add_argument("--tiny", action="store_true", help="the smallest size, not compiled, few rounds")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.size, arguments.eager, arguments.rounds = "tiny", True, 2
    size, device = SIZES[arguments.size], torch.device(arguments.device)
    steps, missing = prepared(size, device, compiled=not arguments.eager, precision=arguments.precision)
    seconds, losses = measured(steps, device, arguments.rounds)
    fastest = min((taken for name, taken in seconds.items() if name != "trainwright"), default=float("nan"))
    result = {
        "bench": "step_time",
        "size": arguments.size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": arguments.precision,
        "compiled": not arguments.eager,
        "seconds": {name: round(taken, 5) for name, taken in seconds.items()},
        "tokens_per_second": {name: round(size.tokens / taken, 1) for name, taken in seconds.items()},
        "first_loss": {name: round(loss, 3) for name, loss in losses.items()},
        "missing": missing,
        "of_fastest_peer": round(fastest / seconds["trainwright"], 3),
    }
    print(json.dumps(result))
    return 0 if arguments.tiny or seconds["trainwright"] <= fastest else 1


def prepared(
    size: Size, device: torch.device, *, compiled: bool, precision: str
) -> tuple[dict[str, Step], dict[str, str]]:
    """Return the steps of all contenders that are installed, and why the others are not there."""
    steps, missing = {}, {}
    for name, build in CONTENDERS.items():
        try:
            torch.manual_seed(0)
            steps[name] = build(size, device, compiled=compiled, precision=precision)
        except ImportError as error:
            missing[name] = str(error)
    return steps, missing


def measured(steps: dict[str, Step], device: torch.device, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return each contender's median seconds a step, and its loss in the first."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    losses = {name: step() for name, step in steps.items()}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            for _ in range(TURN):
                settled(device)
                started = time.perf_counter()
                step()
                settled(device)
                taken[name].append(time.perf_counter() - started)
    return {name: median(each) for name, each in taken.items()}, losses


def settled(device: torch.device) -> None:
    """Wait for what a GPU was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
