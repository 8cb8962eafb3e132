"""Text shards placed by hand, or written by another tool: looked through, hashed, and given a manifest of ours."""

import logging
from pathlib import Path

from sharder import stop
from sharder.progress import Progress
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, Split
from trainwright.store.files import read_json, set_aside
from trainwright.store.text_shards import ENDINGS, FORMAT, Drops, TextManifest, describe_file

log = logging.getLogger(__name__)


def adopt(folder: Path, split: Split) -> TextManifest:
    """Write the manifest of a folder of shard files; raise `UserError` naming foreign or empty files."""
    files = candidates(folder)
    if not files:
        way = f"place shard files there ({' '.join(ENDINGS)}), or set data.shard=true and data.reuse_shards=false"
        raise UserError(f"{folder}: no text shards here; {way}")
    manifest = describe(files, folder, split)
    if not manifest.num_documents:
        raise UserError(f"{folder}: its files hold not one document")
    if foreign_manifest(folder):
        log.info("stage=shard foreign_manifest=%s", set_aside(folder / MANIFEST))
    manifest.write(folder)
    return manifest


def describe(files: list[Path], folder: Path, split: Split) -> TextManifest:
    """Return a manifest of shard files, read whole, without writing it."""
    drops, shards = Drops(), []
    with Progress("adopt", sum(path.stat().st_size for path in files)) as progress:
        for path in files:
            stop.check()
            shard = describe_file(path, path.relative_to(folder).as_posix(), drops)
            if not shard.num_documents:
                raise UserError(f"{path}: holds no document; remove it, or write it again")
            shards.append(shard)
            progress.add(shard.bytes, shards=len(shards))
    return TextManifest(split, "adopted", None, {}, complete=True, drops=drops, shards=tuple(shards))


def candidates(folder: Path) -> list[Path]:
    """Return the files of a folder that a manifest would list, sorted; raise `UserError` naming foreign ones."""
    found = sorted(path for path in folder.iterdir() if not _is_ours(path)) if folder.is_dir() else []
    foreign = [path for path in found if not (path.is_file() and path.name.endswith(ENDINGS))]
    if foreign:
        names = ", ".join(path.name for path in foreign[:5])
        raise UserError(f"{folder}: {names} is no text shard ({' '.join(ENDINGS)}); move it elsewhere")
    return found


def has_files(folder: Path) -> bool:
    """Return whether a folder holds anything that a manifest could list."""
    return folder.is_dir() and any(not _is_ours(path) for path in folder.iterdir())


def foreign_manifest(folder: Path) -> bool:
    """Return whether the folder's manifest was written by another tool, which is what its missing format says."""
    path = folder / MANIFEST
    return path.exists() and read_json(path).get("format") != FORMAT


def _is_ours(path: Path) -> bool:
    """Return whether a name is one that lies beside shards: manifest, lease, token folders, temporaries."""
    return path.name.startswith((MANIFEST, "lease.json", "tokens-", "."))
