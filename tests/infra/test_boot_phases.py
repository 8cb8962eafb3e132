"""A run that is asked to stop in one phase after the other obeys each time and loses nothing.

bench/phases.py holds every request against every phase; here one run meets most of them, one after the other.
"""

import pytest

from staged_runs import Staged
from held_boot import PHASES, SAMPLES, Held, committed, gone, hold, weights
from tiny_boot import STEPS, TWO_RANKS, Done, Place, copy_place, last_step, losses

ASKED = (
    ("start", PHASES["start"], "SIGINT"),
    ("first step", PHASES["first step"], "SIGUSR2"),
    ("evaluation", "trainer.evaluate:_score:1", "SIGTERM"),
    ("saving", PHASES["saving"], "to the whole job: SIGTERM and SIGUSR1"),
    ("sampling", PHASES["sampling"], "SIGUSR1"),
)


@pytest.fixture(scope="module")
def asked(sharded: Staged, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, tuple[Held, int]], Done]:
    """Return a run that was held and asked in five phases, what came of each with the steps made, and its end."""
    place = copy_place(sharded.place, tmp_path_factory.mktemp("phases"), trained=False)
    found = {}
    for phase, where, request in ASKED:
        held = hold(place, where, request, *SAMPLES)
        assert not gone(place.root, 10)
        found[phase] = (held, last_step(place.run))
    return place, found, place.boot("--until", "train", TWO_RANKS, *SAMPLES)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("phase", [phase for phase, _, _ in ASKED])
def test_a_run_that_is_asked_in_a_phase_saves_what_it_has_and_asks_to_be_run_again(
    asked: tuple[Place, dict[str, tuple[Held, int]], Done], phase: str
) -> None:
    held, made = asked[1][phase]
    assert held.done.code == 75, held.done.said
    assert "Traceback" not in held.done.said
    assert max(held.saved, default=0) == made


@pytest.mark.faults
@pytest.mark.slow
def test_a_run_that_was_asked_in_every_phase_ends_as_if_nothing_had_happened(
    asked: tuple[Place, dict[str, tuple[Held, int]], Done], calm: tuple[Place, Done]
) -> None:
    place, _, last = asked
    assert last.code == 0, last.said
    assert losses(place.run) == losses(calm[0].run)
    assert weights(place, STEPS) == weights(calm[0], STEPS)
    assert committed(place)[-1] == STEPS


@pytest.mark.faults
@pytest.mark.slow
def test_a_save_that_outlasts_torchruns_patience_commits_under_sigterm(
    sharded: Staged, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = copy_place(sharded.place, tmp_path_factory.mktemp("long"), trained=False)
    held = hold(place, PHASES["saving"], "SIGTERM", keep_s=33)
    assert held.done.code == 75, held.done.said
    assert held.seconds > 32
    assert held.saved
    assert held.saved[-1] == last_step(place.run)


@pytest.mark.faults
@pytest.mark.slow
def test_a_rank_that_compiles_for_minutes_leaves_within_the_notice(
    sharded: Staged, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = copy_place(sharded.place, tmp_path_factory.mktemp("compiles"), trained=False)
    held = hold(place, PHASES["compile"], "SIGTERM", "train.compile=true", keep_s=600)
    assert held.done.code == 75, held.done.said
    assert "Traceback" not in held.done.said
    assert "interrupted before another update; all that was learned is saved" in held.done.said
    assert held.seconds < 15
    assert held.saved == [0]
    assert not gone(place.root, 10)
