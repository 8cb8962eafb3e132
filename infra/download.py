"""Files from the network: resumed, tried again, several at once, and kept only when size and sha256 are right."""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainwright.store.files import FileEntry, fsync_file, fsync_folder, sha256_file

TRIES = 5
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20
AT_ONCE = 4
PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Download:
    """One file to bring."""

    url: str
    path: Path
    entry: FileEntry


def download_all(files: Sequence[Download], pause_s: float = PAUSE_S) -> list[str]:
    """Bring all files; return a sentence for each that could not be had. What came of it is kept for the next try."""
    from tqdm import tqdm

    total = sum(file.entry.bytes for file in files)
    bar = tqdm(total=total, unit="B", unit_scale=True, desc="fetch", disable=not (files and sys.stderr.isatty()))
    with bar, ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda file: _bring(file, bar.update, pause_s), files))
    return [problem for problem in found if problem is not None]


def _bring(file: Download, advance: object, pause_s: float) -> str | None:
    """Download one file in as many tries as it may take; return why it failed."""
    part = file.path.with_name(f"{file.path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            _append(file, part, advance)
        except (urllib.error.URLError, OSError, ValueError) as error:
            problem = str(getattr(error, "reason", None) or error)
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                break
            continue
        if part.stat().st_size == file.entry.bytes and sha256_file(part) == file.entry.sha256:
            fsync_file(part)
            part.replace(file.path)
            fsync_folder(file.path.parent)
            return None
        if part.stat().st_size >= file.entry.bytes:
            problem = "what came is not the file that is meant (size or sha256 differ)"
            part.unlink()
        else:
            problem = f"the connection ended after {part.stat().st_size} of {file.entry.bytes} bytes"
    return f"{file.url}: {problem}; tried {attempt + 1} times"


def _append(file: Download, part: Path, advance: object) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= file.entry.bytes:
        return
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - ours
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - ours
        # 200 instead of 206: a server that knows no ranges sends the whole file again.
        mode = "ab" if answer.status == 206 else "wb"
        with part.open(mode) as out:
            while data := answer.read(CHUNK_BYTES):
                out.write(data)
                if callable(advance):
                    advance(len(data))
