"""What a source is asked, what it gives, and how it finds its local files."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainwright.spec.canonical import sha256_json
from trainwright.spec.data import Source
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import Drops


class CorpusError(UserError):
    """The corpus as a whole cannot be used as the experiment asks, whatever is read of it again."""


class SourceAbsentError(UserError):
    """The local files of a source are not on this machine."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a source needs to open: its settings, where to read, where hub libraries may cache.

    `earlier` are the inputs of shards that exist already: a source that must choose (a revision) chooses the same.
    """

    settings: Source
    path: Path | None
    field: str
    hf_cache: Path
    earlier: Mapping[str, Any]


class Corpus(Protocol):
    """An opened source. `inputs` are the facts by which its documents can be told from others, by dotted field."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the facts, without reading the text."""

    def documents(self, drops: Drops) -> Iterator[str]:
        """Yield the documents in an order that never changes; count in `drops` what is left out."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files below one path, in sorted order of their names relative to it."""

    root: Path
    files: tuple[Path, ...]

    def name(self, file: Path) -> str:
        """Return a file's name relative to the path that was given."""
        return file.name if file == self.root else file.relative_to(self.root).as_posix()

    @property
    def fingerprint(self) -> str:
        """Return a hash of the listing: relative names and sizes."""
        return sha256_json([[self.name(file), file.stat().st_size] for file in self.files])


def local_files(request: Request, endings: Iterable[str]) -> LocalFiles:
    """Return the file, or the files below the folder, that `data.path` (or `data.validation`) names."""
    assert request.path is not None, "the experiment's checks give these sources a path"
    root, looked_for = request.path, tuple(endings)
    if not root.exists():
        raise SourceAbsentError(f"{request.field}={root}: there is no such file or folder; correct the path")
    found = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    listing = LocalFiles(root, ())
    chosen = sorted((path for path in found if _is_input(path, root, looked_for)), key=listing.name)
    if not chosen:
        raise UserError(f"{request.field}={root}: no file ends in {' '.join(looked_for)}; correct the path or the kind")
    return LocalFiles(root, tuple(chosen))


def keep(text: str, drops: Drops) -> bool:
    """Return whether a text is a document; count why it is not."""
    if not text.strip():
        drops["empty"] += 1
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can spell half of a surrogate pair, which is no character.
        drops["not UTF-8"] += 1
        return False
    return True


def _is_input(path: Path, root: Path, endings: tuple[str, ...]) -> bool:
    hidden = path != root and any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.name.endswith(endings) and not hidden
