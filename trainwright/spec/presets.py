"""Data sets of the Hugging Face hub that are known by name, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PresetName = Literal[
    "fineweb",
    "fineweb-10bt",
    "fineweb-100bt",
    "fineweb-edu",
    "fineweb-edu-10bt",
    "fineweb-edu-100bt",
    "dclm-baseline-1.0",
    "dclm-baseline-1.0-10prct",
    "fineweb-edu-shuffled",
    "climbmix-shuffled",
]


@dataclass(frozen=True, slots=True)
class HubPlace:
    """What is read of the hub: a data set by its configuration, or by patterns of the files in its repository."""

    dataset: str
    config: str | None = None
    files: str | None = None
    validation_files: str | None = None


PRESETS: Mapping[PresetName, HubPlace] = {
    "fineweb": HubPlace("HuggingFaceFW/fineweb", "default"),
    "fineweb-10bt": HubPlace("HuggingFaceFW/fineweb", "sample-10BT"),
    "fineweb-100bt": HubPlace("HuggingFaceFW/fineweb", "sample-100BT"),
    "fineweb-edu": HubPlace("HuggingFaceFW/fineweb-edu", "default"),
    "fineweb-edu-10bt": HubPlace("HuggingFaceFW/fineweb-edu", "sample-10BT"),
    "fineweb-edu-100bt": HubPlace("HuggingFaceFW/fineweb-edu", "sample-100BT"),
    "dclm-baseline-1.0": HubPlace("mlfoundations/dclm-baseline-1.0", files="global-shard_*.jsonl.zst"),
    "dclm-baseline-1.0-10prct": HubPlace("mlfoundations/dclm-baseline-1.0", files="global-shard_01_of_10/*.jsonl.zst"),
    # The last file of each is its author's validation set.
    "fineweb-edu-shuffled": HubPlace(
        "karpathy/fineweb-edu-100b-shuffle", files="shard_*.parquet", validation_files="shard_01822.parquet"
    ),
    "climbmix-shuffled": HubPlace(
        "karpathy/climbmix-400b-shuffle", files="shard_*.parquet", validation_files="shard_06542.parquet"
    ),
}
