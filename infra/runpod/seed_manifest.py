"""Recognises manifests in the manner of Kubernetes, which an older guide for RunPod used, and says what to write."""

from typing import Any

from infra.runpod.gpus import gpu_id

SIGNS = ("kind", "imageName", "gpuType", "gpuCount", "volumeMounts", "minVcpus", "minMemory", "command")
"""Keys that RunPod's own body does not have and such a manifest does."""


def explain(tree: dict[str, Any]) -> str | None:
    """Return one line for each key of such a manifest, or None when it is none."""
    if sum(sign in tree for sign in SIGNS) < 2:
        return None
    says = [line for key in tree for line in _line(key, tree[key])]
    start = "no RunPod program ever read this shape of manifest; write RunPod's own create body instead:"
    end = "`trainwright render runpod-1b --target runpod -o infra` writes a whole one"
    return "\n  ".join([start, *says, end])


def _line(key: str, value: Any) -> list[str]:
    first = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}
    gpu = gpu_id(str(value))
    mount = f"{{volumeId: {first.get('volumeName')}, path: {first.get('mountPath')}}}"
    ports = [f"{one.get('containerPort')}/{str(one.get('protocol', 'tcp')).lower()}" for one in _items(value)]
    lines = {
        "apiVersion": "leave it out",
        "kind": "leave it out",
        "metadata": "name: stands at the top",
        "spec": "its keys stand at the top",
        "imageName": f"image: {value}",
        "gpuType": f"gpu: {{id: {gpu}}}",
        "gpuCount": f"gpu: {{count: {value}}}",
        "minVcpus": "leave it out: RunPod's API takes no number of CPU cores for a GPU pod",
        "minMemory": "leave it out: RunPod's API takes no amount of memory for a GPU pod",
        "volumeMounts": f"mounts: {{network: [{mount}]}}",
        "ports": f"ports: {ports}",
        "env": "env: a block of NAME: value, each value in quotes",
        "command": "leave it out: the image's boot does all that the script did; args: boot",
    }
    if key not in lines or (key == "env" and not isinstance(value, list)):
        return []
    if key == "ports" and not first:
        return []
    return [f"{key}: {lines[key]}" if lines[key].startswith("leave") else f"{key} -> {lines[key]}"]


def _items(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
