"""Everything that an experiment needs from outside, for all of its stages: one list.

`fetch` fills it, `check` holds it against the disk, and boot looks at it before it begins where there is no network.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.data import BpeTokenizer, Gpt2Tokenizer
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Places
from trainwright.store.files import FileEntry, verify_entry
from trainwright.store.text_shards import TextManifest
from trainwright.store.weights import weights_folder, weights_problem

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
"""Set where nodes have no internet; the Hugging Face libraries obey it too."""
_OPENAI = "https://openaipublic.blob.core.windows.net"
TIKTOKEN = f"{_OPENAI}/gpt-2/encodings/main"
GPT2_FILES = {
    "vocab.bpe": FileEntry(
        "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        456_318,
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
    "encoder.json": FileEntry(
        "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        1_042_301,
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
}
"""GPT-2's vocabulary as tiktoken's cache holds it: under the sha1 of each URL; the sha256 are tiktoken's own."""

CL100K_URL = f"{_OPENAI}/encodings/cl100k_base.tiktoken"
CL100K_FILE = FileEntry(
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    1_681_126,
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)
"""GPT-4's vocabulary, likewise."""

REMOTE_SOURCES = ("fineweb", "hub", "s3")
"""Sources whose text is brought by running the shard stage where there is a network."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One thing that must be in place before a stage begins."""

    name: str
    stage: str
    path: Path
    problem: Callable[[], str | None]
    """What is wrong with it now; None when it is in place. Reads no more than seconds' worth."""
    url: str | None = None
    """Where a single file comes from."""
    entry: FileEntry | None = None
    """The size and hash of a single file."""
    by_stage: bool = False
    """Whether it is made by running its stage where there is a network."""


def assets_of(places: Places) -> list[Asset]:
    """Return what an experiment needs, in the order of its stages; what is not needed any more is left out."""
    return [*_corpus(places), *_tokenizer(places), *_weights(places)]


def _corpus(places: Places) -> Iterator[Asset]:
    data = places.experiment.data
    folder = places.text("train")
    if data.source.kind == "stdlib" or (data.shard and _corpus_problem(places) is None):
        return
    if not data.shard or data.source.kind in REMOTE_SOURCES:
        streamed = data.shard and data.source.kind in REMOTE_SOURCES
        yield Asset("text shards", "shard", folder, lambda: _corpus_problem(places), by_stage=streamed)
        return
    for field, path in (("data.path", data.path), ("data.validation", data.validation)):
        if path is not None:
            yield Asset(field, "shard", Path(path), lambda path=path: _absent(Path(path)))  # type: ignore[misc]


def _corpus_problem(places: Places) -> str | None:
    for split in SPLITS:
        folder = places.text(split)
        if not (folder / MANIFEST).exists():
            return f"{folder / MANIFEST}: is not there"
        manifest = TextManifest.read(folder)
        if not manifest.complete:
            return f"{folder}: holds {len(manifest.shards)} shards, and is not complete"
        try:
            manifest.verify(folder, hashes=False)
        except UserError as error:
            return str(error)
    return None


def _tokenizer(places: Places) -> Iterator[Asset]:
    settings = places.experiment.tokenizer
    if settings.path is not None:
        path = Path(settings.path)
        yield Asset("tokenizer.path", "tokenizer", path, lambda: _absent(path))
    elif isinstance(settings, Gpt2Tokenizer):
        if any((folder / MANIFEST).exists() for folder in (places.tokenizer, places.run.path / "tokenizer")):
            return
        yield from _gpt2(places)


def _gpt2(places: Places) -> Iterator[Asset]:
    for what, entry in GPT2_FILES.items():
        yield file_asset(f"gpt2 {what}", "tokenizer", places.assets / "tiktoken", entry, f"{TIKTOKEN}/{what}")


def compared_with(places: Places) -> list[Asset]:
    """Return what only `tokenizer --evaluate` reads: no stage needs it, and `fetch` brings it when it can."""
    if not isinstance(places.experiment.tokenizer, BpeTokenizer):
        return []
    cl100k = file_asset("cl100k_base", "tokenizer", places.assets / "tiktoken", CL100K_FILE, CL100K_URL)
    return [*_gpt2(places), cl100k]


def _weights(places: Places) -> Iterator[Asset]:
    given = places.experiment.train.init_from
    if given is None or any(places.run.checkpoints.glob(f"step_????????/{MANIFEST}")):
        return
    where = (given, places.run.path.parent, places.assets)
    yield Asset("train.init_from", "train", weights_folder(*where), lambda: weights_problem(*where))


def file_asset(name: str, stage: str, folder: Path, entry: FileEntry, url: str | None = None) -> Asset:
    """Return an asset that is one file of known size and hash."""
    return Asset(name, stage, folder / entry.path, lambda: verify_entry(folder, entry, hashes=True), url, entry)


def _absent(path: Path) -> str | None:
    return None if path.exists() else f"{path}: is not there"


def refuse_missing(places: Places) -> None:
    """Raise `MissingError` that names everything missing, and the command that brings it."""
    problems = [problem for asset in assets_of(places) if (problem := asset.problem()) is not None]
    if problems:
        way = f"run `trainwright fetch {places.experiment.name}` on a host with internet"
        raise MissingError(f"{'; '.join(problems)}; {way}")
