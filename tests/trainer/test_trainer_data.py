"""Batches: the ranks cut one sequence of samples, whatever their number, and a cursor is all there is to resume."""

from itertools import islice
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from tiny_run import Ground, make_ground, tiny_experiment
from trainer.data import Batch, Dealing, batches, last_cursor, open_corpus
from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.tokens.order import SampleOrder
from trainwright.tokens.shards import IGNORED, TokenCorpus, TokenManifest, write_shard

ALL = Dealing(4, 2, 0, 1)


@pytest.fixture(scope="session")
def opened(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenCorpus, SampleOrder]:
    experiment = tiny_experiment(tmp_path_factory.mktemp("data"))
    return open_corpus(ground.tokens("train"), Derived(experiment))


def first(
    opened: tuple[TokenCorpus, SampleOrder],
    dealing: Dealing,
    count: int,
    cursor: int = 0,
    refused: tuple[int, ...] = (),
) -> list[Batch]:
    with batches(*opened, dealing, cursor, refused) as stream:
        return list(islice(stream, count))


def numbered_corpus(folder: Path, lengths: list[int]) -> TokenCorpus:
    """Return a corpus in which each token is its own place."""
    entries, start = [], 0
    for index, length in enumerate(lengths):
        tokens = np.arange(start, start + length, dtype=np.uint32)
        entries.append(write_shard(folder / f"train_{index:05d}.bin", [tokens], 65_537, 1))
        start += length
    TokenManifest("t", 65_537, 0, "x", complete=True, shards=tuple(entries)).write(folder)
    return TokenCorpus(folder)


def same(left: Batch, right: Batch) -> bool:
    """Return whether two batches are equal in every number and tensor."""
    numbers = [(each.num_targets, each.cursor, each.next_cursor, len(each.passes)) for each in (left, right)]
    pairs = zip(left.passes, right.passes, strict=True)
    return numbers[0] == numbers[1] and all(
        torch.equal(one, other) for pair in pairs for one, other in zip(*pair, strict=True)
    )


@given(micro=st.integers(1, 8), accum=st.integers(1, 8), ranks=st.integers(1, 8), cursor=st.integers(0, 10**12))
def test_the_ranks_take_each_sample_of_a_batch_once(micro: int, accum: int, ranks: int, cursor: int) -> None:
    dealt = [Dealing(micro, accum, rank, ranks).rows(cursor) for rank in range(ranks)]
    assert {part.shape for part in dealt} == {(accum, micro)}
    together = np.sort(np.concatenate([part.ravel() for part in dealt]))
    assert np.array_equal(together, cursor + np.arange(micro * accum * ranks))


@settings(max_examples=20, deadline=None)
@given(
    cut=st.sampled_from([(8, 1, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4), (1, 1, 8)]), cursor=st.integers(0, 500)
)
def test_any_cut_of_a_batch_holds_the_same_samples(
    opened: tuple[TokenCorpus, SampleOrder], cut: tuple[int, int, int], cursor: int
) -> None:
    micro, accum, ranks = cut
    parts = [first(opened, Dealing(micro, accum, rank, ranks), 1, cursor)[0] for rank in range(ranks)]
    (whole,) = first(opened, Dealing(8, 1, 0, 1), 1, cursor)
    assert {(part.num_targets, part.cursor, part.next_cursor) for part in parts} == {
        (whole.num_targets, cursor, cursor + 8)
    }
    # Accumulation passes come first, then ranks, then rows.
    rows = [part.passes[index][side] for index in range(accum) for part in parts for side in (0, 1)]
    assert torch.equal(torch.cat(rows[0::2]), whole.passes[0][0])
    assert torch.equal(torch.cat(rows[1::2]), whole.passes[0][1])


def test_a_cursor_reaches_the_batch_that_iterating_reaches(opened: tuple[TokenCorpus, SampleOrder]) -> None:
    walked = first(opened, ALL, 12)
    for batch in walked:
        assert same(first(opened, ALL, 1, batch.cursor)[0], batch)
    assert [batch.cursor for batch in walked] == list(range(0, 96, 8))


def test_the_targets_of_a_batch_are_counted_with_the_padded_window(opened: tuple[TokenCorpus, SampleOrder]) -> None:
    corpus, order = opened
    seen = first(opened, ALL, order.num_samples // 8 + 2)
    counted = [batch.num_targets for batch in seen]
    assert counted == [sum(int((wanted != IGNORED).sum()) for _, wanted in batch.passes) for batch in seen]
    # This corpus ends within a window, or the law above would say nothing.
    assert (corpus.manifest.num_tokens - 1) % order.seq_len_tokens
    assert min(counted) < 8 * order.seq_len_tokens


def test_epochs_follow_each_other_without_end(opened: tuple[TokenCorpus, SampleOrder]) -> None:
    corpus, order = opened
    epoch = order.num_samples
    assert epoch % 8, "a batch must lie across the end of the epoch"
    taken = first(opened, ALL, 3 * epoch // 8 + 1)
    samples = order.samples(np.arange(3 * epoch))
    inputs = torch.cat([inputs for batch in taken for inputs, _ in batch.passes])
    for index in (0, epoch - 1, epoch, epoch + 1, 3 * epoch - 1):
        expected, _ = corpus.pairs(samples[index : index + 1], order.seq_len_tokens)
        assert np.array_equal(inputs[index].numpy(), expected[0])
    for start in (0, epoch, 2 * epoch):
        assert sorted(samples[start : start + epoch]) == list(range(epoch))
    assert not np.array_equal(samples[:epoch], samples[epoch : 2 * epoch])


def test_refused_batches_are_passed_over_wherever_they_come_up(opened: tuple[TokenCorpus, SampleOrder]) -> None:
    walked = first(opened, ALL, 8)
    left = first(opened, ALL, 5, refused=(0, 16, 24))
    assert [batch.cursor for batch in left] == [8, 32, 40, 48, 56]
    for batch in left:
        assert same(batch, walked[batch.cursor // 8])
    # A run that resumes at a refused batch starts with the one after it.
    assert first(opened, ALL, 1, 16, (16, 24))[0].cursor == 32


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5).filter(lambda one: sum(one) > 1),
    seq_len=st.integers(1, 9),
    cut=st.sampled_from([(4, 1, 1), (1, 2, 2), (2, 1, 2), (1, 1, 4), (1, 1, 3), (5, 1, 1)]),
    group_tokens=st.none() | st.integers(1, 80),
    epoch=st.integers(0, 2),
)
def test_every_token_but_the_first_is_a_target_once_an_epoch_on_any_number_of_ranks(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    seq_len: int,
    cut: tuple[int, int, int],
    group_tokens: int | None,
    epoch: int,
) -> None:
    folder = tmp_path_factory.mktemp("numbered")
    corpus = numbered_corpus(folder, lengths)
    order = SampleOrder(corpus.shard_tokens, seq_len, 7, group_tokens)
    micro, accum, ranks = cut
    begin, end = epoch * order.num_samples, (epoch + 1) * order.num_samples
    found: list[int] = []
    for rank in range(ranks):
        dealing = Dealing(micro, accum, rank, ranks)
        with batches(corpus, order, dealing, begin) as stream:
            for batch in islice(stream, -(-order.num_samples // dealing.global_batch)):
                cursors = dealing.rows(batch.cursor)
                for index, (inputs, targets) in enumerate(batch.passes):
                    kept = torch.from_numpy(cursors[index] < end)
                    wanted, given_ = targets[kept], inputs[kept]
                    assert torch.equal(wanted[wanted != IGNORED] - 1, given_[wanted != IGNORED])
                    found += wanted[wanted != IGNORED].tolist()
    assert sorted(found) == list(range(1, sum(lengths)))


@pytest.mark.parametrize("vocab_size", [300, 70_000, 2**32])
def test_tokens_stay_as_narrow_as_on_disk_until_they_are_on_the_device(tmp_path: Path, vocab_size: int) -> None:
    tokens = np.array([0, 299, vocab_size - 1, 1, vocab_size // 2 + 7, 5], dtype=np.uint32)
    entry = write_shard(tmp_path / "train_00000.bin", [tokens], vocab_size, 1)
    TokenManifest("t", vocab_size, 0, "x", complete=True, shards=(entry,)).write(tmp_path)
    corpus = TokenCorpus(tmp_path)
    with batches(corpus, SampleOrder(corpus.shard_tokens, 5, 1), Dealing(1, 1, 0, 1), 0) as stream:
        batch = next(stream)
    assert batch.windows.element_size() == (2 if vocab_size == 300 else 4)
    ((inputs, targets),) = batch.on(torch.device("cpu"))
    assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
    assert inputs[0].tolist() == tokens[:-1].tolist()
    assert targets[0].tolist() == tokens[1:].tolist()


def test_epochs_are_counted(opened: tuple[TokenCorpus, SampleOrder]) -> None:
    _, order = opened
    counted = [batch.epoch for batch in first(opened, ALL, 3 * order.num_samples // 8)]
    assert counted == [8 * (index + 1) / order.num_samples for index in range(len(counted))]
    assert counted[-1] > 2


def test_a_run_that_needs_more_epochs_than_are_allowed_is_refused_before_it_starts(
    opened: tuple[TokenCorpus, SampleOrder], tmp_path: Path
) -> None:
    _, order = opened
    fitting = 2 * order.num_samples // 8
    for steps in (10, fitting):
        derived = Derived(tiny_experiment(tmp_path, "data.max_epochs=2", f"train.steps={steps}"))
        assert last_cursor(order, derived) == 2 * order.num_samples
    derived = Derived(tiny_experiment(tmp_path, "data.max_epochs=2", f"train.steps={fitting + 1}"))
    with pytest.raises(UserError, match=rf"data\.max_epochs=2: .* train {fitting} steps, add text"):
        last_cursor(order, derived)
    assert last_cursor(order, Derived(tiny_experiment(tmp_path, "train.steps=100000"))) is None


def test_nothing_is_read_beyond_the_last_epoch(opened: tuple[TokenCorpus, SampleOrder]) -> None:
    corpus, order = opened
    end = order.num_samples
    with batches(corpus, order, ALL, 0, (8,), end=end) as stream:
        taken = list(islice(stream, end // 8 - 1))
        assert taken[-1].next_cursor <= end
        with pytest.raises(UserError, match=r"beyond the last epoch that data\.max_epochs allows"):
            next(stream)


def test_a_shard_that_shrinks_under_the_run_is_named(tmp_path: Path) -> None:
    ground = make_ground(tmp_path / "ground")
    opened = open_corpus(ground.tokens("train"), Derived(tiny_experiment(tmp_path)))
    with batches(*opened, ALL, 0) as stream:
        next(stream)
        for path in ground.tokens("train").glob("*.bin"):
            path.write_bytes(path.read_bytes()[:1500])
        with pytest.raises(UserError, match=r"train_0000\d\.bin"):
            list(islice(stream, 30))
