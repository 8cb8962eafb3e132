"""The shard stage: a source's documents become text shards for training and validation, once.

    open the source -> compare with the shards that are there -> write (or go on writing) -> `complete`

The source is replayed in its fixed order on every start and committed shards are passed over by count, so a run killed
anywhere ends with the same bytes. One process writes a corpus: the lease lies in its training folder.
"""

import hashlib
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharder import stop
from sharder.adopt import adopt, foreign_manifest, has_files
from sharder.progress import Progress
from sharder.sources import SOURCES, Corpus, Request
from sharder.sources.corpus import CorpusError, SourceAbsentError
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Places, Split
from trainwright.spec.resolved import changes, flat, plain
from trainwright.store.files import remove_temporaries
from trainwright.store.lease import acquire
from trainwright.store.text_shards import Drops, TextManifest, TextShardWriter

LEASE = "lease.json"
NOT_INPUTS = ("data.source.max_bad_share",)
"""Settings of a source that decide whether its text is accepted, not what it is."""

Facts = dict[str, object]
Manifests = dict[Split, TextManifest]

log = logging.getLogger(__name__)


def run(places: Places) -> Facts:
    """Make the text shards of an experiment, unless they are there; return facts about them."""
    existing = _existing(places)
    if (done := _already_there(places, existing)) is not None:
        return _facts("already", done)
    folder = places.text("train")
    with acquire(folder / LEASE, f"sharding {places.experiment.data_name}", wait=_say):
        # Another process may have finished while we came to hold the lease.
        existing = _existing(places)
        if (done := _already_there(places, existing)) is not None:
            return _facts("already", done)
        for split in SPLITS:
            places.text(split).mkdir(parents=True, exist_ok=True)
            remove_temporaries(places.text(split))
        if any(has_files(places.text(split)) and split not in existing for split in SPLITS):
            _demand_reuse(places)
            return _facts("adopted", {split: adopt(places.text(split), split) for split in reversed(SPLITS)})
        if not places.experiment.data.shard:
            raise UserError(f"{folder}: no complete text shards here, and data.shard is false; {_ways_to_shards()}")
        return _write(places, existing)


def read_text(places: Places) -> Manifests:
    """Return the manifests of both splits for a later stage; raise `UserError` when they are not complete."""
    found: Manifests = {split: TextManifest.read(places.text(split)) for split in SPLITS}
    for split, manifest in found.items():
        if not manifest.complete:
            raise UserError(f"{places.text(split) / MANIFEST}: not complete; run the shard stage to its end first")
    return found


def _existing(places: Places) -> Manifests:
    found: Manifests = {}
    for split in SPLITS:
        folder = places.text(split)
        if foreign_manifest(folder):
            _demand_reuse(places)
        elif (folder / MANIFEST).exists():
            found[split] = TextManifest.read(folder)
    return found


def _already_there(places: Places, existing: Manifests) -> Manifests | None:
    """Return the manifests when nothing has to be done; raise `UserError` when other shards are in the way."""
    if len(existing) < len(SPLITS) or not all(manifest.complete for manifest in existing.values()):
        return None
    data = places.experiment.data
    if data.shard and not data.reuse_shards:
        _demand_equal(places, existing, {})
        try:
            opened = _open(places, existing)
        except SourceAbsentError as error:
            # The corpus travelled without the files that it was made from; its other inputs are still compared.
            log.info("stage=shard source=absent reason=%r", str(error))
            opened = {}
        _demand_equal(places, existing, opened)
    for split, manifest in existing.items():
        manifest.verify(places.text(split), hashes=False)
    return existing


@dataclass(frozen=True, slots=True)
class _Opened:
    """The corpora that the splits come from: one for both, or one each."""

    train: Corpus
    val: Corpus | None


def _open(places: Places, existing: Manifests) -> dict[Split, Corpus]:
    data = places.experiment.data
    places_of_text: dict[Split, tuple[str, str | None]] = {"train": ("data.path", data.path)}
    if data.validation is not None:
        places_of_text["val"] = ("data.validation", data.validation)
    opened: dict[Split, Corpus] = {}
    for split, (field, path) in places_of_text.items():
        earlier = existing[split].inputs if split in existing else {}
        request = Request(data.source, Path(path) if path else None, field, places.hf_cache, earlier)
        opened[split] = SOURCES[data.source.kind](request)
    return opened


def _inputs(places: Places, split: Split, opened: Mapping[Split, Corpus]) -> dict[str, Any]:
    """Return everything that decides the shards of a split, by dotted field."""
    experiment = places.experiment
    source = {f"data.source.{key}": value for key, value in flat(plain(experiment)["data"]["source"])}
    inputs = {key: value for key, value in source.items() if key not in NOT_INPUTS}
    inputs["data.documents_per_shard"] = experiment.data.documents_per_shard
    if experiment.data.validation is None:
        inputs |= {"seed": experiment.seed, "data.validation_fraction": experiment.data.validation_fraction}
    else:
        inputs["data.validation"] = "a separate corpus"
    corpus = opened.get(split, opened.get("train"))
    return {**inputs, **(corpus.inputs if corpus else {})}


def _demand_equal(places: Places, existing: Manifests, opened: Mapping[Split, Corpus]) -> None:
    for split, manifest in existing.items():
        if manifest.mode == "adopted":
            what = "these shards were placed by hand and adopted"
            raise UserError(f"{places.text(split)}: {what}; set data.reuse_shards=true to go on using them")
        inputs = _inputs(places, split, opened)
        recorded = {key: value for key, value in manifest.inputs.items() if opened or key in inputs}
        if differing := changes(recorded, inputs):
            found = "; ".join(str(change) for change in differing)
            raise UserError(f"{places.text(split)}: holds shards made from other inputs: {found}; {_ways_out()}")


def _demand_reuse(places: Places) -> None:
    if not places.experiment.data.reuse_shards:
        folder = next(places.text(split) for split in SPLITS if has_files(places.text(split)))
        way = "set data.reuse_shards=true to adopt them, or choose another data.name"
        raise UserError(f"{folder}: holds files that no manifest of ours lists; {way}")


def _write(places: Places, existing: Manifests) -> Facts:
    # Manifests without a shard hold no work: they are begun again, whatever they were begun for.
    kept = {split: manifest for split, manifest in existing.items() if manifest.shards}
    _demand_equal(places, kept, {})
    opened = _open(places, kept)
    _demand_equal(places, kept, opened)
    experiment = places.experiment
    mode = "fraction" if experiment.data.validation is None else "separate"
    seed = experiment.seed if mode == "fraction" else None
    with ExitStack() as stack, Progress("shard") as progress:
        writers: dict[Split, TextShardWriter] = {}
        for split in SPLITS:
            begun = TextManifest(split, mode, seed, _inputs(places, split, opened))
            manifest = kept.get(split, begun)
            manifest.verify(places.text(split), hashes=True)
            writer = TextShardWriter(places.text(split), manifest, experiment.data.documents_per_shard, Drops())
            writers[split] = stack.enter_context(writer)
        try:
            _fill(places, opened, writers, progress)
        except CorpusError:
            for writer in writers.values():
                writer.discard()
            raise
        done: Manifests = {split: writers[split].complete() for split in reversed(SPLITS)}
    return _facts("written", done) | {"seconds": f"{progress.seconds:.1f}", "mb_per_s": f"{progress.mb_per_s:.1f}"}


def _fill(
    places: Places, opened: Mapping[Split, Corpus], writers: Mapping[Split, TextShardWriter], progress: Progress
) -> None:
    """Read every corpus and hand each document to the writer of its split."""
    data = places.experiment.data
    fraction = data.validation_fraction if data.validation is None else 0.0
    counts: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for source_split, corpus in opened.items():
        for text in corpus.documents(writers[source_split].drops):
            stop.check()
            encoded = text.encode("utf-8")
            split = source_split
            if fraction and is_validation(encoded, places.experiment.seed, fraction):
                split = "val"
            writers[split].add(text, len(encoded))
            counts[split] += 1
            progress.add(len(encoded), documents=sum(counts.values()), shards=_num_shards(writers))
    for split in SPLITS:
        if not counts[split]:
            raise CorpusError(_no_documents(places, split, sum(counts.values())))
        writers[split].commit_rest()


def is_validation(text: bytes, seed: int, fraction: float) -> bool:
    """Return whether a document is for validation: by a hash of seed and content, so equal texts stay together."""
    digest = hashlib.sha256(b"%d\0" % seed + text).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _no_documents(places: Places, split: Split, total: int) -> str:
    data = places.experiment.data
    if data.validation is not None:
        field, value = ("data.path", data.path) if split == "train" else ("data.validation", data.validation)
        return f"{field}={value}: not one document in it; give files that hold text"
    if not total:
        return f"data.path={data.path}: not one document in it; give files that hold text"
    what = "validation" if split == "val" else "training"
    way = "change the fraction, or give a separate corpus in data.validation"
    return f"data.validation_fraction={data.validation_fraction}: of {total} documents none fell to {what}; {way}"


def _num_shards(writers: Mapping[Split, TextShardWriter]) -> int:
    return sum(len(writer.manifest.shards) for writer in writers.values())


def _facts(state: str, manifests: Manifests) -> Facts:
    facts: Facts = {"stage": "shard", "state": state}
    for split in SPLITS:
        facts[f"{split}_documents"] = manifests[split].num_documents
        facts[f"{split}_shards"] = len(manifests[split].shards)
        facts[f"{split}_mb"] = f"{manifests[split].text_bytes / 1e6:.1f}"
    dropped = sum((Drops(manifest.drops) for manifest in manifests.values()), Drops())
    facts["dropped"] = ",".join(f"{reason.replace(' ', '_')}:{count}" for reason, count in sorted(dropped.items())) or 0
    return facts


def _ways_to_shards() -> str:
    return "set data.shard=true (or RUN_SHARD=1), or place shard files there and set data.reuse_shards=true"


def _ways_out() -> str:
    return "choose another data.name, run boot --redo shard, or accept them with data.reuse_shards=true"


def _say(why: str) -> None:
    log.info("stage=shard waiting: %s", why)
