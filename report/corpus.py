"""Reads what a run was trained on: text shards, token shards, the tokenizer, and how well it compresses."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from report.records import Gaps
from trainwright.spec.exits import UserError
from trainwright.spec.resolved import Training
from trainwright.store.text_shards import TextManifest
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.shards import TokenManifest, read_layout

SAMPLE_TOKENS = 2_000_000
"""Tokens of the first validation shard from which the compression is measured."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How many bytes of UTF-8 text one token stands for, and over how many tokens that was counted."""

    bytes_per_token: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Part:
    """One split of the corpus; None is what could not be read."""

    tokens: TokenManifest | None = None
    text: TextManifest | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a run was trained on."""

    train: Part = Part()
    val: Part = Part()
    bundle: Bundle | None = None
    compression: Compression | None = None


def read_corpus(training: Training, gaps: Gaps) -> Corpus:
    """Return what is known of a run's corpus; what is missing is noted."""
    train = _part(training.train_tokens, "training", gaps)
    val = _part(training.val_tokens, "validation", gaps)
    bundle = gaps.read("tokenizer bundle", lambda: Bundle.load(training.tokenizer))
    compression = None
    if bundle is not None and val.tokens is not None:
        manifest = val.tokens
        compression = gaps.read("compression", lambda: measure_compression(training.val_tokens, manifest, bundle))
    return Corpus(train, val, bundle, compression)


def measure_compression(folder: Path, manifest: TokenManifest, bundle: Bundle) -> Compression:
    """Return the text bytes per token over the start of a folder's first shard.

    A token counts for its bytes; separators count as tokens of no bytes, as they do in training.
    """
    if manifest.tokenizer_hash != bundle.hash:
        raise UserError("not measured: the token shards were made with another tokenizer than the bundle")
    if not manifest.shards or not manifest.shards[0].num_tokens:
        raise UserError("not measured: there is no validation shard with tokens")
    path = folder / manifest.shards[0].path
    layout = read_layout(path)
    num_tokens = min(SAMPLE_TOKENS, layout.num_tokens)
    tokens = np.fromfile(path, dtype=layout.dtype, count=num_tokens, offset=layout.header_bytes)
    if len(tokens) == 0 or int(tokens.max()) >= bundle.vocab_size:
        raise UserError(f"not measured: {path.name} holds no tokens of this vocabulary")
    return Compression(int(bundle.token_bytes[tokens].sum()) / len(tokens), len(tokens))


def _part(tokens: Path, words: str, gaps: Gaps) -> Part:
    return Part(
        gaps.read(f"{words} tokens", lambda: TokenManifest.read(tokens)),
        gaps.read(f"{words} text", lambda: TextManifest.read(tokens.parent)),
    )
