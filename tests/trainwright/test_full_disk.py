"""What the store does on a disk that is full: the old file stays, nothing else does, and the error names the file."""

from collections.abc import Callable
import errno
import os
from pathlib import Path

import pytest

from small_disks import SmallDisk
from trainwright.spec.exits import describe_os_error
from trainwright.store.files import atomic_writer, read_json, write_bytes, write_json
from trainwright.store.lease import acquire, holds
from trainwright.store.text_shards import Drops, TextManifest, TextShardWriter
from trainwright.tokens.bundle import Bundle, bytes_bundle
from trainwright.tokens.shards import write_shard

MountSmall = Callable[..., SmallDisk]
NOTHING = TextManifest("train", "fraction", 1, {})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".filler"}


def test_the_old_file_stays_and_the_error_names_the_file(small_disk: MountSmall) -> None:
    disk = small_disk(256)
    path = disk.path / "record.json"
    write_json(path, {"old": 1})
    disk.fill()
    with pytest.raises(OSError, match="No space left") as caught:
        write_json(path, {"new": "x" * 9000})
    way = "free some space, then run the same command again"
    assert describe_os_error(caught.value) == f"{path}: No space left on device; {way}"
    assert read_json(path) == {"old": 1}
    assert names(disk.path) == {"record.json"}
    disk.free()
    write_json(path, {"new": 2})
    assert read_json(path) == {"new": 2}


def test_a_write_that_fits_a_buffer_but_not_the_disk_is_an_error_too(small_disk: MountSmall) -> None:
    disk = small_disk(256)
    disk.fill()
    with pytest.raises(OSError, match="No space left") as caught:
        write_bytes(disk.path / "small", b"1")
    assert caught.value.filename == str(disk.path / "small")
    assert names(disk.path) == set()


def test_a_disk_without_room_for_names_is_an_error_of_the_file_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match="quota") as caught, atomic_writer(tmp_path / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "file")


def test_a_text_shard_that_does_not_fit_leaves_the_committed_ones(small_disk: MountSmall) -> None:
    disk = small_disk(256)
    with TextShardWriter(disk.path, NOTHING, 1, Drops()) as writer:
        writer.add("first", 5)
        disk.fill(leave_kib=8)
        with pytest.raises(OSError, match="No space left") as caught:
            # Random bytes, which nothing compresses.
            writer.add(os.urandom(400_000).hex(), 800_000)
        assert caught.value.filename == str(disk.path / "train_00001.jsonl.zst")
    assert names(disk.path) == {"manifest.json", "train_00000.jsonl.zst"}
    manifest = TextManifest.read(disk.path)
    manifest.verify(disk.path, hashes=True)
    assert (manifest.num_documents, manifest.complete) == (1, False)
    disk.free()
    with TextShardWriter(disk.path, manifest, 1, Drops()) as writer:
        for text in ("first", "second"):
            writer.add(text, len(text))
        writer.commit_rest()
        assert writer.complete().num_documents == 2


def test_a_token_shard_that_does_not_fit_leaves_nothing(small_disk: MountSmall) -> None:
    disk = small_disk(256)
    disk.fill(leave_kib=4)
    piece = bytes_bundle().encode_document("x" * 100_000)
    with pytest.raises(OSError, match="No space left") as caught:
        write_shard(disk.path / "train_00000.bin", [piece], 265, 1)
    assert caught.value.filename == str(disk.path / "train_00000.bin")
    assert names(disk.path) == set()


def test_a_tokenizer_bundle_that_does_not_fit_is_no_bundle(small_disk: MountSmall) -> None:
    disk = small_disk(256)
    disk.fill(leave_kib=4)
    folder = disk.path / "bundle"
    with pytest.raises(OSError, match="No space left") as caught:
        bytes_bundle().save(folder)
    assert str(folder) in str(caught.value)
    assert "manifest.json" not in names(folder)
    disk.free()
    bytes_bundle().save(folder)
    assert Bundle.load(folder).hash == bytes_bundle().hash


def test_a_lease_that_does_not_fit_leaves_no_claim_for_others_to_wait_for(small_disk: MountSmall) -> None:
    disk = small_disk(256)
    path = disk.path / "lease.json"
    disk.fill()
    with pytest.raises(OSError, match="No space left") as caught:
        acquire(path, "a test")
    assert caught.value.filename == str(path)
    assert names(disk.path) == set()
    disk.free()
    with acquire(path, "a test", patience_s=60) as lease:
        assert holds(path, lease.holder.id)
    assert names(disk.path) == set()


def test_a_held_lease_outlives_a_full_disk(small_disk: MountSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from trainwright.store import lease as module

    beats = threading.Semaphore(0)
    written = module._write

    def write(path: Path, holder: module.Holder) -> None:
        beats.release()
        written(path, holder)

    monkeypatch.setattr(module, "BEAT_S", 0.02)
    disk = small_disk(256)
    path = disk.path / "lease.json"
    with acquire(path, "a test") as lease:
        monkeypatch.setattr(module, "_write", write)
        disk.fill()
        before = read_json(path)["counter"]
        for _ in range(3):
            assert beats.acquire(timeout=10)
        assert holds(path, lease.holder.id)
        disk.free()
        for _ in range(3):
            assert beats.acquire(timeout=10)
        assert read_json(path)["counter"] > before
