"""What happens to a run whose boot or whose ranks are killed or hang: it says so, and the next boot goes on."""

import pytest

from staged_runs import Disturbed
from tiny_boot import STEPS, Done, Place, attempts, losses, processes, read

pytestmark = pytest.mark.slow


def test_a_killed_boot_leaves_no_process_behind(broken: Disturbed) -> None:
    # The law itself is in the disturbance, which waits three seconds at most.
    assert broken.told["boot killed"].done.code == -9
    assert not processes(broken.place.root)


def test_the_next_boot_takes_a_killed_one_over_at_once_and_goes_on(broken: Disturbed) -> None:
    told = broken.told["boot killed"]
    said = broken.told["rank killed"].done.said
    assert told.saved[-1] >= 7
    assert f"resume: from step_{told.saved[-1]:08d}, the newest checkpoint that verifies" in said
    assert "watching its counter" not in said


def test_an_attempt_whose_boot_was_killed_has_no_end_record(broken: Disturbed) -> None:
    ends = [(folder / "end.json").exists() for folder in attempts(broken.place.run)]
    assert ends == [False, True, True, True]


def test_a_killed_rank_fails_the_attempt_by_name(broken: Disturbed) -> None:
    done, record = broken.told["rank killed"].done, read(attempts(broken.place.run)[1] / "end.json")
    assert done.code == 1
    assert record["code"] == 1
    assert record["reason"].startswith("rank 1 ended without a record (killed, or out of memory)")
    assert record["reason"] in done.said
    assert record["step"] >= 16


def test_a_killed_rank_takes_its_neighbours_with_it_in_time(broken: Disturbed) -> None:
    assert broken.told["rank killed"].seconds < 20


def test_a_rank_that_gives_no_sign_of_life_fails_the_attempt(broken: Disturbed) -> None:
    done, record = broken.told["rank stopped"].done, read(attempts(broken.place.run)[2] / "end.json")
    assert done.code == 1
    assert record["code"] == 1
    assert "no sign of life: " in record["reason"]
    assert "rank 1 for " in record["reason"]
    assert "(process stopped)" in record["reason"]
    assert record["reason"] in done.said
    assert 6 <= broken.told["rank stopped"].seconds < 25


def test_every_rank_of_a_hung_attempt_leaves_its_stacks(broken: Disturbed) -> None:
    folder = attempts(broken.place.run)[2]
    for rank in range(2):
        stacks = (folder / f"stacks_{rank:05d}.txt").read_text()
        assert "most recent call first" in stacks
        assert "trainer/loop.py" in stacks
        assert str(folder / f"stacks_{rank:05d}.txt") in read(folder / "end.json")["reason"]


def test_a_run_that_was_killed_again_and_again_completes_as_if_nothing_had_happened(
    broken: Disturbed, calm: tuple[Place, Done]
) -> None:
    assert broken.last.code == 0, broken.last.said
    assert losses(broken.place.run) == losses(calm[0].run)
    assert [step for step, _ in losses(broken.place.run)] == list(range(1, STEPS + 1))
