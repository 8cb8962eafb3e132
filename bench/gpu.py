"""All that is to be measured on a GPU, in eight minutes and one JSON file.

    python bench/gpu.py OUT.json              # needs one GPU; torch and numpy alone, pydantic and pyyaml from --wheels
    python bench/gpu.py OUT.json --tiny       # the same on a CPU, to show that it works

A machine may lack what this project needs besides torch (pydantic, pyyaml, safetensors): `--wheels FOLDER` takes them
from a folder of wheels made by `pip download --only-binary :all: -d FOLDER pydantic pyyaml safetensors` for its Python.
The fp8 part wants torchao too (`pip download --no-deps -d FOLDER torchao`), and is named as missing without it.
Parts run from the dearest to the cheapest while time is left; a part that fails is named with its error, and the others
go on. Times are medians over steps after a warm-up, loader apart, clipping and optimizer in; MFU counts attention
causally against the dense bf16 peak, of fp8 too. All steps see one batch, so the loss of fp8 is set beside that of the
same part in bf16 step by step: that gap is one of arithmetic. The file is written anew after every part.
"""

import argparse
from dataclasses import replace
import json
from pathlib import Path
from statistics import median
import subprocess
import sys
import time
import traceback
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 8 * 60
RESERVE_S = 20
Part = dict[str, Any]

PARTS: list[Part] = [
    {"size": "124m", "compiled": True},
    {"size": "1b", "compiled": True},
    {"size": "2b", "compiled": True, "recompute": "selective"},
    {"size": "2b", "compiled": True, "recompute": "selective", "precision": "fp8"},
    {"size": "4b", "compiled": True, "recompute": "full", "micro": 2, "moments": "bf16"},
    {"size": "124m", "contender": "plain", "compiled": True},
    {"size": "124m", "compiled": True, "optimizer": "adana"},
    {"size": "124m", "compiled": True, "optimizer": "muon"},
    {"size": "124m", "compiled": False},
]


def main() -> int:
    """Measure part after part until the time is spent; return 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to import from")
    parser.add_argument("--seconds", type=float, default=LIMIT_S)
    arguments = parser.parse_args()
    wheels = sorted(arguments.wheels.glob("*.whl")) if arguments.wheels else []
    sys.path[:0] = [str(ROOT), str(ROOT / "bench"), *unpacked(wheels, arguments.out.parent / "unpacked-wheels")]
    started = time.monotonic()
    result: dict[str, Any] = {"bench": "gpu", "machine": machine(), "parts": []}
    for number, part in enumerate(PARTS):
        left = arguments.seconds - (time.monotonic() - started) - RESERVE_S
        if left <= 0:
            result["parts"].append({**part, "skipped": "no time left"})
            continue
        taken = time.monotonic()
        tried = {**part, "size": "tiny", "compiled": False, "micro": 2} if arguments.tiny else part
        # The first parts are the ones that count; none may take all of the time.
        found = {**part, **attempted(tried, min(left, 100), on_cpu=arguments.tiny)}
        result["parts"].append({**found, **beside_bf16(found, result["parts"])})
        result["parts"][-1]["part_seconds"] = round(time.monotonic() - taken, 1)
        write(arguments.out, result)
        print(number, json.dumps(result["parts"][-1]), flush=True)
    result["seconds"] = round(time.monotonic() - started, 1)
    write(arguments.out, result)
    print(json.dumps(result))
    return int(any("error" in part for part in result["parts"]))


def unpacked(wheels: list[Path], folder: Path) -> list[str]:
    """Unpack wheels, since what is compiled is not imported out of an archive; return the paths to import from."""
    import zipfile

    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return [str(folder)] if wheels else []


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the file anew, whole or not at all."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(json.dumps(result, indent=1), encoding="utf-8")
    hidden.rename(path)


def machine() -> dict[str, Any]:
    """Return what was measured on: versions, the GPU, its clocks and the limit of its power."""
    import torch

    found: dict[str, Any] = {"python": sys.version.split()[0], "torch": torch.__version__}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        fields = "power.limit,clocks.sm,clocks.max.sm,clocks_event_reasons.active,driver_version"
        query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        found[fields] = done.stdout.strip()
    return found


def attempted(part: Part, seconds: float, *, on_cpu: bool) -> dict[str, Any]:
    """Measure one part; whatever goes wrong with it is part of the result."""
    import gc

    import torch

    from trainwright.spec.exits import MissingError

    try:
        return measured(part, seconds, torch.device("cpu" if on_cpu else "cuda"))
    except MissingError as error:
        return {"missing": str(error)}
    except Exception as error:  # One part must not cost the others their turn.
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
    finally:
        gc.collect()
        torch._dynamo.reset()  # noqa: SLF001 - torch names no other way to let go of what was compiled
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def beside_bf16(part: Part, before: list[Part]) -> Part:
    """Return what fp8 gains and costs beside the same part in bf16: speed, and how far the losses are apart."""
    if part.get("precision") != "fp8" or "losses" not in part:
        return {}
    wanted = {name: value for name, value in part.items() if name in ("size", "compiled", "recompute")}
    alike = [each for each in before if wanted.items() <= each.items() and "losses" in each]
    sibling = next((each for each in alike if not {"precision", "contender", "optimizer"} & each.keys()), None)
    if sibling is None:
        return {"loss_gap": None}
    gaps = [ours - theirs for ours, theirs in zip(part["losses"], sibling["losses"], strict=False)]
    return {
        "speed_of_bf16": round(part["tokens_per_second"] / sibling["tokens_per_second"], 3),
        "loss_gap": {"steps": len(gaps), "last": round(gaps[-1], 4), "largest": round(max(gaps, key=abs), 4)},
    }


def measured(part: Part, seconds: float, device: Any) -> dict[str, Any]:
    """Return speed, utilisation and memory of one way to train one size, and what was planned for it."""
    import torch

    from contenders import CONTENDERS, derived_of
    from step_time import SIZES, settled
    from trainer.device import peak_flops, peak_memory_gib, power_watts
    from trainwright.spec.memory import GIB, memory_plan

    size = SIZES[part["size"]]
    size = replace(size, micro=part.get("micro", size.micro))
    choices = {name: part[name] for name in ("optimizer", "recompute", "moments", "precision") if name in part}
    began = time.monotonic()
    step = CONTENDERS[part.get("contender", "trainwright")](size, device, compiled=part["compiled"], **choices)
    losses = [step()]
    settled(device)
    first_step_s = time.monotonic() - began
    taken: list[float] = []
    most = 60 if device.type == "cuda" else 3
    while len(taken) < most and (len(taken) < 3 or time.monotonic() - began < seconds):
        started = time.perf_counter()
        losses.append(step())
        settled(device)
        taken.append(time.perf_counter() - started)
    steady = taken[10:] or taken
    derived = derived_of(size, device, compiled=part["compiled"], **choices)
    speed, peak = size.tokens / median(steady), peak_flops(device)
    return {
        "steps": len(steady),
        "step_ms": round(1000 * median(steady), 3),
        "tokens_per_second": round(speed, 1),
        "flops_per_token": derived.flops_per_token,
        "mfu_causal": round(speed * derived.flops_per_token / peak, 4) if peak else None,
        "first_step_seconds": round(first_step_s, 1),
        "losses": [round(loss, 4) for loss in losses],
        "peak_gib": peak_memory_gib(device),
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB if device.type == "cuda" else None,
        "planned_tensors_gib": round(memory_plan(derived, device=device.type).tensors / GIB, 3),
        "watts": power_watts(device),
    }


if __name__ == "__main__":
    sys.exit(main())
