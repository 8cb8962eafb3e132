"""The encode stage: text shards become token shards, one for one, in `tokens-HASH8/` below the text.

Each shard is a task for a worker process. The manifest is written again after each one, `complete` after the last, so
a killed run goes on; what is written depends on text and tokenizer alone, not on workers or kills.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from sharder import stop
from sharder.encoders import Encoder, choose_encoder
from sharder.progress import Progress
from sharder.shard import LEASE, Facts, read_text
from sharder.workers import num_workers, spread
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Places, Split, shard_name
from trainwright.store.files import remove_temporaries, verify_entry
from trainwright.store.lease import acquire
from trainwright.store.text_shards import IMPORTED, TextManifest, TextShard, read_encoded
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.shards import ShardEntry, ShardWriter, TokenManifest, verify_shards

BATCH_BYTES = 1 << 18
"""Text that is encoded at once; larger batches are no faster."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """One split to encode: its text, and the folder of its tokens."""

    text: Path
    manifest: TextManifest
    tokens: Path


@dataclass(frozen=True, slots=True)
class Task:
    """One text shard to encode."""

    text: Path
    shard: TextShard
    output: Path


@dataclass(frozen=True, slots=True)
class Means:
    """What encodes: the bundle, its folder, and the encoder that was chosen among all or only tiktoken."""

    bundle: Bundle
    folder: Path
    encoder: Encoder
    fast: bool


def run(places: Places) -> Facts:
    """Encode both splits of an experiment, unless that is done; return facts about the tokens."""
    if not (places.tokenizer / MANIFEST).exists():
        raise UserError(f"{places.tokenizer}: no tokenizer bundle here; run the tokenizer stage first")
    bundle = Bundle.load(places.tokenizer)
    targets: dict[Split, Target] = {
        split: Target(places.text(split), manifest, places.tokens(split, bundle.hash))
        for split, manifest in read_text(places).items()
    }
    data = places.experiment.data
    done, progress = encode(targets, bundle, places.tokenizer, data.workers, fast=data.encoder == "fastest")
    facts: Facts = {"stage": "encode", "state": "written" if progress else "already"}
    for split in SPLITS:
        facts |= {f"{split}_tokens": done[split].num_tokens, f"{split}_token_shards": len(done[split].shards)}
    return facts | speed_facts(progress) | {"folder": targets["train"].tokens}


def speed_facts(progress: Progress | None) -> Facts:
    """Return how fast it went; nothing when there was nothing to do."""
    return {} if progress is None else {"seconds": f"{progress.seconds:.1f}", "mb_per_s": f"{progress.mb_per_s:.1f}"}


def encode(
    targets: dict[Split, Target], bundle: Bundle, bundle_folder: Path, asked_workers: int, *, fast: bool = True
) -> tuple[dict[Split, TokenManifest], Progress | None]:
    """Encode every shard that is missing; return the manifests, and the progress when there was something to do."""
    begun = {split: _begin(target, bundle) for split, target in targets.items()}
    if all(manifest.complete for manifest in begun.values()):
        for split, manifest in begun.items():
            verify_shards(targets[split].tokens, manifest.shards, hashes=False)
        return begun, None
    lease = next(iter(targets.values())).tokens / LEASE
    with acquire(lease, f"encoding {lease.parent}", wait=_say):
        # Read again under the lease: another process may have worked while we came to hold it.
        begun = {split: _begin(target, bundle) for split, target in targets.items()}
        encoder, why = choose_encoder(bundle, bundle_folder, fast=fast)
        log.info("stage=encode encoder=%s reason=%s", encoder.name, why)
        means = Means(bundle, bundle_folder, encoder, fast)
        return _encode_missing(targets, begun, means, asked_workers)


def _begin(target: Target, bundle: Bundle) -> TokenManifest:
    """Return the manifest to go on from; raise `UserError` when it is of other text or another tokenizer."""
    fresh = TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, target.manifest.sha256, complete=False)
    if not (target.tokens / MANIFEST).exists():
        if target.manifest.mode == IMPORTED:
            what = f"came as tokens, without text for tokenizer {bundle.hash[:8]}"
            raise UserError(f"{target.text}: {what}; give the tokenizer that it was imported with in tokenizer.path")
        return fresh
    found = TokenManifest.read(target.tokens)
    way = "run boot --redo tokenizer, or move that folder aside"
    if found.tokenizer_hash != bundle.hash:
        what = f"tokenizer {found.tokenizer_hash[:8]}, is now {bundle.hash[:8]}"
        raise UserError(f"{target.tokens}: was encoded with {what}; {way}")
    if found.text_sha256 != target.manifest.sha256:
        what = f"text {found.text_sha256[:8]}, but {target.text} now holds {target.manifest.sha256[:8]}"
        raise UserError(f"{target.tokens}: was encoded from {what}; {way}")
    return found


def _encode_missing(
    targets: dict[Split, Target], begun: dict[Split, TokenManifest], means: Means, asked_workers: int
) -> tuple[dict[Split, TokenManifest], Progress]:
    todo: list[tuple[Split, Task]] = []
    for split, target in targets.items():
        target.tokens.mkdir(parents=True, exist_ok=True)
        remove_temporaries(target.tokens)
        verify_shards(target.tokens, begun[split].shards, hashes=True)
        begun[split].write(target.tokens)
        todo += [(split, task) for task in _tasks(target, begun[split])]
    text_bytes = sum(task.shard.text_bytes for _, task in todo)
    processes = min(num_workers(asked_workers, text_bytes), len(todo))
    with (
        Progress("encode", text_bytes) as progress,
        closing(_entries(todo, means, processes, progress)) as entries,
    ):
        for split, task, entry in entries:
            shards = sorted((*begun[split].shards, entry), key=lambda shard: shard.path)
            begun[split] = replace(begun[split], shards=tuple(shards))
            begun[split].write(targets[split].tokens)
            num_tokens = sum(manifest.num_tokens for manifest in begun.values())
            progress.add(task.shard.text_bytes, tokens=num_tokens)
    for split, target in targets.items():
        begun[split] = replace(begun[split], complete=True)
        begun[split].write(target.tokens)
    return begun, progress


def _tasks(target: Target, begun: TokenManifest) -> Iterator[Task]:
    committed = {shard.path for shard in begun.shards}
    for index, shard in enumerate(target.manifest.shards):
        output = target.tokens / f"{shard_name(target.manifest.split, index)}.bin"
        if output.name not in committed:
            yield Task(target.text, shard, output)


def _entries(
    todo: list[tuple[Split, Task]], means: Means, processes: int, progress: Progress
) -> Generator[tuple[Split, Task, ShardEntry]]:
    """Yield each task with the shard that it made, as they finish."""
    if processes <= 1:
        yield from ((split, task, encode_shard(task, means.bundle, means.encoder)) for split, task in todo)
        return
    function = partial(_encode_in_worker, means.folder, means.fast)
    with closing(spread(function, [task for _, task in todo], processes, lambda: progress.add(0))) as done:
        for index, entry in done:
            yield *todo[index], entry


@cache
def _loaded(bundle_folder: Path, fast: bool) -> tuple[Bundle, Encoder]:
    # A worker reads the bundle once; passing it with each task would copy the vocabulary each time.
    bundle = Bundle.load(bundle_folder)
    return bundle, choose_encoder(bundle, bundle_folder, fast=fast)[0]


def _encode_in_worker(bundle_folder: Path, fast: bool, task: Task) -> ShardEntry:
    return encode_shard(task, *_loaded(bundle_folder, fast))


def encode_shard(task: Task, bundle: Bundle, encoder: Encoder) -> ShardEntry:
    """Write the token shard of one text shard, whose hash is verified first."""
    if problem := verify_entry(task.text, task.shard.file, hashes=True):
        raise UserError(f"{problem}; restore the file, or run boot --redo shard")
    num_documents = 0
    with ShardWriter(task.output, bundle.vocab_size) as shard:
        for documents in _batches(task.text / task.shard.path):
            shard.add(encoder.encode(documents))
            num_documents += len(documents)
        if num_documents != task.shard.num_documents:
            what = f"{num_documents} documents, but its manifest says {task.shard.num_documents}"
            raise UserError(f"{task.text / task.shard.path}: holds {what}; run boot --redo shard")
        return shard.commit(num_documents)


def _batches(path: Path) -> Iterator[list[bytes]]:
    """Yield the documents of a text shard, as UTF-8, some at once."""
    documents: list[bytes] = []
    num_bytes = 0
    for _, data in read_encoded(path):
        stop.check()
        documents.append(data)
        num_bytes += len(data)
        if num_bytes >= BATCH_BYTES:
            yield documents
            documents, num_bytes = [], 0
    yield documents


def _say(why: str) -> None:
    log.info("stage=encode waiting: %s", why)
