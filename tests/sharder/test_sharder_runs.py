from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from sharder.runs import Keyed, RunFiles, bucket_of, read_bucket, write_run
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import json_line

keys = st.integers(0, 2**64 - 1)
documents = st.lists(st.tuples(keys, st.binary(max_size=20), st.integers(0, 99)), max_size=30)


@given(keys, keys, st.integers(1, 5000))
def test_a_greater_key_is_in_the_same_or_a_later_bucket(one: int, other: int, num_buckets: int) -> None:
    assert bucket_of(min(one, other), num_buckets) <= bucket_of(max(one, other), num_buckets) < num_buckets


@settings(deadline=None, max_examples=60)
@given(runs=st.lists(documents, max_size=4), num_buckets=st.integers(1, 9))
def test_all_buckets_of_all_runs_are_the_sorted_documents(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[Keyed]], num_buckets: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    placed = []
    for number, run in enumerate(runs):
        path = folder / f"{number}.run"
        shard, buckets = write_run(path, list(run), num_buckets)
        assert (shard.num_documents, shard.bytes) == (len(run), path.stat().st_size)
        assert sum(buckets.counts) == len(run)
        placed.append((path, buckets))
    found = [document for bucket in range(num_buckets) for document in read_bucket(placed, bucket)]
    assert found == sorted(document for run in runs for document in run)


def test_a_damaged_run_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.run"
    _, buckets = write_run(path, [(number << 60, b"line" * 50, 9) for number in range(9)], 1)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x\.run: damaged"):
        read_bucket([(path, buckets)], 0)


def test_a_run_is_full_when_a_quarter_of_the_memory_is(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, 0, 4, 40_000)
    text, digest = b"x" * 700, bytes(32)
    for number in range(11):
        assert not files.full, number
        files.add("train", text, digest)
    assert files.full
    shards, _ = files.commit()
    assert shards["train"].num_documents == 11
    assert 11 * (len(json_line(text)) + 200) >= 10_000
