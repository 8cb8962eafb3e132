"""A run that goes on with more ranks, and then with fewer, is fed and learns what a single rank does.

`bench/elastic.py` proves it for every pair of 1 to 4 ranks, through boot.
"""

import json
from pathlib import Path

import pytest
import torch

from sources import ROOT
from tiny_run import (
    STEPS,
    Ground,
    checkpoint_tensors,
    copy_run,
    drop_after,
    losses,
    make_run,
    steps,
    train_in_processes,
)
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder

SETTINGS = (
    *("train.global_batch_sequences=12", "train.micro_batch=1", "evaluation.every_steps=null"),
    *("checkpoint.dump.every_steps=5", "logging.num_samples=0"),
)
LATER = ((4, 5), (3, 10))
"""Ranks, and the step after which they take the run over from those before them."""


def train(run: RunFolder, record: Path, ranks: int) -> None:
    """Train in ranks that write down what they are fed, and what state they took over."""
    environ = {"PYTHONPATH": f"{ROOT / 'bench' / 'inside'}:{ROOT}", "ELASTIC_RECORD": str(record)}
    done = train_in_processes(run, ranks, environ)
    assert done.code == Exit.OK, done.said


def fed(record: Path, ranks: int) -> dict[int, list[str]]:
    """Return, by step, the hashes of all rows of tokens that went into it."""
    files = sorted(record.glob("rank_*.jsonl"))
    assert len(files) == ranks
    found: dict[int, list[str]] = {}
    for line in (line for path in files for line in path.read_text().splitlines()):
        told = json.loads(line)
        assert (told["ranks"], len(told["rows"])) == (ranks, 12 // ranks)
        found.setdefault(told["step"], []).extend(told["rows"])
    return {step: sorted(rows) for step, rows in found.items()}


@pytest.mark.faults
@pytest.mark.slow
def test_four_ranks_and_then_three_carry_on_what_one_began(ground: Ground, tmp_path: Path) -> None:
    alone = make_run(ground, tmp_path / "run-1", *SETTINGS)
    train(alone, tmp_path / "record-1", 1)
    expected = fed(tmp_path / "record-1", 1)
    assert list(expected) == list(range(1, STEPS + 1))
    assert len(set().union(*expected.values())) > 12
    before = alone
    for ranks, at in LATER:
        run = copy_run(ground, before, tmp_path / f"run-{ranks}", *SETTINGS, f"resources.ranks_per_node={ranks}")
        drop_after(run, at)
        record = tmp_path / f"record-{ranks}"
        train(run, record, ranks)
        assert fed(record, ranks) == {step: rows for step, rows in expected.items() if step > at}
        assert_same_state(RunFolder(record), before, at)
        before = run
    assert losses(before) == pytest.approx(losses(alone), rel=1e-5)
    assert [row["lr"] for row in steps(before)] == [row["lr"] for row in steps(alone)]


def assert_same_state(taken_over: RunFolder, left: RunFolder, step: int) -> None:
    """Hold that each tensor that ranks took over, weights and moments, is to the byte what the others had saved."""
    found, saved = checkpoint_tensors(taken_over, step), checkpoint_tensors(left, step)
    assert found.keys() == saved.keys()
    assert {name.rpartition("/")[2] for name in saved if name.startswith("optimizer/")} == {
        "exp_avg",
        "exp_avg_sq",
        "step",
    }
    assert [name for name in saved if not torch.equal(found[name], saved[name])] == []
