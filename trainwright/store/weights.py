"""Initial weights that `train.init_from` names: a run, a Hugging Face folder, or a model of the hub.

`hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION` is downloaded once to `assets/models`, by `fetch` or by the trainer where
there is a network. Every file is held against the size and hash that the hub lists, and the folder gets its name, with
a manifest of its own, when it is whole.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

from trainwright.spec.derived import Derived
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.layouts import check_fits, read_config
from trainwright.spec.paths import MANIFEST, Places, RunFolder
from trainwright.store.files import FileEntry, fsync_folder, read_json, sha256_file, verify_entry, write_json

PREFIX = "hub:"
CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 20
WANTED = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json")
TOKEN_VARIABLES = ("HUGGINGFACEHUB_API_TOKEN", "HF_TOKEN")
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def weights_folder(given: str, runs: Path, assets: Path) -> Path:
    """Return where the weights are: a Hugging Face folder, or the checkpoints of a run."""
    if given.startswith(PREFIX):
        repo, revision = hub_name(given)
        kept = repo.replace("/", "--") + (f"@{revision.replace('/', '-')}" if revision else "")
        return assets / "models" / kept
    folder = Path(given)
    if (folder / CONFIG).is_file():
        return folder
    return RunFolder(folder if folder.is_dir() else runs / given).checkpoints


def hub_name(given: str) -> tuple[str, str | None]:
    """Return the repository and the revision of `hub:OWNER/NAME@REVISION`; raise `UserError` for anything else."""
    found = _NAME.fullmatch(given.removeprefix(PREFIX))
    if found is None or ".." in given:
        raise UserError(f"train.init_from={given}: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    return found["repo"], found["revision"]


def weights_problem(given: str, runs: Path, assets: Path) -> str | None:
    """Return what is missing of the weights, or None; reads no tensor."""
    folder = weights_folder(given, runs, assets)
    if given.startswith(PREFIX):
        if not (folder / MANIFEST).is_file():
            return f"{given}: is not in {folder}"
        entries = [FileEntry(**entry) for entry in read_json(folder / MANIFEST)["files"]]
        return next((wrong for entry in entries if (wrong := verify_entry(folder, entry, hashes=False))), None)
    if (folder / CONFIG).is_file() or any(folder.glob(f"step_????????/{MANIFEST}")):
        return None
    return f"{folder}: holds no checkpoint"


def refuse_other_model(places: Places) -> None:
    """Raise `UserError` when initial weights are not where they should lie, or are of another model.

    Reads no tensor, so that it can be asked before hours of other work. What the hub has is looked at when it is here;
    a run that has a checkpoint of its own needs no others.
    """
    experiment, runs = places.experiment, places.run.path.parent
    given = experiment.train.init_from
    if given is None or any(places.run.checkpoints.glob(f"step_????????/{MANIFEST}")):
        return
    problem = None if given.startswith(PREFIX) else weights_problem(given, runs, places.assets)
    if problem is not None:
        raise UserError(f"train.init_from={given}: {problem}; name a run that has one, or a Hugging Face folder")
    folder = weights_folder(given, runs, places.assets)
    if (folder / CONFIG).is_file():
        stored = read_config(read_json(folder / CONFIG, MAX_CONFIG_BYTES), str(folder / CONFIG))
        rows = Derived(experiment).vocab_size
        check_fits(stored, folder, experiment.model.shape, rows, experiment.train.seq_len_tokens)


def download_weights(given: str, assets: Path) -> Path:
    """Download a model of the hub unless it is there; return its folder.

    Raises `MissingError` when the hub does not answer, does not know it, or sends other bytes than it lists.
    """
    repo, revision = hub_name(given)
    folder = weights_folder(given, assets, assets)
    if weights_problem(given, assets, assets) is None:
        return folder
    beside = folder.with_name(f".{folder.name}.part")
    beside.mkdir(parents=True, exist_ok=True)
    try:
        _download(repo, revision, beside)
    except (OSError, _http_error()) as error:
        line = str(error).strip().partition("\n")[0][:200]
        way = "correct the name, accept its terms on the hub and give a token, or run again"
        raise MissingError(f"train.init_from={given}: cannot be downloaded ({line}); {way}") from None
    if folder.exists():
        rmtree(folder)
    beside.rename(folder)
    fsync_folder(folder.parent)
    return folder


def _download(repo: str, revision: str | None, folder: Path) -> None:
    """Bring every wanted file, in the state of one commit, and write the manifest last."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, hf_hub_download

    token = next((value for name in TOKEN_VARIABLES if (value := os.environ.get(name))), None)
    info = HfApi().model_info(repo, revision=revision, files_metadata=True, token=token)
    entries = []
    for name, size, checksum in _listed(info):
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or not _is(path, checksum):
            path.unlink(missing_ok=True)
            hf_hub_download(repo, name, revision=info.sha, local_dir=folder, token=token)
        if path.stat().st_size != size or not _is(path, checksum):
            path.unlink()
            raise MissingError(f"hub:{repo}: {name} came with other bytes than the hub lists; run again")
        entries.append(asdict(FileEntry(name, size, sha256_file(path))))
    if not any(entry["path"] == CONFIG for entry in entries):
        raise UserError(f"hub:{repo}: has no {CONFIG}; it is no checkpoint that is known here")
    rmtree(folder / ".cache", ignore_errors=True)
    write_json(folder / MANIFEST, {"repository": repo, "commit": info.sha, "files": entries})


def _listed(info: Any) -> Iterator[tuple[str, int, Mapping[str, str]]]:
    for file in info.siblings or ():
        top = "/" not in file.rfilename
        if top and (file.rfilename in WANTED or file.rfilename.endswith(".safetensors")):
            checksum = {"sha256": file.lfs.sha256} if file.lfs is not None else {"git": file.blob_id}
            yield file.rfilename, int(file.size), checksum


def _is(path: Path, checksum: Mapping[str, str]) -> bool:
    if "sha256" in checksum:
        return sha256_file(path) == checksum["sha256"]
    data = path.read_bytes()
    # What git calls a blob; these files are small.
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == checksum["git"]


def _http_error() -> type[Exception]:
    """Return the base of the errors of the HTTP library under huggingface_hub, which has changed between versions."""
    from huggingface_hub import errors

    found = next((base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"), OSError)
    assert issubclass(found, Exception)
    return found
