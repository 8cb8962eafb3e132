"""How fast parquet files as FineWeb has them become text shards, beside the ways that one would write by hand.

    python bench/data_text.py --megabytes 1000 --rounds 3 [--text FOLDER]

The text is what this machine has (documentation and sources of its Python packages, or the .txt files of a folder), cut
into documents of about 3,000 characters, in parquet files with FineWeb's columns. In each round, one after the other:

    ours       `python -m sharder shard`, two workers: decode, choose validation, JSON, zstd, sha256, commit
    streamed   one process over `datasets` in streaming mode, JSON lines through zstd, as hand-written sharders do
    decoded    one process that only decodes the column with pyarrow: what nobody can be faster than, on one core

All figures are megabytes (10^6) of text a second of the whole process, from its start to its end. Then ours runs on
the text once and on ten times the text, and the peak of memory (PSS of all its processes) is taken. The last line is
one JSON object; the exit code is 0 when the speed and the memory are those that were promised.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import nullcontext
import json
import os
from pathlib import Path
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from memory_of import peak_below
import pyarrow as pa
from pyarrow import parquet

PROMISED_MB_PER_S = 150
PROMISED_PEAK_GIB = 1.5
DOCUMENT_CHARACTERS = 3000
FILE_MEGABYTES = 125
EXPERIMENT = """\
name: text
data:
  source: {kind: parquet}
  path: FOLDER
  validation_fraction: 0.0005
  workers: 2
train: {global_batch_sequences: 1, micro_batch: 1, steps: 1}
"""
STREAMED = """
import json, sys, datasets, zstandard
folder, target = sys.argv[1:]
rows = datasets.load_dataset("parquet", data_files=folder + "/*.parquet", split="train", streaming=True)
with open(target, "wb") as raw, zstandard.ZstdCompressor(level=1).stream_writer(raw) as file:
    for row in rows:
        file.write(json.dumps({"text": row["text"]}, ensure_ascii=False).encode() + b"\\n")
"""
DECODED = """
import glob, sys
from pyarrow.parquet import ParquetFile
for path in sorted(glob.glob(sys.argv[1] + "/*.parquet")):
    for batch in ParquetFile(path).iter_batches(columns=["text"]):
        batch.nbytes
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text", type=Path, help="a folder of .txt files to take the documents from")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="data-text-") as scratch:
        folder = Path(scratch)
        megabytes = write_files(folder / "corpus", arguments.megabytes, arguments.text)
        (folder / "tenth").mkdir()
        tenth = sorted((folder / "corpus").iterdir())[: max(1, arguments.megabytes // FILE_MEGABYTES // 10)]
        for path in tenth:
            (folder / "tenth" / path.name).symlink_to(path)
        ways: dict[str, Callable[[], float]] = {
            "ours": lambda: ours(folder, "corpus", watched=False)[0],
            "streamed": lambda: seconds_of(
                [sys.executable, "-c", STREAMED, str(folder / "corpus"), str(folder / "out")]
            ),
            "decoded": lambda: seconds_of([sys.executable, "-c", DECODED, str(folder / "corpus")]),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(arguments.rounds):
            for name, way in ways.items():
                speeds[name].append(round(megabytes / way(), 1))
                print(f"round {number + 1}: {name} {speeds[name][-1]} MB/s", flush=True)
        before = cpu_seconds()
        peaks = {name: round(ours(folder, name)[1] / 2**30, 3) for name in ["corpus"]}
        cpu = cpu_seconds() - before
        peaks["tenth"] = round(ours(folder, "tenth")[1] / 2**30, 3)
    median = {name: statistics.median(found) for name, found in speeds.items()}
    result = {
        "name": "data_text",
        "text_mb": round(megabytes),
        "cores": len(os.sched_getaffinity(0)),
        "mb_per_s": median,
        "all_rounds": speeds,
        "cpu_seconds_per_gb": round(1000 * cpu / megabytes, 2),
        "times_streamed": round(median["ours"] / median["streamed"], 2),
        "share_of_decoding": round(median["ours"] / median["decoded"], 2),
        "peak_gib": {"a tenth of the text": peaks["tenth"], "the text": peaks["corpus"]},
        "promised": {"mb_per_s": PROMISED_MB_PER_S, "peak_gib": PROMISED_PEAK_GIB},
    }
    print(json.dumps(result))
    return 0 if median["ours"] >= PROMISED_MB_PER_S and max(peaks.values()) < PROMISED_PEAK_GIB else 1


def write_files(folder: Path, megabytes: int, text: Path | None) -> float:
    """Write the parquet files; return the megabytes of text in them."""
    folder.mkdir()
    pool = [document for path in text_files(text) for document in documents(path)]
    chooser, written = random.Random(1), 0
    for number in range(max(1, megabytes // FILE_MEGABYTES)):
        chosen: list[str] = []
        size = 0
        while size < FILE_MEGABYTES * 10**6:
            # Taken again and again, but never twice the same: a counter in front keeps compressors from gaining by it.
            chosen.append(f"{number}-{len(chosen)} {chooser.choice(pool)}")
            size += len(chosen[-1].encode())
        written += size
        parquet.write_table(table(chosen), folder / f"{number:03d}_00000.parquet", row_group_size=1000)
    return written / 1e6


def table(texts: list[str]) -> pa.Table:
    names = [str(index) for index in range(len(texts))]
    columns = {"text": texts, "id": names, "dump": ["CC-MAIN-2024-10"] * len(texts), "url": names, "file_path": names}
    scores = {"language": ["en"] * len(texts), "language_score": [0.97] * len(texts)}
    return pa.table({**columns, **scores, "token_count": [len(text) // 4 for text in texts]})


def text_files(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield from sorted(given.rglob("*.txt"))
        return
    for folder in (Path(sys.prefix), Path("/usr/share/doc"), Path("/usr/share/perl")):
        for ending in ("*.md", "*.rst", "*.txt", "*.html", "*.pod", "*.py"):
            yield from sorted(folder.rglob(ending))


def documents(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8").replace("\0", "")
    except (OSError, UnicodeDecodeError):
        return
    for start in range(0, len(text) - DOCUMENT_CHARACTERS // 2, DOCUMENT_CHARACTERS):
        yield text[start : start + DOCUMENT_CHARACTERS]


def seconds_of(command: list[str], **more: str) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, **more}, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def cpu_seconds() -> float:
    """Return the processor time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ours(folder: Path, corpus: str, *, watched: bool = True) -> tuple[float, int]:
    """Shard a corpus; return the seconds it took and, when `watched` (which costs some), the peak of memory."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    experiment = folder / "text.yaml"
    experiment.write_text(EXPERIMENT.replace("FOLDER", str(folder / corpus)))
    environ = {**os.environ, "TRAINWRIGHT_ROOT": str(root), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "sharder", "shard", str(experiment)]
    started = time.monotonic()
    with peak_below() if watched else nullcontext([0]) as peak:
        done = subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise SystemExit(f"the sharder ended with {done.returncode}")
    return seconds, peak[0]


if __name__ == "__main__":
    sys.exit(main())
