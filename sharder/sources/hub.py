"""The sources `fineweb` and `hub`: data sets of the Hugging Face hub, downloaded file by file or streamed.

The revision is resolved once to a commit, which the plan and the manifest keep. A downloaded file is held against the
hash that the hub lists, and deleted when its rows are committed; a stream reads ranges of the file, from any row on.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from sharder import stop
from sharder.sources.corpus import CorpusError, InputFile, Request, Row
from sharder.sources.hub_errors import explained, is_passing, token
from sharder.sources.remote import READ_ENDINGS, local_name, remote_rows, wrong
from trainwright.spec.data import FinewebSource, HubSource
from trainwright.spec.exits import MissingError
from trainwright.spec.presets import HubPlace
from trainwright.store.files import fsync_file, fsync_folder

COMMIT = "data.source.commit"
ATTEMPTS = 3
"""The library under us tries each request six times by itself."""
FIRST_PAUSE_S = 1.0
PATHS_AT_ONCE = 100
STREAM_BLOCK_BYTES = 8 << 20

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubCorpus:
    """The files of one data set at one commit."""

    settings: FinewebSource | HubSource
    place: HubPlace
    commit: str
    files: tuple[InputFile, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return the commit, and the data set where a preset has chosen it."""
        chosen = {} if self.settings.dataset else {"data.source.repository": self.place.dataset}
        return {COMMIT: self.commit, **chosen}

    @property
    def where(self) -> str:
        """Return the data set as messages name it."""
        return f"{self.place.dataset} ({self.place.files or self.place.config or 'default'})"

    def fetch(self, file: InputFile, temporary: Path) -> None:
        """Download a file and verify it, unless it is here or is to be streamed."""
        target = local_name(file, temporary)
        if self.settings.downloads and not target.exists():
            self.trying(lambda: _download(self.place.dataset, self.commit, file, target))

    def release(self, file: InputFile, temporary: Path) -> None:
        """Delete the copy of a file."""
        shutil.rmtree(local_name(file, temporary).parent, ignore_errors=True)

    def rows(self, file: InputFile, start: int, temporary: Path) -> Iterator[Row]:
        """Yield the rows of a file from row `start` on; a stream that breaks goes on at its row."""
        if self.settings.downloads:
            yield from remote_rows(local_name(file, temporary), self.settings.column, "line", start)
            return
        at, failures = start, 0
        while True:
            try:
                for row in self._stream(file, at):
                    yield row
                    at, failures = at + 1, 0
            except Exception as error:
                # Which classes there are changes with the library's version; `_pause` raises what will not pass.
                failures += 1
                self._pause(error, failures)
            else:
                return

    def _stream(self, file: InputFile, start: int) -> Iterator[Row]:
        from huggingface_hub import HfFileSystem

        path = f"datasets/{self.place.dataset}@{self.commit}/{file.name}"
        with HfFileSystem(token=token()).open(path, "rb", block_size=STREAM_BLOCK_BYTES) as opened:
            yield from remote_rows(Path(file.name), self.settings.column, "line", start, opened)

    def trying(self, work: Callable[[], Result]) -> Result:
        """Do something on the network, again and again while what fails may pass."""
        failures = 0
        while True:
            try:
                return work()
            except Exception as error:
                # As above.
                failures += 1
                self._pause(error, failures)

    def _pause(self, error: Exception, failures: int) -> None:
        """Wait before another attempt, longer each time; raise when the error will not pass."""
        if failures >= ATTEMPTS or not is_passing(error):
            raise explained(error, self.where) from error
        pause = FIRST_PAUSE_S * 2 ** (failures - 1)
        log.info("stage=shard retry=%d pause_s=%.0f reason=%r", failures, pause, str(error).partition("\n")[0])
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline:
            stop.check()
            time.sleep(min(0.2, pause))


class WrongBytesError(OSError):
    """What was downloaded is not what the hub lists; a second attempt may bring it."""


def open_hub(request: Request) -> HubCorpus:
    """Return the data set at the commit of the work that exists, else at the one its revision names now."""
    settings = request.settings
    assert isinstance(settings, FinewebSource | HubSource)
    set_caches(request.hf_cache)
    place = settings.place
    begun = HubCorpus(settings, place, "", ())
    try:
        commit = _commit(settings, place, request.earlier)
        if request.only_inputs:
            return HubCorpus(settings, place, commit, ())
        names = _chosen(begun.trying(lambda: _names(settings, place, commit)), request)
        files = begun.trying(lambda: _described(place.dataset, commit, names))
    except Exception as error:
        # Three libraries fail here, each in its own classes; what is not of the hub comes back as it was.
        raise explained(error, begun.where) from error
    return HubCorpus(settings, place, commit, files)


def _chosen(names: list[str], request: Request) -> list[str]:
    """Return the files for training, or those that are pinned for validation."""
    assert isinstance(request.settings, FinewebSource | HubSource)
    place = request.settings.place
    if place.validation_files is not None:
        names = [name for name in names if fnmatchcase(name, place.validation_files) == request.validation]
    if not names:
        raise CorpusError(f"{place.dataset}: no file of that name; correct data.source.files or validation_files")
    if strange := [name for name in names if not name.endswith(READ_ENDINGS)]:
        what = f"{strange[0]} is of a kind that is not read here ({' '.join(READ_ENDINGS)})"
        raise CorpusError(f"{place.dataset}: {what}; choose a configuration or data.source.files of these")
    return names if request.validation else names[: request.settings.num_files]


def _commit(settings: FinewebSource | HubSource, place: HubPlace, earlier: Mapping[str, Any]) -> str:
    if settings.revision and re.fullmatch(r"[0-9a-f]{40}", settings.revision):
        return settings.revision
    fields = ("kind", "preset", "dataset", "config", "files", "revision")
    if COMMIT in earlier and all(earlier.get(f"data.source.{key}") == getattr(settings, key, None) for key in fields):
        return str(earlier[COMMIT])
    import huggingface_hub

    info = huggingface_hub.HfApi().dataset_info(place.dataset, revision=settings.revision, token=token())
    if not info.sha:
        raise MissingError(f"{place.dataset}: the hub names no commit; give one in data.source.revision")
    log.info("stage=shard dataset=%s revision=%s", place.dataset, info.sha)
    return info.sha


def _names(settings: FinewebSource | HubSource, place: HubPlace, commit: str) -> list[str]:
    """Return the paths of the files to read, in their order."""
    if place.files is None:
        return _configured(settings, place, commit)
    from huggingface_hub import HfApi

    # Only the folder that the pattern begins with is listed: a data set may have very many files.
    start = re.split(r"[*?\[]", place.files)[0].rpartition("/")[0]
    tree = HfApi().list_repo_tree(
        place.dataset, start or None, recursive=True, revision=commit, repo_type="dataset", token=token()
    )
    patterns = [place.files, *([place.validation_files] if place.validation_files else [])]
    return sorted(entry.path for entry in tree if any(fnmatchcase(entry.path, pattern) for pattern in patterns))


def _configured(settings: FinewebSource | HubSource, place: HubPlace, commit: str) -> list[str]:
    """Return the files of a configuration's split, as the `datasets` library finds them."""
    import datasets

    builder = datasets.load_dataset_builder(place.dataset, place.config, revision=commit, token=token())
    by_split = builder.config.data_files or {}
    if settings.split not in by_split:
        known = ", ".join(map(str, by_split)) or "none"
        raise CorpusError(f"{place.dataset}: no split {settings.split}; set data.source.split to one of: {known}")
    start = f"hf://datasets/{place.dataset}@{commit}/"
    names = [str(name) for name in by_split[settings.split]]
    if elsewhere := [name for name in names if not name.startswith(start)]:
        raise CorpusError(f"{place.dataset}: {elsewhere[0]} lies elsewhere; choose another configuration")
    return [name.removeprefix(start) for name in names]


def _described(dataset: str, commit: str, names: list[str]) -> tuple[InputFile, ...]:
    """Return size and hash of each file as the hub lists them."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    found: dict[str, InputFile] = {}
    for start in range(0, len(names), PATHS_AT_ONCE):
        some = names[start : start + PATHS_AT_ONCE]
        for entry in HfApi().get_paths_info(dataset, some, revision=commit, repo_type="dataset", token=token()):
            if isinstance(entry, RepoFile):
                lfs = entry.lfs
                checksum = f"sha256:{lfs.sha256}" if lfs is not None else f"git:{entry.blob_id}"
                found[entry.path] = InputFile(entry.path, entry.size, checksum)
    if missing := [name for name in names if name not in found]:
        raise MissingError(f"{dataset}: the hub lists {missing[0]} and then does not know it; run again")
    return tuple(found[name] for name in names)


def _download(dataset: str, commit: str, file: InputFile, target: Path) -> None:
    """Download one file beside its place, verify it, and only then give it its name."""
    from huggingface_hub import hf_hub_download

    beside = target.parent / "part"
    path = Path(
        hf_hub_download(dataset, file.name, repo_type="dataset", revision=commit, local_dir=beside, token=token())
    )
    if problem := wrong(path, file):
        shutil.rmtree(beside)
        raise WrongBytesError(f"{file.name} {problem}")
    fsync_file(path)
    path.replace(target)
    shutil.rmtree(beside)
    fsync_folder(target.parent)


def set_caches(hf_cache: Path) -> None:
    """Put the caches of the hub libraries below the root, unless set; they read these when they are imported."""
    os.environ.setdefault("HF_HOME", str(hf_cache))
    os.environ.setdefault("HF_DATASETS_CACHE", str(Path(os.environ["HF_HOME"]) / "datasets"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
