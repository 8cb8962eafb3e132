"""Answers as tables for people, and as plain data for programs."""

from collections.abc import Sequence
from typing import Any

from infra.runpod.answers import Offer, Pod, Volume
from infra.runpod.reap import Idle
from infra.runpod.storage import monthly_dollars


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns."""
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows
    )


def pods(found: Sequence[Pod], now: float) -> str:
    """Return all pods."""
    if not found:
        return "no pods"
    return table([["ID", "NAME", "STATUS", "GPU", "$/H", "SPENT", "UP"], *(_row(one, now) for one in found)])


def _row(one: Pod, now: float) -> list[str]:
    gpu = f"{one.num_gpus} x {one.gpu}" if one.num_gpus else one.gpu or "-"
    up = f"{one.uptime_s / 3600:.1f} h" if one.uptime_s else "-"
    return [one.id, one.name, one.status, gpu, f"{one.dollars_per_hour:.2f}", spent(one, now), up]


def spent(one: Pod, now: float) -> str:
    """Return what a pod has cost so far; of one that is stopped RunPod tells no price any more."""
    return f"${one.spent(now):.2f}" if one.dollars_per_hour else "-"


def facts(one: Pod, now: float) -> dict[str, Any]:
    """Return a pod as plain data, without its environment."""
    use = [{"busy": busy, "memory": memory} for busy, memory in one.gpu_use or ()]
    return {
        "id": one.id,
        "name": one.name,
        "status": one.status,
        "gpu": one.gpu,
        "num_gpus": one.num_gpus,
        "gpus_percent": use,
        "dollars_per_hour": one.dollars_per_hour,
        "dollars_spent": round(one.spent(now), 2) if one.dollars_per_hour else None,
        "uptime_seconds": one.uptime_s,
        "data_center": one.data_center,
        "ssh": f"{one.ssh[0]}:{one.ssh[1]}" if one.ssh else None,
        "cluster": one.cluster,
        "ours": one.is_ours,
    }


def pod(one: Pod, now: float) -> str:
    """Return one pod, a line a fact."""
    shown = {name: value for name, value in facts(one, now).items() if value not in (None, "", [])}
    shown["gpus_percent"] = ", ".join(f"{busy} % busy, {memory} % memory" for busy, memory in one.gpu_use or ()) or "-"
    wide = max(map(len, shown))
    return "\n".join(f"{name:<{wide}}  {value}" for name, value in shown.items())


def volumes(found: Sequence[Volume]) -> str:
    """Return all network volumes."""
    if not found:
        return "no network volumes"
    rows = [
        [one.id, one.name, str(one.size_gb), one.data_center, f"{monthly_dollars(one.size_gb):.2f}"] for one in found
    ]
    return table([["ID", "NAME", "GB", "DATA CENTER", "$/MONTH"], *rows])


def gpus(found: Sequence[Offer], count: int) -> str:
    """Return the catalogue, the cheapest first; types that are not offered are left out."""
    offered = sorted((one for one in found if one.dollars and one.max_count >= count), key=lambda one: one.dollars)
    rows = [
        [one.id, str(one.memory_gb), f"{one.dollars * count:.2f}", one.stock or "-", _centers(one)] for one in offered
    ]
    return table([["GPU", "GB", "$/H", "STOCK", "WHERE"], *rows])


def _centers(one: Offer) -> str:
    return ",".join(sorted(place for place, stock in one.stock_in.items() if stock != "NONE")) or "-"


def idle(found: Sequence[Idle], now: float, *, deleted: bool) -> str:
    """Return the pods that are paid for nothing."""
    rows = [
        [one.pod.id, one.pod.name, f"{one.pod.dollars_per_hour:.2f}", spent(one.pod, now), one.why] for one in found
    ]
    note = "deleted" if deleted else "`trainwright runpod reap --delete` deletes them"
    return f"{table([['ID', 'NAME', '$/H', 'SPENT', 'WHY'], *rows])}\n{note}; volumes stay"
