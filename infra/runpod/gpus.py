"""GPU types by the names that people use; RunPod's own ids are whole names of products."""

import difflib

ALIASES = {
    "A40": "NVIDIA A40",
    "A100": "NVIDIA A100 80GB PCIe",
    "A100-80GB": "NVIDIA A100 80GB PCIe",
    "A100-PCIE": "NVIDIA A100 80GB PCIe",
    "A100-SXM": "NVIDIA A100-SXM4-80GB",
    "B200": "NVIDIA B200",
    "B300": "NVIDIA B300 SXM6 AC",
    "H100": "NVIDIA H100 80GB HBM3",
    "H100-SXM": "NVIDIA H100 80GB HBM3",
    "H100-PCIE": "NVIDIA H100 PCIe",
    "H100-NVL": "NVIDIA H100 NVL",
    "H200": "NVIDIA H200",
    "L4": "NVIDIA L4",
    "L40S": "NVIDIA L40S",
    "MI300X": "AMD Instinct MI300X OAM",
    "RTX-4090": "NVIDIA GeForce RTX 4090",
    "RTX-5090": "NVIDIA GeForce RTX 5090",
    "RTX-6000-ADA": "NVIDIA RTX 6000 Ada Generation",
    "RTX-PRO-6000": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    # What the manifest of an older guide says; RunPod knows no such id.
    "NVIDIA A100-PCIE-80GB": "NVIDIA A100 80GB PCIe",
}
"""Short name -> RunPod's id. Ids that are not listed are passed on: RunPod adds types more often than we do."""


def gpu_id(name: str) -> str:
    """Return RunPod's id for a GPU type; a name that is no alias is taken for an id."""
    short = {alias.upper(): full for alias, full in ALIASES.items()}
    return short.get(name.upper().replace(" ", "-"), short.get(name.upper(), name))


def nearest(name: str, known: list[str]) -> str:
    """Return a hint for a name that is not among the known ids."""
    close = difflib.get_close_matches(name, [*known, *ALIASES], n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else "`trainwright runpod get gpus` lists them"
