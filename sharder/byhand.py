"""Encoding by hand: any text-shard folder or file, with any tokenizer, into a folder of token shards."""

from pathlib import Path

from sharder.adopt import candidates, describe
from sharder.encode import Target, encode, speed_facts
from sharder.shard import Facts
from sharder.tokenizer import gpt2_bundle
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST
from trainwright.store.text_shards import ENDINGS, TextManifest
from trainwright.tokens.bundle import Bundle, bytes_bundle


def run(text: Path, tokenizer: str, output: Path, root: Path, workers: int) -> Facts:
    """Encode the documents at `text` into `output`; return facts about the tokens."""
    folder, manifest = read_input(text)
    bundle_folder = find_bundle(tokenizer, root, output / "tokenizer")
    bundle = Bundle.load(bundle_folder)
    done, progress = encode({manifest.split: Target(folder, manifest, output)}, bundle, bundle_folder, workers)
    tokens = done[manifest.split]
    facts: Facts = {"stage": "encode", "state": "written" if progress else "already"}
    facts |= {"documents": tokens.num_documents, "tokens": tokens.num_tokens, "shards": len(tokens.shards)}
    return facts | speed_facts(progress) | {"tokenizer": bundle.hash[:8], "folder": output}


def read_input(path: Path) -> tuple[Path, TextManifest]:
    """Return the folder and the manifest of the text at a path, made on the spot when nobody wrote one."""
    if not path.exists():
        raise UserError(f"--input {path}: there is no such file or folder; correct the path")
    if path.is_file():
        if not path.name.endswith(ENDINGS):
            raise UserError(f"--input {path}: is no text that is read here ({' '.join(ENDINGS)})")
        return path.parent, describe([path], path.parent, "train")
    if (path / MANIFEST).exists():
        manifest = TextManifest.read(path)
        if not manifest.complete:
            raise UserError(f"--input {path}: these text shards are not complete; run the shard stage to its end")
        return path, manifest
    files = candidates(path)
    if not files:
        raise UserError(f"--input {path}: no text in this folder ({' '.join(ENDINGS)})")
    return path, describe(files, path, "train")


def find_bundle(name: str, root: Path, made: Path | None = None) -> Path:
    """Return a bundle's folder: one given, one by its name below the root, or `bytes` and `gpt2` made new.

    Those are made in the folder `made`, by default below the root with the others.
    """
    shared = root / "artifacts" / "tokenizer"
    for folder in (Path(name), shared / name):
        if (folder / MANIFEST).exists():
            return folder
    if name in ("bytes", "gpt2"):
        bundle = bytes_bundle() if name == "bytes" else gpt2_bundle(root / "assets")
        folder = made or shared / name
        bundle.save(folder)
        return folder
    known = sorted(path.parent.name for path in shared.glob(f"*/{MANIFEST}"))
    ways = f"; bundles there: {', '.join(known)}" if known else ""
    raise UserError(f"--tokenizer {name}: neither a bundle folder nor a name in {shared}{ways} (or bytes, gpt2)")
