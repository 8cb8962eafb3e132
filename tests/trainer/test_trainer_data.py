"""Batches: the ranks cut one sequence of samples, whatever their number, and a cursor is all there is to resume."""

from itertools import islice
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from tiny_run import Ground, make_ground, tiny_experiment
from trainer.data import Batch, Dealing, batches, open_corpus
from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.tokens.order import SampleOrder
from trainwright.tokens.shards import IGNORED, TokenCorpus

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
        expected, _ = corpus.windows(samples[index : index + 1], order.seq_len_tokens)
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


def test_a_shard_that_shrinks_under_the_run_is_named(tmp_path: Path) -> None:
    ground = make_ground(tmp_path / "ground")
    opened = open_corpus(ground.tokens("train"), Derived(tiny_experiment(tmp_path)))
    with batches(*opened, ALL, 0) as stream:
        next(stream)
        for path in ground.tokens("train").glob("*.bin"):
            path.write_bytes(path.read_bytes()[:1500])
        with pytest.raises(UserError, match=r"train_0000\d\.bin"):
            list(islice(stream, 30))
