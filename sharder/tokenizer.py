"""The tokenizer stage: find the bundle, or make it, and leave it in the shared folder `artifacts/tokenizer/NAME`.

The order: the file that `tokenizer.path` gives -> a bundle in the run's folder -> the shared folder -> make one (train
byte pairs, read GPT-2's vocabulary, or count to 256). The log says which it was and why.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, assert_never

from sharder.pieces import pieces
from sharder.imports import read_tiktoken_file, read_tokenizer_json
from sharder.progress import Progress
from sharder.shard import LEASE, Facts, read_text
from sharder.workers import spread
from trainwright.spec.data import BpeTokenizer, BytesTokenizer, Gpt2Tokenizer
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.paths import MANIFEST, Places
from trainwright.store.assets import GPT2_FILES
from trainwright.store.files import remove_temporaries
from trainwright.store.lease import acquire
from trainwright.store.text_shards import read_documents
from trainwright.tokens.bundle import CHAT_SPECIALS, CL100K_PATTERN, GPT2_PATTERN, GPT4_PATTERN, Bundle, bytes_bundle

PATTERNS = {"gpt2": GPT2_PATTERN, "cl100k": CL100K_PATTERN, "gpt4": GPT4_PATTERN}

log = logging.getLogger(__name__)


def run(places: Places) -> Facts:
    """Leave the experiment's tokenizer in its shared folder; return facts about it."""
    bundle, how = find_or_make(places)
    settings = places.experiment.tokenizer
    if bundle.vocab_size < settings.max_vocab_size:
        what = f"vocab_size={bundle.vocab_size} asked={settings.max_vocab_size}"
        log.info("stage=tokenizer %s (smaller than asked: the rows above stay unused)", what)
    return {
        "stage": "tokenizer",
        "state": how,
        "kind": bundle.kind,
        "vocab_size": bundle.vocab_size,
        "hash": bundle.hash[:8],
        "folder": places.tokenizer,
    }


def find_or_make(places: Places) -> tuple[Bundle, str]:
    """Return the experiment's bundle and which of the ways it came by: given, run, shared, or made."""
    settings = places.experiment.tokenizer
    own = places.run.path / "tokenizer"
    if settings.path is not None:
        bundle = _given(Path(settings.path), settings)
        log.info("stage=tokenizer using=given reason=tokenizer.path=%s", settings.path)
        return _shared(places, bundle), "given"
    if (own / MANIFEST).exists():
        bundle = _checked(Bundle.load(own), settings, own)
        log.info("stage=tokenizer using=run reason=bundle in %s", own)
        return _shared(places, bundle), "run"
    if (places.tokenizer / MANIFEST).exists():
        log.info("stage=tokenizer using=shared reason=bundle in %s", places.tokenizer)
        return _checked(Bundle.load(places.tokenizer), settings, places.tokenizer), "shared"
    log.info("stage=tokenizer using=made reason=none given, none in %s, none in %s", own, places.tokenizer)
    return _make(places), "made"


def _given(path: Path, settings: BpeTokenizer | Gpt2Tokenizer | BytesTokenizer) -> Bundle:
    """Return the bundle that `tokenizer.path` names, in any of the forms that are read."""
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"tokenizer.path={path}: there is no such file or folder; correct the path")
    if path.is_dir():
        if not (path / MANIFEST).exists() and (path / "tokenizer.json").exists():
            return _checked(read_tokenizer_json(path / "tokenizer.json"), settings, path)
        return _checked(Bundle.load(path), settings, path)
    if path.suffix == ".json":
        return _checked(read_tokenizer_json(path), settings, path)
    match settings:
        case BpeTokenizer():
            bundle = read_tiktoken_file(path, "bpe", PATTERNS[settings.pattern])
        case Gpt2Tokenizer():
            bundle = read_tiktoken_file(path, "gpt2", GPT2_PATTERN)
        case BytesTokenizer():
            raise UserError(f"tokenizer.path={path}: kind bytes reads a bundle folder only; leave the path out")
        case _:
            assert_never(settings)
    return _checked(bundle, settings, path)


def _checked(bundle: Bundle, settings: BpeTokenizer | Gpt2Tokenizer | BytesTokenizer, where: Path) -> Bundle:
    """Return the bundle; raise `UserError` naming the field in which it is not what the experiment asks for."""
    if bundle.kind != settings.kind:
        raise UserError(
            f"{where}: tokenizer.kind={settings.kind} is asked, but it holds {bundle.kind}; "
            f"set tokenizer.kind={bundle.kind}, or choose another tokenizer.name"
        )
    asked = settings.max_vocab_size
    same = bundle.vocab_size == asked or bundle.made.get("asked_vocab_size") == asked
    # A vocabulary given by hand may be smaller than the embedding: rows stay unused. A larger one cannot be fed.
    if not same and (settings.path is None or bundle.vocab_size > asked):
        way = f"set tokenizer.vocab_size={bundle.vocab_size}, or choose another tokenizer.name"
        raise UserError(f"{where}: tokenizer.vocab_size={asked} is asked, but it holds {bundle.vocab_size}; {way}")
    if isinstance(settings, BpeTokenizer) and settings.path is None and bundle.made.get("source") == "trained":
        recorded = next((name for name, pattern in PATTERNS.items() if pattern == bundle.pattern), "another")
        if recorded != settings.pattern:
            way = "choose another tokenizer.name"
            raise UserError(f"{where}: tokenizer.pattern={settings.pattern} is asked, but it has {recorded}; {way}")
    return bundle


def _shared(places: Places, bundle: Bundle) -> Bundle:
    """Copy a bundle to the shared folder, unless it is there; raise `UserError` when another one is."""
    folder = places.tokenizer
    if not (folder / MANIFEST).exists():
        return _save(places, bundle)
    found = Bundle.load(folder)
    if found.hash != bundle.hash:
        what = f"holds another tokenizer (hash {found.hash[:8]}, not {bundle.hash[:8]})"
        raise UserError(f"{folder}: {what}; choose another tokenizer.name, or run boot --redo tokenizer")
    return found


def _save(places: Places, bundle: Bundle) -> Bundle:
    bundle.save(places.tokenizer)
    return bundle


def _make(places: Places) -> Bundle:
    settings = places.experiment.tokenizer
    with acquire(places.tokenizer / LEASE, f"making tokenizer {places.experiment.tokenizer_name}", wait=_say):
        remove_temporaries(places.tokenizer)
        if (places.tokenizer / MANIFEST).exists():
            # Another process finished it while we came to hold the lease.
            return _checked(Bundle.load(places.tokenizer), settings, places.tokenizer)
        match settings:
            case BpeTokenizer():
                return _save(places, _train(places, settings))
            case Gpt2Tokenizer():
                return _save(places, gpt2_bundle(places.assets))
            case BytesTokenizer():
                return _save(places, bytes_bundle())
            case _:
                assert_never(settings)


def _train(places: Places, settings: BpeTokenizer) -> Bundle:
    folder, manifest = places.text("train"), read_text(places)["train"]
    if not manifest.num_documents:
        raise UserError(f"{folder}: holds no text to train a tokenizer on; give one in tokenizer.path")
    manifest.verify(folder, hashes=True)
    files = [folder / shard.path for shard in manifest.shards]
    total = min(manifest.text_bytes, settings.max_train_bytes)
    pattern = PATTERNS[settings.pattern]
    num_merged = settings.vocab_size - len(CHAT_SPECIALS)
    # In a process of its own: merging runs for minutes in one call, during which no signal would be heard.
    training = partial(train_bpe, vocab_size=num_merged, pattern=pattern, max_bytes=settings.max_train_bytes)
    with Progress("tokenizer") as progress:
        with closing(spread(training, [files], 1, lambda: progress.add(0, of_mb=f"{total / 1e6:.1f}"))) as results:
            _, (ranks, num_documents, num_bytes) = next(results)
        progress.add(num_bytes)
    log.info("stage=tokenizer trained_mb=%.1f mb_per_s=%.1f", num_bytes / 1e6, progress.mb_per_s)
    made = {
        "source": "trained",
        "asked_vocab_size": settings.vocab_size,
        "text_sha256": manifest.sha256,
        "num_documents": num_documents,
        "num_bytes": num_bytes,
        **_versions("rustbpe", "tiktoken"),
    }
    return with_chat_specials("bpe", pattern, ranks, made)


def train_bpe(files: list[Path], vocab_size: int, pattern: str, max_bytes: int) -> tuple[dict[bytes, int], int, int]:
    """Return merges trained on the first `max_bytes` of the documents, and how many documents and bytes those were."""
    import rustbpe

    counts = [0, 0]

    def texts() -> Iterator[str]:
        for path in files:
            for text in read_documents(path):
                if counts[1] >= max_bytes:
                    return
                counts[0] += 1
                counts[1] += len(text.encode("utf-8"))
                yield from pieces(text)

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(texts(), vocab_size, pattern=pattern)
    return {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}, counts[0], counts[1]


def with_chat_specials(kind: str, pattern: str, ranks: Mapping[bytes, int], made: Mapping[str, Any]) -> Bundle:
    """Return a bundle whose special tokens are ours, numbered after the vocabulary."""
    first = 1 + max(ranks.values())
    return Bundle(kind, pattern, ranks, {name: first + index for index, name in enumerate(CHAT_SPECIALS)}, made)


def gpt2_bundle(assets: Path) -> Bundle:
    """Return GPT-2's tokenizer, from tiktoken's cache folder, or downloaded into it where there is a network."""
    import tiktoken

    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken"))
    cache = os.environ["TIKTOKEN_CACHE_DIR"]
    try:
        encoding = tiktoken.get_encoding("gpt2")
    except (ValueError, OSError) as error:
        files = " and ".join(f"{entry.path} ({what})" for what, entry in GPT2_FILES.items())
        raise MissingError(
            f"{cache}: GPT-2's vocabulary is not here and cannot be downloaded ({type(error).__name__}); on a "
            f"connected machine run fetch, or place tiktoken's cache files {files} in that folder"
        ) from None
    separator = encoding.eot_token
    ranks = {encoding.decode_single_token_bytes(rank): rank for rank in range(separator)}
    made = {"source": "gpt2 of tiktoken", **_versions("tiktoken")}
    return Bundle("gpt2", GPT2_PATTERN, ranks, {"<|endoftext|>": separator}, made)


def _versions(*packages: str) -> dict[str, str]:
    return {package: version(package) for package in packages}


def _say(why: str) -> None:
    log.info("stage=tokenizer waiting: %s", why)
