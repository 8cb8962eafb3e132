"""Several boots that are one run: node 0 prepares, the others wait for it, all train."""

from pathlib import Path
import shutil
import time

import pytest

from conftest import Staged
from tiny_boot import STEPS, Done, Place, attempts, copy_place, free_port, losses, read

TWO_NODES = "resources.nodes=2"
SHORT_WAIT = "resources.wait_minutes=0.05"


def flags(rank: int, port: int) -> tuple[str, ...]:
    return ("--node-rank", str(rank), "--master", f"127.0.0.1:{port}")


def pet(rank: int, port: int) -> dict[str, str]:
    where = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    return {"PET_NNODES": "2", "PET_NODE_RANK": str(rank), **where}


def trained(place: Place, words: list[tuple[str, ...]], variables: list[dict[str, str]]) -> list[Done]:
    """Boot both nodes, the second first, and return how they ended."""
    common = ("--until", "train", TWO_NODES)
    with (
        place.booting(*common, *words[1], **variables[1]) as second,
        place.booting(*common, *words[0], **variables[0]) as first,
    ):
        return [first.wait(), second.wait()]


@pytest.mark.slow
def test_two_nodes_train_to_the_losses_of_one_node_with_two_ranks(
    sharded: Staged, calm: tuple[Place, Done], tmp_path: Path
) -> None:
    place, port = copy_place(sharded.place, tmp_path / "two", trained=False), free_port()
    first, second = trained(place, [flags(0, port), flags(1, port)], [{}, {}])
    assert (first.code, second.code) == (0, 0), first.said + second.said
    assert "batch: 8 sequences = micro 4 x accum 1 x ranks 2" in first.said
    assert "waiting: for node 0" in second.said
    assert losses(place.run) == losses(calm[0].run)
    folder = attempts(place.run)[-1]
    assert [read(folder / f"rank_{rank:05d}.json")["code"] for rank in range(2)] == [0, 0]


@pytest.mark.slow
def test_torchruns_variables_make_two_nodes_as_well_and_they_resume(calm: tuple[Place, Done], tmp_path: Path) -> None:
    place, port = copy_place(calm[0], tmp_path / "pet", trained=True), free_port()
    place.run.stage("train").unlink()
    shutil.rmtree(place.run.checkpoints / f"step_{STEPS:08d}")
    first, second = trained(place, [(), ()], [pet(0, port), pet(1, port)])
    assert (first.code, second.code) == (0, 0), first.said + second.said
    assert "resume: from step_00000090" in first.said
    assert losses(place.run) == losses(calm[0].run)


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


def test_a_node_that_comes_after_the_run_is_complete_finds_it_done(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "late", trained=False)
    words = ("--until", "tokenizer", TWO_NODES, SHORT_WAIT)
    assert place.boot(*words, *flags(0, 29999)).code == 0
    late = place.boot(*words, *flags(1, 29999))
    assert late.code == 0, late.said
    assert "every stage is done already" in late.last


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
