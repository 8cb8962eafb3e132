"""Token files that other projects wrote, brought into our layout with a manifest: `python -m sharder import`.

Read are headerless uint16 (nanoGPT's `train.bin`), llm.c's headers (`fineweb_train_000001.bin`, uint16 and uint32), and
datatrove's `.ds` with its `.ds.metadata` or `.ds.index`. They do not say which tokenizer made them: the one that is
named is taken at its word, except that a token beyond its vocabulary, or an end full of zeros, is refused.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sharder import stop
from sharder.byhand import find_bundle
from sharder.progress import Progress
from trainwright.spec.canonical import sha256_json
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, Split, shard_name
from trainwright.store.files import remove_temporaries, sha256_file
from trainwright.store.lease import acquire
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.shards import Layout, ShardEntry, ShardWriter, TokenManifest, Tokens, read_layout

ENDINGS = (".bin", ".ds")
SHARD_TOKENS = 1 << 30
"""Tokens of one shard of ours; a `train.bin` may have many times that."""
CHUNK_TOKENS = 4 << 20
DEAD_TOKENS = 4096
"""So many zeros at the end of a file are what a killed writer leaves of a file that was made at full size."""

Facts = dict[str, object]


def run(given: Path, tokenizer: str, output: Path, root: Path) -> Facts:
    """Import the token files at a path, in the order of their names; return facts about them."""
    files = token_files(given)
    folder = find_bundle(tokenizer, root, output)
    bundle = Bundle.load(folder)
    identity = sha256_json([[path.name, sha256_file(path)] for path in files])
    begun = TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, identity, complete=False)
    state, manifest = "already", _existing(output, begun)
    if not manifest.complete:
        with acquire(output / "lease.json", f"importing {given}"), Progress("import") as progress:
            remove_temporaries(output)
            shards = tuple(_shards(files, bundle, output, progress))
            state = "written"
            manifest = TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, identity, True, shards)
            manifest.write(output)
    facts: Facts = {"stage": "import", "state": state, "files": len(files), "documents": manifest.num_documents}
    return facts | {"tokens": manifest.num_tokens, "shards": len(manifest.shards), "folder": output}


def token_files(given: Path) -> list[Path]:
    """Return the token files at a path; raise `UserError` naming what is none."""
    if not given.exists():
        raise UserError(f"--input {given}: there is no such file or folder; correct the path")
    found = [given] if given.is_file() else sorted(path for path in given.iterdir() if path.name.endswith(ENDINGS))
    if not found or not found[0].name.endswith(ENDINGS):
        raise UserError(f"--input {given}: no token files here ({' '.join(ENDINGS)})")
    return found


def foreign_layout(path: Path) -> Layout:
    """Return the layout of a token file of any project that is read here."""
    if path.suffix != ".ds":
        return read_layout(path)
    size = path.stat().st_size
    width = _stated_width(path)
    if width not in (2, 4) or size % width or not size:
        raise UserError(
            f"{path}: {size} bytes are no whole number of tokens; its .ds.metadata or .ds.index must say more"
        )
    return Layout(0, width, size // width)


def _stated_width(path: Path) -> int:
    """Return the bytes of a token as datatrove's files beside say: `tokenizer|token_size`, or the end of the index."""
    metadata, index = path.with_name(path.name + ".metadata"), path.with_name(path.name + ".index")
    if metadata.exists():
        width = metadata.read_text().partition("\n")[0].rpartition("|")[2]
        return int(width) if width.isdecimal() else 0
    if index.exists() and index.stat().st_size >= 8:
        total = int(np.fromfile(index, dtype="<u8")[-1])
        return path.stat().st_size // total if total else 0
    return 0


def _existing(output: Path, begun: TokenManifest) -> TokenManifest:
    if not (output / MANIFEST).exists():
        return begun
    found = TokenManifest.read(output)
    if (found.tokenizer_hash, found.text_sha256) != (begun.tokenizer_hash, begun.text_sha256):
        raise UserError(f"{output}: holds tokens of other files or another tokenizer; choose another --output")
    return found


def _shards(files: list[Path], bundle: Bundle, output: Path, progress: Progress) -> Iterator[ShardEntry]:
    split: Split = "val" if "val" in files[0].name else "train"
    number = 0
    for path in files:
        layout = foreign_layout(path)
        tokens = np.memmap(path, layout.dtype, "r", layout.header_bytes, (layout.num_tokens,))
        if len(tokens) > DEAD_TOKENS and not tokens[-DEAD_TOKENS:].any():
            what = f"ends in {DEAD_TOKENS} zeros or more, as a file does whose writer was killed"
            raise UserError(f"{path}: {what}; make it again")
        for start in range(0, len(tokens), SHARD_TOKENS):
            target = output / f"{shard_name(split, number)}.bin"
            yield _copy(path, tokens[start : start + SHARD_TOKENS], bundle, target, progress)
            number += 1


def _copy(path: Path, tokens: Tokens, bundle: Bundle, target: Path, progress: Progress) -> ShardEntry:
    num_documents = 0
    with ShardWriter(target, bundle.vocab_size) as shard:
        for start in range(0, len(tokens), CHUNK_TOKENS):
            stop.check()
            chunk = tokens[start : start + CHUNK_TOKENS]
            if (largest := int(chunk.max())) >= bundle.vocab_size:
                what = f"holds token {largest}, but the tokenizer has {bundle.vocab_size} entries"
                raise UserError(f"{path}: {what}; name the tokenizer that made it")
            num_documents += int((chunk == bundle.separator).sum())
            shard.add(chunk)
            progress.add(chunk.nbytes)
        return shard.commit(num_documents)
