"""Several boots that are one run: node 0 prepares, the others wait for it, all train."""

from pathlib import Path
import shutil
import time

import pytest

from staged_runs import Disturbed, Staged
from tiny_boot import TWO_NODES, Done, Place, attempts, copy_place, free_port, losses, read, trained_on_two_nodes

SHORT_WAIT = "resources.wait_minutes=0.05"


def flags(rank: int, port: int) -> tuple[str, ...]:
    return ("--node-rank", str(rank), "--master", f"127.0.0.1:{port}")


@pytest.mark.slow
def test_two_nodes_train_to_the_losses_of_one_node_with_two_ranks(
    sharded: Staged, calm: tuple[Place, Done], tmp_path: Path
) -> None:
    place, port = copy_place(sharded.place, tmp_path / "two", trained=False), free_port()
    first, second = trained_on_two_nodes(place, [flags(0, port), flags(1, port)], [{}, {}])
    assert (first.code, second.code) == (0, 0), first.said + second.said
    assert "batch: 8 sequences = micro 4 x accum 1 x ranks 2" in first.said
    assert "waiting: for node 0" in second.said
    assert losses(place.run) == losses(calm[0].run)
    folder = attempts(place.run)[-1]
    assert [read(folder / f"rank_{rank:05d}.json")["code"] for rank in range(2)] == [0, 0]


@pytest.mark.slow
def test_torchruns_variables_make_two_nodes_as_well_and_they_take_up_the_run_of_one(
    interrupted: Disturbed, calm: tuple[Place, Done]
) -> None:
    saved = interrupted.told["stop file"].saved[-1]
    assert interrupted.last.code == 0, interrupted.last.said
    assert f"resume: from step_{saved:08d}" in interrupted.last.said
    assert losses(interrupted.place.run) == losses(calm[0].run)


@pytest.mark.slow
def test_a_node_that_waits_in_vain_says_what_for(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "alone", trained=False)
    begun = time.monotonic()
    done = place.boot(TWO_NODES, SHORT_WAIT, *flags(1, 29999))
    assert done.code == 69
    assert time.monotonic() - begun < 15
    assert f"waiting: for node 0 to prepare {place.run}; at most 3 s" in done.said
    assert "node 0 gave no sign of life for 3 s; is its boot running?" in done.last
    assert str(place.run.lease) in done.last
    assert "Traceback" not in done.said
    assert not place.run.attempts.exists(), "a node that waits writes nothing"


@pytest.mark.slow
def test_a_node_that_comes_after_the_run_is_complete_finds_it_done(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "late", trained=False)
    words = ("--until", "tokenizer", TWO_NODES, SHORT_WAIT)
    assert place.boot(*words, *flags(0, 29999)).code == 0
    late = place.boot(*words, *flags(1, 29999))
    assert late.code == 0, late.said
    assert "every stage is done already" in late.last


@pytest.mark.slow
def test_a_node_ends_as_node_0_does_when_that_does_not_get_to_training(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "early", trained=False)
    shutil.copy(place.run.stage("shard"), place.run.stage("train"))
    words = ("resources.nodes=2", "resources.wait_minutes=0.5")
    with place.booting(*words, *flags(1, 29999)) as second:
        second.until(lambda: "waiting: for node 0" in second.said() or second.popen.poll() is not None, "the wait")
        first = place.boot(*words, *flags(0, 29999))
        done = second.wait()
    assert (first.code, done.code) == (78, 78), first.said + done.said


def test_an_interrupt_reaches_a_node_that_waits(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "waits", trained=False)
    with place.booting(TWO_NODES, *flags(1, 29999)) as process:
        process.until(lambda: "waiting: for node 0" in process.said(), "the wait")
        process.popen.terminate()
        done = process.wait(10)
    assert done.code == 75
    assert "while waiting for node 0" in done.last
