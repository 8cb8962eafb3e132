"""Token files that other projects wrote, brought into our layout with a manifest: `python -m sharder import`.

Read are headerless uint16 (nanoGPT's `train.bin`), llm.c's headers (`fineweb_train_000001.bin`, uint16 and uint32), and
datatrove's `.ds` with its `.ds.metadata` or `.ds.index`. They do not say which tokenizer made them: the one that is
named is taken at its word, except that a token beyond its vocabulary, or an end full of zeros, is refused. Files whose
names say `val` or `validation` are for validation, as those projects call them, and never get among the others.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sharder import stop
from sharder.adopt import has_files
from sharder.byhand import find_bundle
from sharder.progress import Progress
from trainwright.spec.canonical import sha256_json
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Places, Split, shard_name
from trainwright.store.files import remove_temporaries, sha256_file
from trainwright.store.lease import acquire
from trainwright.store.text_shards import IMPORTED, TextManifest
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.shards import (
    Layout,
    ShardEntry,
    ShardWriter,
    TokenManifest,
    Tokens,
    read_layout,
    verify_shards,
)

ENDINGS = (".bin", ".ds")
SHARD_TOKENS = 1 << 30
"""Tokens of one shard of ours; a `train.bin` may have many times that."""
CHUNK_TOKENS = 4 << 20
DEAD_TOKENS = 4096
"""So many zeros at the end of a file are what a killed writer leaves of a file that was made at full size."""

_VALIDATION = re.compile(r"(?<![a-z])val(id|idation)?(?![a-z])")

Facts = dict[str, object]


def run(given: Path, tokenizer: str, output: Path, root: Path) -> Facts:
    """Import the token files of one split, in the order of their names, into a folder; return facts about them."""
    split, *others = by_split(token_files(given)).items()
    if others:
        both = " and ".join(f"{name} ({files[0].name})" for name, files in (split, *others))
        raise UserError(f"--input {given}: holds files of both splits, {both}; give --name, which keeps them apart")
    bundle = Bundle.load(find_bundle(tokenizer, root, output / "tokenizer"))
    state, manifest = _import(*split, bundle, output)
    facts: Facts = {"stage": "import", "state": state, "files": len(split[1]), "documents": manifest.num_documents}
    return facts | {"tokens": manifest.num_tokens, "shards": len(manifest.shards), "folder": output}


def run_corpus(given: Path, tokenizer: str, places: Places) -> Facts:
    """Import the token files of both splits as a corpus that experiments may name; return facts about them."""
    found = by_split(token_files(given))
    for split, name in zip(SPLITS, ("training", "validation"), strict=True):
        if split not in found:
            raise UserError(f"--input {given}: no file for {name} (validation has val in its name, such as val.bin)")
    bundle = Bundle.load(find_bundle(tokenizer, places.root))
    facts: Facts = {"stage": "import", "state": "already", "tokenizer": bundle.hash[:8]}
    for split in reversed(SPLITS):
        folder = places.text(split)
        text = TextManifest(split, IMPORTED, None, {IMPORTED: _identity(found[split])}, complete=True)
        if has_files(folder) or ((folder / MANIFEST).exists() and TextManifest.read(folder) != text):
            raise UserError(f"{folder}: holds another corpus; choose another --name")
        state, tokens = _import(split, found[split], bundle, places.tokens(split, bundle.hash))
        # Last: it says that tokens are all there is, so that no stage looks for text.
        text.write(folder)
        facts |= {"state": state} if state == "written" else {}
        facts |= {f"{split}_tokens": tokens.num_tokens, f"{split}_token_shards": len(tokens.shards)}
    return facts | {"folder": places.text("train")}


def by_split(files: list[Path]) -> Mapping[Split, list[Path]]:
    """Return the files of each split that has any."""
    found: dict[Split, list[Path]] = {}
    for path in files:
        found.setdefault("val" if _VALIDATION.search(path.name.lower()) else "train", []).append(path)
    return found


def _identity(files: list[Path]) -> str:
    return sha256_json([[path.name, sha256_file(path)] for path in files])


def _import(split: Split, files: list[Path], bundle: Bundle, output: Path) -> tuple[str, TokenManifest]:
    """Return whether the tokens were there already, and their manifest."""
    identity = _identity(files)
    begun = TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, identity, complete=False)
    manifest = _existing(output, begun)
    if manifest.complete:
        verify_shards(output, manifest.shards, hashes=False)
        return "already", manifest
    with acquire(output / "lease.json", f"importing {files[0]}"), Progress("import") as progress:
        remove_temporaries(output)
        shards = tuple(_shards(split, files, bundle, output, progress))
        manifest = TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, identity, True, shards)
        manifest.write(output)
    return "written", manifest


def token_files(given: Path) -> list[Path]:
    """Return the token files at a path; raise `UserError` naming what is none."""
    if not given.exists():
        raise UserError(f"--input {given}: there is no such file or folder; correct the path")
    inside = given.iterdir() if given.is_dir() else [given]
    found = sorted(path for path in inside if path.name.endswith(ENDINGS))
    if not found:
        raise UserError(f"--input {given}: no token files here ({' '.join(ENDINGS)})")
    if strange := [path for path in found if not path.is_file()]:
        raise UserError(f"{strange[0]}: is no file that can be read to its end; move it elsewhere")
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


def _shards(split: Split, files: list[Path], bundle: Bundle, output: Path, progress: Progress) -> Iterator[ShardEntry]:
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
