"""Where a run starts: the newest sound checkpoint of this very run, or nothing at all."""

from collections.abc import Callable
from pathlib import Path
import shutil

import pytest
import torch
from torch import Tensor, nn

from tiny_run import Ground, blank_model, checkpoint_bytes, checkpoint_tensors, copy_run, losses, make_run, saved_steps
from tiny_run import start, tiny_experiment, train_here, finish, write_tokens
from trainer.checkpoint import TrainState, named_state
from trainer.optim import build_optimizer
from trainer.ranks import Ranks
from trainer.resume import resume_or_start
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder, step_name
from trainwright.spec.resolved import fixed_fields
from trainwright.tokens.shards import TokenManifest

SEED = 42


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = (flip, cut, remove)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    experiment = tiny_experiment(tmp_path)
    derived = Derived(experiment)
    model = blank_model(derived)
    return model, build_optimizer(derived, model)


@pytest.fixture
def fresh(ground: Ground, tmp_path: Path) -> TrainState:
    identity = TokenManifest.read(ground.tokens("train")).identity
    return TrainState(0, 0, identity, fixed_fields(tiny_experiment(tmp_path)))


Parts = tuple[nn.Module, torch.optim.Optimizer]


def tensors(parts: Parts) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named_state(*parts).items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_sound_checkpoint_gives_back_all_it_holds(
    one_rank: RunFolder, parts: Parts, fresh: TrainState, one: Ranks
) -> None:
    state = resume_or_start(one_rank.checkpoints, *parts, fresh, one, seed=SEED)
    assert (state.step, state.cursor) == (20, 160)
    assert equal(tensors(parts), checkpoint_tensors(one_rank, 20))


@pytest.mark.parametrize("name", ["rank_00000.safetensors", "index.json", "train_state.json", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    ground: Ground,
    one_rank: RunFolder,
    parts: Parts,
    fresh: TrainState,
    *,
    one: Ranks,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run")
    path = run.checkpoints / step_name(20) / name
    damage(path)
    state = resume_or_start(run.checkpoints, *parts, fresh, one, seed=SEED)
    assert (state.step, state.cursor) == (10, 80)
    assert equal(tensors(parts), checkpoint_tensors(one_rank, 10))
    assert f"step_00000020 is refused: {path}" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_starts_nothing_over(
    ground: Ground, one_rank: RunFolder, tmp_path: Path
) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run")
    for folder, damage in zip(sorted(run.checkpoints.glob("step_*")), DAMAGES, strict=False):
        damage(folder / "rank_00000.safetensors")
    before = {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()}
    figures = run.metrics.read_bytes()
    done = finish(start(run))
    assert done.code == Exit.REFUSED
    assert done.said.splitlines()[-1] == (
        f"trainer: {run.checkpoints}: none of its 2 checkpoints verifies; "
        f"restore one, or move {run.checkpoints} away to start again"
    )
    assert "Traceback" not in done.said
    assert {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()} == before
    assert run.metrics.read_bytes() == figures


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("model.hidden_dim=80", "model.hidden_dim: was not there, is now 80"),
        ("seed=43", "seed: was 42, is now 43"),
        ("optimizer.lr=1e-4", "optimizer.lr: was 0.003, is now 0.0001"),
        ("train.precision=bf16", "train.precision: was fp32, is now bf16"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_old_and_new(
    ground: Ground,
    one_rank: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    override: str,
    difference: str,
) -> None:
    run = copy_run(ground, one_rank, tmp_path / "run", override)
    assert train_here(run) == Exit.REFUSED
    said = capsys.readouterr().err
    assert difference in said
    assert str(run.checkpoints / step_name(20)) in said
    assert_untouched(run, one_rank)


def assert_untouched(run: RunFolder, original: RunFolder) -> None:
    assert saved_steps(run) == saved_steps(original)
    assert checkpoint_bytes(run, 20) == checkpoint_bytes(original, 20)
    assert run.metrics.read_bytes() == original.metrics.read_bytes()


def test_a_checkpoint_of_another_corpus_is_refused_with_old_and_new(
    ground: Ground, own_ground: Ground, one_rank: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tokens(own_ground, "train", (3, 5, 2), salt=1)
    run = copy_run(own_ground, one_rank, tmp_path / "run")
    assert train_here(run) == Exit.REFUSED
    old, new = (TokenManifest.read(each.tokens("train")).identity[:12] for each in (ground, own_ground))
    assert f"training shards: were {old}, are now {new}" in capsys.readouterr().err
    assert_untouched(run, one_rank)


def test_what_is_free_may_change(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    free = ("train.micro_batch=2", "checkpoint.dump.every_steps=7", "logging.print_every_steps=3", "restart.losses=1")
    run = copy_run(ground, one_rank, tmp_path / "run", *free)
    shutil.rmtree(run.checkpoints / step_name(20))
    assert train_here(run) == Exit.OK
    assert saved_steps(run) == [10, 14, 20]
    assert losses(run) == pytest.approx(losses(one_rank), rel=1e-5)


def test_no_checkpoint_means_initial_weights_and_an_optimizer_without_a_past(
    parts: Parts, fresh: TrainState, one: Ranks, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    assert resume_or_start(nowhere, *parts, fresh, one, seed=SEED) == fresh
    first = tensors(parts)
    tokens = torch.zeros((1, 4), dtype=torch.int64)
    parts[0](tokens, tokens).backward()
    parts[1].step()
    assert not equal(tensors(parts), first)
    # A run that goes back to its start, because it had saved nothing yet, comes here with moments.
    assert resume_or_start(nowhere, *parts, fresh, one, seed=SEED) == fresh
    assert equal(tensors(parts), first)


def test_another_runs_weights_are_taken_without_its_optimizer_and_steps(
    one_rank: RunFolder, parts: Parts, fresh: TrainState, one: Ranks, tmp_path: Path
) -> None:
    state = resume_or_start(tmp_path / "nowhere", *parts, fresh, one, seed=1, init_from=one_rank.checkpoints)
    weights = {name: each for name, each in checkpoint_tensors(one_rank, 20).items() if name.startswith("model/")}
    assert state == fresh
    assert equal(tensors(parts), weights)


def test_a_run_named_to_begin_from_must_have_a_sound_checkpoint(
    ground: Ground, one_rank: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy_run(ground, one_rank, tmp_path / "other")
    for folder in other.checkpoints.glob("step_*"):
        flip(folder / "index.json")
    run = make_run(ground, tmp_path / "run", "train.init_from=other")
    assert train_here(run) == Exit.REFUSED
    assert f"train.init_from: {other.checkpoints} holds no checkpoint that verifies" in capsys.readouterr().err


def test_a_run_may_begin_with_the_weights_of_its_neighbour(ground: Ground, one_rank: RunFolder, tmp_path: Path) -> None:
    copy_run(ground, one_rank, tmp_path / "other")
    run = make_run(ground, tmp_path / "run", "train.init_from=other", "train.steps=3", "seed=5")
    assert train_here(run) == Exit.OK
    assert losses(run)[1] < losses(one_rank)[1] - 1


def test_initial_weights_refuse_another_models(parts: Parts, fresh: TrainState, one: Ranks, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.init_from: .* holds no checkpoint"):
        resume_or_start(tmp_path / "a", *parts, fresh, one, seed=1, init_from=tmp_path / "b")
