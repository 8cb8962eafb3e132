"""A NaN in one sample of a real run of two ranks: refused by both, passed over, counted; beyond the budget it stops.

Two samples are planted. One is bad whenever it comes up; the other only the first time, as when a device slips. Of the
two ranks only one has the bad sample in its part of the batch.
"""

from dataclasses import dataclass
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from staged_runs import Staged
from tiny_boot import TWO_RANKS, Done, Place, attempts, checkpoints, copy_place, losses, read, rows
from trainwright.tokens.order import SampleOrder
from trainwright.tokens.shards import TokenCorpus

SEQ_LEN_TOKENS, SEED = 128, 42
BATCH, STEPS = 8, 80
SETTINGS = (
    *("--until", "train", TWO_RANKS, "evaluation.every_steps=null"),
    *(f"train.seq_len_tokens={SEQ_LEN_TOKENS}", f"train.global_batch_sequences={BATCH}", f"train.steps={STEPS}"),
)
"""A little more than an epoch, a batch in one pass of two ranks."""
ONE_RETURN = "train.nonfinite.rollbacks=1"

PLANTED = """\
import hashlib, json, math, os, pathlib, sys

if sys.orig_argv[sys.orig_argv.index("-m") + 1] == "trainer":
    import trainer.models.llama as llama

    here, summed_loss = pathlib.Path(__file__).parent, llama.summed_loss
    bad = json.loads((here / "bad.json").read_text())

    def planted(hidden, weight, targets, *options):
        loss = summed_loss(hidden, weight, targets, *options)
        for row in targets.view(-1, 128).numpy():
            kind = bad.get(hashlib.sha256(row.tobytes()).hexdigest())
            if kind is None or (kind == "once" and (here / "once").exists()):
                continue
            with (here / kind).open("a") as seen:
                seen.write(os.environ["RANK"])
            loss = loss * math.nan
        return loss

    llama.summed_loss = planted
"""
"""What Python loads by itself into every process that has its folder on the path, here only into the ranks."""


@dataclass(frozen=True)
class Planted:
    """Two bad samples; a batch is named by its first global sample."""

    folder: Path
    batches: list[int]
    """Where the passing fault comes up, and where the lasting one does in the first and in the second epoch."""

    def seen(self, kind: str) -> str:
        """Return the ranks that had a bad sample in their hands, in order."""
        return (self.folder / kind).read_text()


def plant(place: Place, folder: Path) -> Planted:
    """Choose the samples and write what makes them bad."""
    assert place.data is not None
    (tokens,) = (place.data / "datasets" / "train" / "tiny").glob("tokens-*")
    corpus = TokenCorpus(tokens)
    order = SampleOrder(corpus.shard_tokens, SEQ_LEN_TOKENS, SEED, None)
    taken = [int(sample) for sample in order.samples(np.arange(BATCH * STEPS))]
    once = BATCH * 20 + 5
    # One of the first epoch that comes up again before the run is over.
    always = next(at for at in range(BATCH * 40, BATCH * 50) if taken.count(taken[at]) == 2)
    again = taken.index(taken[always], always + 1)
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PLANTED)
    _, targets = corpus.pairs(np.array([taken[once], taken[always]]), SEQ_LEN_TOKENS)
    names = (hashlib.sha256(row.tobytes()).hexdigest() for row in targets)
    (folder / "bad.json").write_text(json.dumps(dict(zip(names, ("once", "always"), strict=True))))
    return Planted(folder, [at // BATCH * BATCH for at in (once, always, again)])


@dataclass(frozen=True)
class Survived:
    """One run with both faults."""

    place: Place
    planted: Planted
    stopped: Done
    """Its first boot, which suspects the weights at once and may go back to a checkpoint one time."""
    saved: list[int]
    """Its checkpoints after that."""
    continued: Done
    """Its second boot, which may pass over two batches in a row before it goes back."""


@pytest.fixture(scope="module")
def survived(sharded: Staged, tmp_path_factory: pytest.TempPathFactory) -> Survived:
    place = copy_place(sharded.place, tmp_path_factory.mktemp("nonfinite"), trained=False)
    planted = plant(place, place.root / "planted")
    stopped = place.boot(*SETTINGS, ONE_RETURN, "train.nonfinite.skips_in_a_row=0", PYTHONPATH=str(planted.folder))
    saved = checkpoints(place.run)
    continued = place.boot(*SETTINGS, ONE_RETURN, PYTHONPATH=str(planted.folder))
    return Survived(place, planted, stopped, saved, continued)


@pytest.mark.faults
@pytest.mark.slow
def test_a_return_goes_to_the_newest_checkpoint_and_past_the_bad_batch(survived: Survived) -> None:
    said, first = survived.stopped.said, survived.planted.batches[0]
    assert f"on samples {first} to {first + BATCH - 1} after step 20; the update was refused on all ranks" in said
    assert "going back to the newest checkpoint (1 of 1)" in said
    assert "resume: from step_00000014, the newest checkpoint that verifies" in said
    # One rank had it in its hands, once: after the return the batch was passed over unseen.
    assert len(survived.planted.seen("once")) == 1
    assert max(survived.saved) > 20


@pytest.mark.faults
@pytest.mark.slow
def test_one_return_too_many_stops_the_run_with_one_sentence(survived: Survived) -> None:
    done, attempt = survived.stopped, attempts(survived.place.run)[0]
    sentence = "train.nonfinite.rollbacks=1: loss or gradient is not finite again; "
    assert done.code == 78
    assert "Traceback" not in done.said
    assert done.said.count(sentence) == 1
    assert sentence in done.last
    assert read(attempt / "end.json")["reason"].startswith(sentence)
    assert [read(attempt / f"{name}.json")["code"] for name in ("rank_00000", "rank_00001", "end")] == [78, 78, 78]
    # Nothing was saved after the refusal, and nothing that was saved before it is lost.
    assert survived.saved[-1] == (survived.planted.batches[1] // BATCH - 1) // 7 * 7


@pytest.mark.faults
@pytest.mark.slow
def test_a_bad_batch_is_passed_over_by_all_ranks_and_the_run_completes(survived: Survived) -> None:
    done = survived.continued
    assert done.code == 0, done.said
    assert "going back" not in done.said
    # The lasting fault stopped the first boot; the second met it in both epochs.
    assert len(survived.planted.seen("always")) == 3
    for batch in survived.planted.batches[1:]:
        assert done.said.count(f"on samples {batch} to {batch + BATCH - 1} after step") == 1
    assert [step for step, _ in losses(survived.place.run)] == list(range(1, STEPS + 1))
    assert all(math.isfinite(row["grad_norm"]) for row in rows(survived.place.run) if "grad_norm" in row)


@pytest.mark.faults
@pytest.mark.slow
def test_every_refused_batch_and_every_return_is_recorded_in_the_checkpoint(survived: Survived) -> None:
    state = read(survived.place.run.checkpoints / f"step_{STEPS:08d}" / "train_state.json")
    assert (state["refused"], state["rollbacks"]) == (survived.planted.batches, 1)
    # What was passed over is counted in the data, and not in the steps.
    assert (state["step"], state["cursor"]) == (STEPS, (STEPS + 3) * BATCH)
