from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.boot.budget import INTERRUPTS, Past, cause, exhausted
from trainwright.spec.exits import Exit
from trainwright.spec.experiment import Restart

NOW = "records=3 shards=2 step=20"
RESTART = Restart(losses=4, failures=3, same_step=2)
LOSS = Past(NOW, None)
INTERRUPT = Past(NOW, Exit.INTERRUPTED, "interrupted at step 20 of 100, saved", 20)


def failure(step: int, reason: str = "out of memory") -> Past:
    return Past(NOW, Exit.FAILED, reason, step)


pasts = st.builds(
    Past,
    progress=st.sampled_from([NOW, "before"]),
    code=st.sampled_from([None, Exit.OK, Exit.FAILED, -9, Exit.INTERRUPTED, Exit.REFUSED, Exit.MISSING]),
    reason=st.sampled_from(["killed", "nan at step 5", "nan at step 6", ""]),
    step=st.sampled_from([None, 0, 20]),
    fresh_budget=st.booleans(),
)


def test_losses_are_counted_up_to_their_budget() -> None:
    assert exhausted([LOSS] * 3, NOW, RESTART) is None
    found = exhausted([LOSS] * 4, NOW, RESTART)
    assert found is not None
    assert "4 attempts were lost" in found
    assert "restart.losses=4" in found


def test_failures_at_different_steps_are_counted_up_to_their_budget_and_name_the_last() -> None:
    assert exhausted([failure(1), failure(2)], NOW, RESTART) is None
    found = exhausted([failure(1), failure(2), failure(3, "rank 1: disk is full")], NOW, RESTART)
    assert found is not None
    assert "3 attempts failed" in found
    assert "rank 1: disk is full" in found


def test_a_loss_is_no_failure_and_a_failure_is_no_loss() -> None:
    mixed = [failure(1), LOSS, LOSS, failure(2), LOSS]
    assert exhausted(mixed, NOW, RESTART) is None


def test_two_failures_at_one_step_with_one_cause_are_enough() -> None:
    alike = [failure(7, "rank 0: nan at 0x7f01, sample 31"), failure(7, "rank 1: nan at 0x7e99, sample 8")]
    found = exhausted(alike, NOW, RESTART)
    assert found is not None
    assert "2 failures in a row at step 7" in found
    assert "sample 8" in found


def test_another_step_or_another_cause_is_another_failure() -> None:
    assert exhausted([failure(7), failure(8)], NOW, RESTART) is None
    assert exhausted([failure(7, "nan"), failure(7, "out of memory")], NOW, RESTART) is None


def test_losses_between_two_failures_do_not_make_them_different() -> None:
    assert exhausted([failure(7), LOSS, INTERRUPT, failure(7)], NOW, RESTART) is not None


def test_three_interrupts_without_progress_are_a_loop() -> None:
    assert exhausted([INTERRUPT] * (INTERRUPTS - 1), NOW, RESTART) is None
    found = exhausted([INTERRUPT] * INTERRUPTS, NOW, RESTART)
    assert found is not None
    assert "3 attempts were interrupted without progress" in found


@given(st.sampled_from([LOSS, INTERRUPT, failure(7)]), st.integers(1, 30))
def test_any_progress_since_starts_every_count_anew(past: Past, times: int) -> None:
    assert exhausted([past] * times, "records=3 shards=2 step=21", RESTART) is None


@settings(max_examples=40)
@given(st.lists(pasts, max_size=30))
def test_a_run_whose_every_attempt_made_progress_is_never_exhausted(attempts: list[Past]) -> None:
    numbered = [replace(past, progress=f"step={number}") for number, past in enumerate(attempts)]
    assert exhausted(numbered, f"step={len(numbered)}", Restart(losses=1, failures=1, same_step=1)) is None


@settings(max_examples=40)
@given(st.lists(pasts, max_size=10), st.sampled_from([LOSS, INTERRUPT, failure(7)]))
def test_a_budget_given_by_hand_forgets_what_was_before(before: list[Past], past: Past) -> None:
    assert exhausted([*before, replace(past, fresh_budget=True)], NOW, RESTART) is None


@settings(max_examples=40)
@given(st.lists(pasts, max_size=12), st.lists(pasts, max_size=12))
def test_only_what_follows_the_last_progress_counts(before: list[Past], after: list[Past]) -> None:
    now = [replace(past, progress=NOW) for past in after]
    assert exhausted([*before, Past("another", None), *now], NOW, RESTART) == exhausted(now, NOW, RESTART)


@settings(max_examples=40)
@given(st.lists(pasts, max_size=12))
def test_endings_that_nobody_tries_again_count_for_nothing(attempts: list[Past]) -> None:
    final = (Exit.OK, Exit.REFUSED, Exit.MISSING)
    counted = [past for past in attempts if past.code not in final or past.fresh_budget or past.progress != NOW]
    assert exhausted(attempts, NOW, RESTART) == exhausted(counted, NOW, RESTART)


def test_a_cause_is_a_reason_without_its_numbers() -> None:
    assert cause("rank 12: address 0xDEADbeef after 3.5 s") == cause("rank 3: address 0x1 after 17.25 s")
    assert cause("out of memory") != cause("disk is full")
    assert len(cause("x" * 10_000)) == 200
