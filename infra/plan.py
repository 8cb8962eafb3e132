"""`plan`: every derived number with its formula, memory per GPU, disk, hours and dollars. It changes nothing.

Also what `launch` asks before it sends: whether the run fits the GPU that it is planned for.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.explained import explained
from trainwright.spec.gpus import GPUS, Gpu, find_gpu, planned_gpu
from trainwright.spec.memory import GIB, MemoryPlan, fitting_micro_batch, memory_plan

WAYS = (
    {"recompute": "selective"},
    {"recompute": "full"},
    {"recompute": "full", "reduce_every_pass": True},
)
"""Changes of `train` that need less memory, the cheapest in time first."""


def plan_document(derived: Derived, gpu: Gpu | None, mfu: float, dollars: float | None) -> dict[str, Any]:
    """Return the whole plan as plain values."""
    memory = memory_plan(derived)
    document: dict[str, Any] = {
        "derived": {each.name: {"value": each.value, "formula": each.formula} for each in explained(derived)},
        "warnings": [each for each in (derived.peak.warning, lacks_float8(derived.experiment, gpu)) if each],
        "memory": {**asdict(memory), "total": memory.total},
        "gpu": gpu.name if gpu else None,
    }
    if gpu is not None:
        fits = memory.total <= gpu.memory_gib * GIB
        hours = _hours(derived, gpu, mfu)
        document |= {"fits": fits, "ways": [] if fits else list(ways_to_fit(derived, gpu)), "mfu": mfu, "hours": hours}
        if dollars is not None:
            document["dollars"] = hours * derived.ranks * dollars
    return document


def _hours(derived: Derived, gpu: Gpu, mfu: float) -> float:
    flops = derived.steps * derived.tokens_per_step * derived.flops_per_token
    return flops / (gpu.peak_flops * mfu * derived.ranks) / 3600


def plan_page(derived: Derived, gpu: Gpu | None, mfu: float, dollars: float | None) -> str:
    """Return the plan for people."""
    document = plan_document(derived, gpu, mfu, dollars)
    lines = [
        f"{name:<24}{_number(each['value']):>20}  {each['formula']}{_in_gib(name, each['value'])}"
        for name, each in document["derived"].items()
    ]
    lines += [f"warning: {warning}" for warning in document["warnings"]]
    lines += ["", "Memory of each GPU, upper bound:", *_memory_lines(memory_plan(derived))]
    if gpu is None:
        names = ", ".join(each.name for each in GPUS)
        lines += ["", f"Say for which GPU (--gpu or resources.gpu; known: {names}) to see whether it fits, and hours."]
        return "\n".join(lines)
    verdict = "fits" if document["fits"] else "does NOT fit"
    lines += ["", f"{gpu.name}, {gpu.memory_gib:g} GiB: {verdict}"]
    lines += [f"  it would with {way}" for way in document["ways"]]
    formula = f"total_flops / (ranks x {gpu.peak_flops / 1e12:g} TFLOP/s of dense bf16 x {mfu:.0%} of it)"
    lines.append(f"{'hours':<24}{document['hours']:>20.2f}  {formula}")
    if dollars is not None:
        lines.append(f"{'dollars':<24}{document['dollars']:>20.2f}  hours x ranks x {dollars:g}")
    return "\n".join(lines)


def _memory_lines(memory: MemoryPlan) -> list[str]:
    rows = [
        ("weights", memory.parameters),
        ("averages of gradients", memory.optimizer),
        ("weights, cast or gathered", memory.gathered),
        ("activations", memory.activations),
        ("one block in its backward pass", memory.block),
        ("loss", memory.logits),
        ("gradients", memory.gradients),
        ("gradients of earlier passes", memory.kept_gradients),
        ("update", memory.update),
        ("libraries and fragments", memory.total - memory.tensors),
        ("most at once, not all of these", memory.total),
        ("on the host while saving", memory.staging),
    ]
    return [f"  {name:<30}{count / GIB:>10.2f} GiB" for name, count in rows]


def _in_gib(name: str, value: float) -> str:
    return f" = {value / GIB:.1f} GiB" if name.endswith("_bytes") else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def ways_to_fit(derived: Derived, gpu: Gpu) -> Iterator[str]:
    """Yield what would make a run fit a GPU: a smaller micro batch, recomputing, or more ranks."""
    gpu_bytes = int(gpu.memory_gib * GIB)
    micro = fitting_micro_batch(derived, gpu_bytes)
    if micro is not None:
        yield f"train.micro_batch={micro}"
    for way in WAYS:
        train = derived.experiment.train.model_copy(update=way)
        changed = Derived(derived.experiment.model_copy(update={"train": train}))
        micro = fitting_micro_batch(changed, gpu_bytes)
        if micro is not None:
            words = " ".join(f"train.{name}={str(value).lower()}" for name, value in way.items())
            yield f"{words} train.micro_batch={micro}"
            return
    for nodes in (2, 4, 8, 16):
        resources = derived.experiment.resources.model_copy(
            update={"nodes": derived.experiment.resources.nodes * nodes}
        )
        changed = Derived(derived.experiment.model_copy(update={"resources": resources}))
        if changed.global_batch_sequences % changed.ranks == 0 and fitting_micro_batch(changed, gpu_bytes):
            yield f"resources.nodes={resources.nodes}"
            return


def chosen_gpu(experiment: Experiment, name: str | None, target: str | None) -> Gpu | None:
    """Return the GPU that was named, else the one that the run is planned for."""
    if name is None:
        return planned_gpu(experiment, target)
    found = find_gpu(name)
    if found is None:
        raise UserError(f"--gpu {name}: not known; choose one of {', '.join(each.name for each in GPUS)}")
    return found


def lacks_float8(experiment: Experiment, gpu: Gpu | None) -> str | None:
    """Return what is wrong when a run wants fp8 of a GPU that has none."""
    if experiment.train.precision != "fp8" or gpu is None or gpu.has_float8:
        return None
    return f"train.precision=fp8: {gpu.name} cannot multiply it (Ada, Hopper and newer can); give bf16, or another GPU"


def refuse_what_does_not_fit(experiment: Experiment, target: str) -> None:
    """Raise `UserError` when the GPU that a run's target gives lacks memory, or fp8; unknown GPUs pass."""
    gpu = planned_gpu(experiment, target)
    if gpu is None or experiment.resources.device == "cpu":
        return
    if wrong := lacks_float8(experiment, gpu):
        raise UserError(f"{wrong}; or --force to send it all the same")
    derived = Derived(experiment)
    needed = memory_plan(derived).total / GIB
    if needed > gpu.memory_gib:
        ways = " or ".join(ways_to_fit(derived, gpu)) or "a smaller model"
        raise UserError(
            f"train.micro_batch={experiment.train.micro_batch}: needs {needed:.1f} GiB of each GPU, and {gpu.name} has "
            f"{gpu.memory_gib:g}; try {ways}, or --force to send it all the same"
        )


def plan_json(derived: Derived, gpu: Gpu | None, mfu: float, dollars: float | None) -> str:
    """Return the plan as one JSON document."""
    return json.dumps(plan_document(derived, gpu, mfu, dollars), indent=1)
