"""The flags of `python -m sharder shard`: each is another spelling of a field, and a mode is a set of them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import find_experiment, split_words
from trainwright.spec.presets import PRESETS
from trainwright.spec.resolved import open_experiment
from trainwright.spec.variables import RUN_CONFIG_TEXT

FLAGS: Mapping[str, tuple[str, str]] = {
    "--docs-per-shard": ("data.documents_per_shard", "documents in one shard (SHARD_LINES sets it too)"),
    "--take": ("data.source.take", "read at most so many documents"),
    "--max-bytes": ("data.source.max_bytes", "read at most so many bytes of text"),
    "--val-ratio": ("data.validation_fraction", "the share of documents that are for validation"),
    "--seed": ("seed", "what chooses validation and shuffles"),
    "--preset": ("data.source.preset", f"a known data set: {', '.join(PRESETS)}"),
    "--dataset": ("data.source.dataset", "a data set of the hub"),
    "--config": ("data.source.config", "its configuration"),
    "--split": ("data.source.split", "its split"),
    "--revision": ("data.source.revision", "its commit, branch or tag"),
    "--num-files": ("data.source.num_files", "only so many of its files"),
    "--source": ("data.source.kind", "where text comes from: text, jsonl, parquet, hub, s3, stdlib"),
    "--input": ("data.path", "local files, for the sources text, jsonl and parquet"),
    "--output": ("paths.data", "the folder that gets datasets/{train,val}/NAME"),
    "--work": ("data.work", "the folder of unfinished work"),
    "--temporary": ("data.temporary", "the folder of downloads"),
    "--disk-reserve-gib": ("data.disk_reserve_gib", "stop while so much of the disk is free"),
    "--memory-mib": ("data.memory_mib", "memory for text while documents are shuffled"),
    "--workers": ("data.workers", "processes; 0 is one for each processor"),
}
"""Flag -> the field that it sets, and what that is."""
ALSO = {"--docs-per-shard": ("--lines-per-shard",)}
SWITCHES: Mapping[str, tuple[str, str, str]] = {
    "--gzip": ("data.compression", "gzip", "write .jsonl.gz instead of .jsonl.zst"),
    "--plain": ("data.compression", "none", "write .jsonl"),
    "--shuffle": ("data.shuffle_documents", "true", "put the documents into a seeded order"),
    "--adopt": ("data.reuse_shards", "true", "use the shards placed in those folders: count, hash and list them"),
    "--remove-work-files": ("data.remove_work_files", "true", "empty --work once every shard's hash was verified"),
}
"""Switch -> the field that it sets, the value, and what that means."""
MODES: Mapping[str, Mapping[str, str]] = {
    "smoke": {"data.source.take": "20000", "data.validation_fraction": "0.1"},
    "prod": {"data.validation_fraction": "0.0005"},
    "split": {},
}
"""Mode -> values that hold unless they are given: a first look; everything; a split of which --val-ratio is asked."""
FIELD_OF_TEXT = {"jsonl": "data.source.field"}
"""Where a source names what holds the text; the others call it a column."""
WITHOUT_EXPERIMENT = "name: {name}\ntrain: {{global_batch_sequences: 1, micro_batch: 1, steps: 1}}\n"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags, the modes and the rest of what `shard` can be asked by hand."""
    hand = parser.add_argument_group("other spellings of fields")
    hand.add_argument("--mode", choices=sorted(MODES), help="smoke: 20,000 documents; prod: all; split: --val-ratio")
    for flag, (path, page) in FLAGS.items():
        hand.add_argument(flag, *ALSO.get(flag, ()), dest=path, metavar="X", help=page)
    for flag, (path, value, page) in SWITCHES.items():
        hand.add_argument(flag, dest=path, action="store_const", const=value, help=page)
    hand.add_argument("--text-field", metavar="X", help="the column or key that holds the text")
    hand.add_argument("--name", metavar="NAME", help="the corpus's name; enough where there is no experiment")
    parser.add_argument("--part", metavar="i/K", help="work on part i of K; the last to finish publishes the shards")


def experiment_of(arguments: argparse.Namespace, words: Sequence[str]) -> Experiment:
    """Return the experiment that words and flags name together."""
    name, given = split_words(words)
    flags = {path: getattr(arguments, path) for path, _ in FLAGS.values()}
    flags |= {path: getattr(arguments, path) for path, _, _ in SWITCHES.values()}
    flags["data.name"] = arguments.name
    values = {path: value for path, value in flags.items() if value is not None}
    chosen = {override.partition("=")[0] for override in given}
    if arguments.mode == "split" and "data.validation_fraction" not in {*values, *chosen}:
        raise UserError("--mode split: --val-ratio missing; give the share of documents for validation, such as 0.01")
    if "data.source.preset" in values or "data.source.dataset" in values:
        values["data.source.kind"] = "hub"
    for path, value in MODES.get(arguments.mode, {}).items():
        if path not in chosen:
            values.setdefault(path, value)
    overrides = [*(f"{path}={value}" for path, value in values.items()), *given]
    file = _file(name, arguments.name)
    experiment = open_experiment(file, overrides)
    if arguments.text_field is None:
        return experiment
    field = FIELD_OF_TEXT.get(experiment.data.source.kind, "data.source.column")
    return open_experiment(file, [*overrides, f"{field}={arguments.text_field}"])


def corpus_named(name: str) -> Experiment:
    """Return an experiment that says no more than the name of its corpus."""
    return open_experiment(_file(None, name), [f"data.name={name}"])


def _file(name: str | None, corpus: str | None) -> Path:
    """Return the experiment's file; a corpus that is named needs none."""
    if name is None and corpus is not None:
        return find_experiment(None, {RUN_CONFIG_TEXT: WITHOUT_EXPERIMENT.format(name=corpus)})
    return find_experiment(name)
