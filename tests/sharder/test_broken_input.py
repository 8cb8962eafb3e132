"""Broken input of many kinds: each ends in a count or in one clear sentence, never in a traceback or a silent loss."""

from collections.abc import Callable
import gzip
import io
import os
from pathlib import Path
import re
import subprocess
import sys

import pyarrow as pa
from pyarrow import parquet
import pytest
import zstandard

from hub import parquet_bytes
from made_corpus import (
    REPOSITORY,
    environment,
    facts,
    made_documents,
    num_slices,
    places,
    sharder,
    start,
    wait_until,
    words_of,
)
from sharder.shard import run
from trainwright.store.text_shards import Drops, TextManifest

GOOD = b"".join(b'{"text": "document %d"}\n' % number for number in range(200))


def table(column: pa.Array) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": column}), buffer)
    return buffer.getvalue()


def invalid_utf8() -> pa.Array:
    good = pa.array(["good", "bad?"], pa.string())
    return pa.Array.from_buffers(pa.string(), 2, [None, good.buffers()[1], pa.py_buffer(b"goodb\xffd?")])


def file(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(folder / target)


COUNTED: dict[str, tuple[Callable[[Path], None], dict[str, int]]] = {
    "a line that is no JSON": (file("x.jsonl", b"{\n"), {"not JSON": 1}),
    "a line cut short": (file("x.jsonl", b'{"text": "hal'), {"not JSON": 1}),
    "brackets without end": (file("x.jsonl", b"[" * 200_000 + b"\n"), {"not JSON": 1}),
    "a list instead of an object": (file("x.jsonl", b'["text"]\n'), {"not a JSON object": 1}),
    "a text that is a list": (file("x.jsonl", b'{"text": ["a", "b"]}\n'), {"no text": 1}),
    "a text that is null": (file("x.jsonl", b'{"text": null}\n'), {"no text": 1}),
    "invalid UTF-8": (file("x.jsonl", b'{"text": "\xff\xfe"}\n'), {"not UTF-8": 1}),
    "half a surrogate pair": (file("x.jsonl", b'{"text": "\\ud800"}\n'), {"not UTF-8": 1}),
    "NUL bytes in a text": (file("x.jsonl", b'{"text": "a\\u0000b"}\n'), {"NUL bytes": 1}),
    "a file of zeros": (file("x.jsonl", bytes(10_000)), {"not JSON": 1}),
    "white space only": (file("x.jsonl", '{"text": " \u3000\\n"}\n'.encode()), {"empty": 1}),
    "an empty file": (file("x.jsonl", b""), {"empty file": 1}),
    "a file twice": (file("x.jsonl", GOOD), {"duplicate file": 1}),
    "a link to a file that is read": (link("x.jsonl", "good.jsonl"), {"duplicate file": 1}),
    "a link loop": (link("loop", "."), {"folder linked again": 1}),
    "a blank line": (file("x.jsonl", b" \n"), {"empty": 1}),
    "a number of a million digits": (file("x.jsonl", b'{"text": "a", "n": %b}' % (b"7" * 1_000_000)), {"not JSON": 1}),
    "a file of another kind": (file("x.csv", b"text\na\n"), {"another kind of file": 1}),
    "Windows line ends and a byte order mark": (file("x.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n'), {"not JSON": 1}),
}

REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a gzip file cut short": ("jsonl", file("x.jsonl.gz", gzip.compress(GOOD)[:-9]), r"x\.jsonl\.gz: cut short"),
    "a zstd file cut short": ("jsonl", file("x.jsonl.zst", zstandard.compress(GOOD)[:-5]), r"x\.jsonl\.zst: cut short"),
    "a gzip file that is none": ("jsonl", file("x.jsonl.gz", GOOD * 2), r"x\.jsonl\.gz: damaged, or not"),
    "a line without end": (
        "jsonl",
        lambda folder: (folder / "x.jsonl.zst").write_bytes(zstandard.compress(bytes(257 << 20))) and None,
        r"x\.jsonl\.zst:1: longer than 256 MiB",
    ),
    "a link to nothing": ("jsonl", link("x.jsonl", "nowhere.jsonl"), r"x\.jsonl: cannot be read"),
    "a link to itself": ("jsonl", link("x.jsonl", "x.jsonl"), r"x\.jsonl: cannot be read"),
    "parquet cut short": ("parquet", file("x.parquet", parquet_bytes(["a"] * 99)[:-30]), r"x\.parquet: damaged"),
    "parquet with broken pages": (
        "parquet",
        file("x.parquet", bytes([*b"PAR1", *os.urandom(200)]) + parquet_bytes(["a"] * 99)[204:]),
        r"x\.parquet: damaged",
    ),
    "words instead of parquet": ("parquet", file("x.parquet", b"words " * 99), r"x\.parquet: damaged, or no parquet"),
    "a column that is not there": (
        "parquet",
        file("x.parquet", parquet_bytes(["a"], "body")),
        "no column text or cont",
    ),
    "a name that is not UTF-8": (
        "jsonl",
        lambda folder: (folder / os.fsdecode(b"\xff.jsonl")).write_bytes(GOOD[:40]) and None,
        "is not UTF-8; rename the file",
    ),
    "a column of lists": ("parquet", file("x.parquet", table(pa.array([["a"]]))), "the column text holds list"),
}


def asked(tmp_path: Path, kind: str, make: Callable[[Path], None]) -> list[str]:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / f"good.{kind}").write_bytes(GOOD if kind == "jsonl" else parquet_bytes(made_documents(50)))
    make(folder)
    return [f"data.source.kind={kind}", f"data.path={folder}", "data.validation_fraction=0.2"]


@pytest.mark.parametrize("name", COUNTED)
def test_what_can_be_left_out_is_counted(tmp_path: Path, name: str) -> None:
    make, drops = COUNTED[name]
    facts = run(places(tmp_path, *asked(tmp_path, "jsonl", make), "data.source.max_bad_share=0.5"))
    assert int(str(facts["train_documents"])) + int(str(facts["val_documents"])) == 200
    assert TextManifest.read(tmp_path / "datasets/train/made").drops == drops


def test_the_command_counts_them_all_at_once(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        for number, (make_one, _) in enumerate(COUNTED.values()):
            (folder / str(number)).mkdir()
            # A link needs what it leads to, which is the same file again.
            (folder / str(number) / "good.jsonl").symlink_to(folder / "good.jsonl")
            make_one(folder / str(number))

    words = words_of(tmp_path, *asked(tmp_path, "jsonl", make), "data.source.max_bad_share=0.5")
    done = sharder(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    expected = sum((Drops(drops) for _, drops in COUNTED.values()), Drops({"duplicate file": len(COUNTED)}))
    assert TextManifest.read(tmp_path / "datasets/train/made").drops == expected
    counts = (f"{reason.replace(' ', '_')}:{count}" for reason, count in sorted(expected.items()))
    assert facts(done.stdout)["dropped"] == ",".join(counts)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_is_refused_by_the_command_in_one_sentence(tmp_path: Path, name: str) -> None:
    kind, make, message = REFUSED[name]
    done = sharder(tmp_path, *words_of(tmp_path, *asked(tmp_path, kind, make)))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (78, "", 1), done.stderr
    assert re.search(message, done.stderr)
    assert not any((tmp_path / "datasets").rglob("*.tmp"))


def test_a_file_that_grows_ends_the_work_long_before_its_end(tmp_path: Path) -> None:
    corpus = asked(tmp_path, "jsonl", file("x.jsonl", GOOD * 200))
    words = words_of(tmp_path, *corpus, "data.documents_per_shard=100")
    process = start(tmp_path, *words)
    assert wait_until(lambda: num_slices(tmp_path / "datasets/train/made/.work/00000") > 3, process)
    # Rows for minutes: whoever looks only at the end does not come there.
    with (tmp_path / "corpus" / "x.jsonl").open("ab") as growing:
        growing.write(GOOD * 5000)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 78
    assert re.fullmatch(r"sharder: .*x\.jsonl: had \d+ bytes when it was listed and has \d+ now; .*\n", err)


def test_a_text_of_parquet_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    words = asked(tmp_path, "parquet", file("x.parquet", table(invalid_utf8())))
    run(places(tmp_path, *words))
    assert TextManifest.read(tmp_path / "datasets/train/made").drops == {"not UTF-8": 1}


def test_a_line_of_fifty_megabytes_is_a_document(tmp_path: Path) -> None:
    line = b'{"text": "' + b"long " * 10_000_000 + b'"}\n'
    run(places(tmp_path, *asked(tmp_path, "jsonl", file("x.jsonl", line))))
    manifests = [TextManifest.read(tmp_path / f"datasets/{split}/made") for split in ("train", "val")]
    assert sum(manifest.text_bytes for manifest in manifests) > 50_000_000


@pytest.mark.parametrize("name", ["x.jsonl", "closed"])
def test_what_may_not_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    def make(folder: Path) -> None:
        if name == "closed":
            (folder / name).mkdir(mode=0o000)
        else:
            (folder / name).write_bytes(b"x")
            (folder / name).chmod(0o000)

    words = words_of(tmp_path, *asked(tmp_path, "jsonl", make))
    # Root may read everything, so it has to give that up first.
    without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*without, sys.executable, "-m", "sharder", *words]
    variables = environment(tmp_path)
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    (tmp_path / "corpus" / name).chmod(0o700)
    assert done.returncode in (1, 78), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert "ermission denied" in done.stderr
