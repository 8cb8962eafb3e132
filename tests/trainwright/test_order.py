"""The order of samples: a permutation that needs no memory, and a sequence that ranks and batches only cut."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from trainwright.tokens.order import SampleOrder, permute, unpermute

SHARDS = st.lists(st.integers(1, 400), min_size=1, max_size=6).filter(lambda shards: sum(shards) > 1).map(tuple)
ORDERS = st.builds(SampleOrder, SHARDS, st.integers(1, 40), st.integers(0, 2**63 - 1), st.none() | st.integers(1, 600))


def positions(count: int, start: int = 0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(start, start + count, dtype=np.int64)


@given(st.integers(1, 3000), st.binary(max_size=8))
def test_permute_is_a_bijection_for_every_size(size: int, key: bytes) -> None:
    assert np.array_equal(np.sort(permute(positions(size), size, key)), positions(size))


@given(st.integers(1, 3000), st.binary(max_size=8), st.data())
def test_unpermute_finds_the_way_back(size: int, key: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, size - 1))
    (image,) = permute(positions(1, position), size, key).tolist()
    assert unpermute(image, size, key) == position


@given(ORDERS, st.integers(0, 300), st.integers(1, 300))
def test_targets_are_counted_without_visiting_the_samples(order: SampleOrder, start: int, count: int) -> None:
    total, length = sum(order.shard_tokens), order.seq_len_tokens
    samples = order.samples(positions(count, start)).tolist()
    counted = sum(min((sample + 1) * length, total - 1) - sample * length for sample in samples)
    assert order.num_targets(start, start + count) == counted


def test_the_batch_at_sample_a_billion_of_a_trillion_tokens_is_found_at_once() -> None:
    shard_tokens = tuple(100_000_000 + index for index in range(10_000))
    seconds = []
    for seed in range(3):
        started = time.perf_counter()
        order = SampleOrder(shard_tokens, 1000, seed, group_tokens=200_000_000)
        samples = order.samples(positions(512, 3 * order.num_samples + 10**9))
        seconds.append(time.perf_counter() - started)
        assert len(set(samples.tolist())) == 512
    # 0.01 s, unless others work on the same cores.
    assert min(seconds) < 0.05


def test_permute_stays_inside_a_range_too_large_to_list() -> None:
    size = 5_000_000_007
    images = permute(positions(4096, size - 4096), size, b"key")
    assert images.min() >= 0
    assert images.max() < size
    assert len(set(images.tolist())) == 4096


def test_permute_follows_its_key_and_leaves_few_in_place() -> None:
    images = [permute(positions(10_000), 10_000, key) for key in (b"a", b"b")]
    assert not np.array_equal(*images)
    for image in images:
        # A random permutation has one fixed point on average, and neighbours 3,333 apart.
        assert (image == positions(10_000)).sum() < 10
        assert np.abs(np.diff(image)).mean() == pytest.approx(10_000 / 3, rel=0.05)


def test_permute_keeps_shape_and_order_of_what_it_is_asked() -> None:
    whole = permute(positions(100), 100, b"k")
    asked = np.array([[7, 3], [99, 0]], dtype=np.int64)
    assert np.array_equal(permute(asked, 100, b"k"), whole[asked])


@settings(max_examples=60)
@given(ORDERS, st.integers(0, 3))
def test_every_epoch_visits_every_sample_once(order: SampleOrder, epoch: int) -> None:
    count = order.num_samples
    assert np.array_equal(np.sort(order.samples(positions(count, epoch * count))), positions(count))


@given(ORDERS)
def test_every_token_but_the_first_is_a_target_once_an_epoch(order: SampleOrder) -> None:
    total, length = sum(order.shard_tokens), order.seq_len_tokens
    targets = [
        token
        for sample in order.samples(positions(order.num_samples)).tolist()
        for token in range(sample * length + 1, min((sample + 1) * length, total - 1) + 1)
    ]
    assert sorted(targets) == list(range(1, total))


@settings(max_examples=60)
@given(ORDERS, st.lists(st.integers(0, 50), max_size=6), st.integers(0, 40))
def test_any_slicing_of_the_cursors_gives_the_same_sequence(order: SampleOrder, cuts: list[int], start: int) -> None:
    count = sum(cuts)
    whole = order.samples(positions(count, start))
    pieces, at = [], start
    for cut in cuts:
        pieces.append(order.samples(positions(cut, at)))
        at += cut
    assert np.array_equal(whole, np.concatenate([*pieces, positions(0)]))
    # Nor does it matter in what order positions are asked for.
    assert np.array_equal(order.samples(positions(count, start)[::-1]), whole[::-1])


def test_epochs_and_seeds_give_other_orders() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        order = SampleOrder((5000,), 10, seed)
        return list(order.samples(positions(20, epoch * order.num_samples)))

    assert len({tuple(first(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert first(1, 0) == first(1, 0)


def test_groups_are_finished_one_after_the_other() -> None:
    order = SampleOrder((1000,) * 6, 10, 3, group_tokens=1500)
    samples = order.samples(positions(order.num_samples))
    # Two shards of 1,000 tokens reach the 1,500 of a group: 200 samples of 10 tokens each.
    turns = samples // 200
    assert [len(set(turns[start : start + 200].tolist())) for start in (0, 200, 400)] == [1, 1, 1]
    assert sorted({int(turns[start]) for start in (0, 200, 400)}) == [0, 1, 2]
    assert not np.array_equal(samples[:200], np.sort(samples[:200]))


def test_the_order_of_groups_changes_with_the_epoch() -> None:
    order = SampleOrder((100,) * 12, 10, 1, group_tokens=100)
    count = order.num_samples
    visits = {tuple((order.samples(positions(count, epoch * count)) // 10)[::10].tolist()) for epoch in range(4)}
    assert len(visits) == 4


@pytest.mark.parametrize(
    ("group_tokens", "first"),
    [
        (None, [90, 75, 21, 3, 19, 106, 32, 7, 43, 20, 94, 60, 87, 1, 52, 69]),
        (300, [110, 108, 114, 120, 119, 106, 100, 113, 118, 99, 102, 109, 123, 105, 103, 104]),
    ],
)
def test_the_order_is_pinned(group_tokens: int | None, first: list[int]) -> None:
    # Checkpoints hold a cursor into this order: a change of it would silently train on other samples.
    order = SampleOrder((250, 130, 410, 90, 121), 8, 42, group_tokens)
    assert order.num_samples == 125
    assert order.samples(positions(16)).tolist() == first
