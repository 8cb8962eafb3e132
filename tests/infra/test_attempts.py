from itertools import product
import json
from pathlib import Path
import time

import pytest

from infra.boot.attempts import Attempt, Outcome, attempt_of, outcome_of_ranks, past_attempts, read_record
from infra.boot.attempts import start_attempt
from infra.boot.budget import Past
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder

OK, FAILED, MISSING, INTERRUPTED, REFUSED = Exit.OK, Exit.FAILED, Exit.MISSING, Exit.INTERRUPTED, Exit.REFUSED
LOST = None


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path, time.monotonic())


def ended(attempt: Attempt, *codes: int | None, agent: int = 0, step: int | None = 7) -> Outcome:
    """Leave the end records of ranks, None for a rank that left none, and return what they add up to."""
    for rank, code in enumerate(codes):
        if code is not None:
            record = {"rank": rank, "code": code, "reason": f"said by {rank}", "step": step}
            attempt.rank(rank).write_text(json.dumps(record))
    return outcome_of_ranks(attempt, range(len(codes)), agent)


def test_all_ranks_complete_is_complete(attempt: Attempt) -> None:
    assert ended(attempt, OK, OK) == Outcome(OK, "said by 0", 7)


def test_interrupted_ranks_are_an_interrupt(attempt: Attempt) -> None:
    assert ended(attempt, INTERRUPTED, INTERRUPTED, agent=1) == Outcome(INTERRUPTED, "said by 0", 7)


@pytest.mark.parametrize("others", [(FAILED, FAILED), (LOST, FAILED), (LOST, LOST), (OK, INTERRUPTED)])
@pytest.mark.parametrize("final", [REFUSED, MISSING])
def test_what_no_retry_mends_wins_over_crashes(
    attempt: Attempt, final: Exit, others: tuple[int | None, int | None]
) -> None:
    assert ended(attempt, others[0], final, others[1], agent=1) == Outcome(final, "said by 1", 7)


def test_a_refusal_wins_over_something_missing(attempt: Attempt) -> None:
    assert ended(attempt, MISSING, REFUSED).code == REFUSED


def test_a_crash_wins_over_interrupts_and_completion(attempt: Attempt) -> None:
    found = ended(attempt, INTERRUPTED, OK, FAILED, agent=1)
    assert found == Outcome(FAILED, "rank 2: said by 2", 7)


def test_a_lost_rank_is_named_before_what_its_neighbours_say(attempt: Attempt) -> None:
    found = ended(attempt, FAILED, LOST, FAILED, LOST, agent=1)
    assert found.code == FAILED
    assert found.reason.startswith("rank 1, 3 ended without a record (killed, or out of memory); rank 0: said by 0")


def test_an_agent_that_was_asked_before_it_started_ranks_was_interrupted(attempt: Attempt) -> None:
    assert outcome_of_ranks(attempt, range(2), 75).code == Exit.INTERRUPTED
    assert outcome_of_ranks(attempt, range(2), 1).code == Exit.FAILED


def test_a_rank_that_was_killed_for_want_of_memory_is_told_from_one_that_was_taken(attempt: Attempt) -> None:
    (attempt.folder / "rank_00000.json").unlink(missing_ok=True)
    found = outcome_of_ranks(attempt, range(1), 1, memory_ran_out=True)
    assert found.code == FAILED
    assert found.reason.startswith("rank 0 was killed: the host's memory ran out; give it more (resources.memory_gib)")


@pytest.mark.parametrize("here", [range(2), range(1, 2)])
def test_what_happens_to_the_neighbours_of_a_rank_that_left_at_once_is_a_consequence(
    attempt: Attempt, here: range
) -> None:
    # The second range is that of a node whose neighbour left on another one.
    attempt.rank(0).write_text(json.dumps({"rank": 0, "code": 75, "reason": "left", "step": None, "left": True}))
    assert outcome_of_ranks(attempt, here, 1) == Outcome(INTERRUPTED, "left", None)
    record = {"rank": 1, "code": 1, "reason": "Connection closed by peer", "step": None}
    attempt.rank(1).write_text(json.dumps(record))
    assert outcome_of_ranks(attempt, here, 1) == Outcome(INTERRUPTED, "left", None)
    attempt.rank(1).write_text(json.dumps({**record, "code": 78}))
    assert outcome_of_ranks(attempt, here, 1).code == REFUSED


def test_one_lost_rank_is_a_failure_however_well_the_others_ended(attempt: Attempt) -> None:
    assert ended(attempt, OK, LOST).code == FAILED


def test_an_agent_that_fails_after_complete_ranks_is_a_failure(attempt: Attempt) -> None:
    found = ended(attempt, OK, OK, agent=1)
    assert found.code == FAILED
    assert "torchrun ended with code 1" in found.reason


def test_ranks_that_never_wrote_anything_are_a_failure(attempt: Attempt) -> None:
    found = ended(attempt, LOST, LOST, agent=1)
    assert (found.code, found.step) == (FAILED, None)


@pytest.mark.parametrize("agent", [0, 1])
def test_every_combination_of_ranks_has_one_code(tmp_path: Path, agent: int) -> None:
    for number, codes in enumerate(product([OK, FAILED, MISSING, INTERRUPTED, REFUSED, LOST], repeat=3)):
        (tmp_path / str(number)).mkdir()
        found = ended(Attempt(tmp_path / str(number), 0.0), *codes, agent=agent)
        expected = (
            *(code for code in (REFUSED, MISSING) if code in codes),
            *(FAILED for code in codes if code in (FAILED, LOST)),
            *(INTERRUPTED for code in codes if code == INTERRUPTED),
            FAILED if agent else OK,
        )
        assert found.code == expected[0], codes
        assert found.reason


def test_the_step_is_the_last_that_any_rank_tells_of(attempt: Attempt) -> None:
    attempt.alive(1).write_text(json.dumps({"pid": 1, "phase": "step", "step": 31}))
    assert ended(attempt, FAILED, LOST, agent=1, step=30).step == 31


def test_ranks_of_other_nodes_are_not_ours_to_judge(attempt: Attempt) -> None:
    ended(attempt, FAILED, FAILED, OK, OK)
    assert outcome_of_ranks(attempt, range(2, 4), 0).code == OK


def test_attempts_are_numbered_one_after_the_other_whatever_else_lies_there(run: RunFolder) -> None:
    assert start_attempt(run, "a", "").number == "0001"
    (run.attempts / "0041").mkdir()
    (run.attempts / "0099.old-1").mkdir()
    assert start_attempt(run, "b", "").number == "0042"


def test_an_attempt_without_an_end_record_is_a_loss(run: RunFolder) -> None:
    start_attempt(run, "a", "step=1")
    assert past_attempts(run) == [Past("step=1", None)]


def test_an_end_record_gives_back_what_was_written(run: RunFolder) -> None:
    start_attempt(run, "a", "step=1").end(Outcome(FAILED, "disk is full", 12))
    assert past_attempts(run) == [Past("step=1", FAILED, "disk is full", 12)]


def test_budgets_go_on_counting_what_a_spent_budget_made_final(run: RunFolder) -> None:
    attempt = start_attempt(run, "a", "step=1")
    attempt.end(Outcome(REFUSED, "3 attempts failed; after: disk is full", 12, counted=FAILED))
    assert json.loads(attempt.end_record.read_text())["code"] == REFUSED
    assert past_attempts(run)[0].code == FAILED


def test_past_attempts_come_oldest_first(run: RunFolder) -> None:
    for number in range(12):
        start_attempt(run, "a", f"step={number}")
    assert [past.progress for past in past_attempts(run)] == [f"step={number}" for number in range(12)]


def test_the_wish_to_go_on_is_taken_up_by_one_attempt(run: RunFolder) -> None:
    run.path.mkdir(parents=True)
    run.go_on.write_text("{}")
    start_attempt(run, "a", "")
    start_attempt(run, "b", "")
    assert [past.fresh_budget for past in past_attempts(run)] == [True, False]
    assert not run.go_on.exists()


def test_an_attempt_killed_before_its_start_record_is_a_loss_too(run: RunFolder) -> None:
    (run.attempts / "0001").mkdir(parents=True)
    assert past_attempts(run) == [Past("", None)]


def test_an_attempt_is_found_by_its_lease(run: RunFolder) -> None:
    first, second = start_attempt(run, "a", ""), start_attempt(run, "b", "")
    (run.attempts / "0003").mkdir()
    assert [found.folder if (found := attempt_of(run, lease)) else None for lease in "abc"] == [
        first.folder,
        second.folder,
        None,
    ]


def test_a_record_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "rank_00000.json") is None
