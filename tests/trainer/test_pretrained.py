"""Checkpoints from elsewhere: whole or refused in one sentence, in one file or in several, on one rank or more."""

from collections.abc import Callable
from dataclasses import asdict
import json
from pathlib import Path
import pickle
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
import torch
from torch import Tensor, nn

from families import FAMILIES, lively, overrides
from tiny_run import TWO_RANKS, Ground, losses, make_run, train_here, train_in_processes
from trainer.layouts import to_layout
from trainer import pretrained
from trainer.models import build_model
from trainer.pretrained import by_block, check_tokenizer, initial_weights, of_block, take_pretrained
from trainer.ranks import Ranks
from trainwright.spec.exits import Exit, MissingError, UserError
from trainwright.spec.layouts import write_config
from trainwright.spec.model import Llama, Model
from trainwright.spec.paths import RunFolder
from trainwright.store.files import FileEntry, sha256_file, write_json
from trainwright.tokens.tokenizer_json import write_tokenizer_json

ROWS, CONTEXT = 64, 64
TOKENS = torch.randint(ROWS, (2, 16), generator=torch.Generator().manual_seed(1))


def hub_folder(folder: Path, family: str = "llama", rows: int = ROWS) -> tuple[Path, nn.Module]:
    """Write a checkpoint as the hub has them, without our own writer of folders."""
    settings = FAMILIES[family]
    model = lively(settings, rows, CONTEXT)
    config = write_config(settings.shape, rows, CONTEXT, 0)
    weights: dict[str, Tensor] = {name: each.detach() for name, each in model.named_parameters()}
    stored: dict[str, Tensor] = {}
    for block in by_block(weights):
        stored |= to_layout(config["model_type"], settings.shape, of_block(weights, block), block)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: each.contiguous() for name, each in stored.items()}, folder / "model.safetensors")
    return folder, model


def taken(folder: Path, settings: Model, rows: int = ROWS, context: int = CONTEXT) -> nn.Module:
    model = build_model(settings, rows, context)
    take_pretrained(folder, model)
    model.reset_buffers(torch.device("cpu"))
    return model


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def split(folder: Path) -> None:
    """Cut the one file into two with an index, tensors of one block lying in both."""
    stored = load_file(folder / "model.safetensors")
    files: dict[str, dict[str, Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    for index, name in enumerate(sorted(stored)):
        files["ab"[index % 2] + ".safetensors"][name] = stored[name]
    for file, held in files.items():
        save_file(held, folder / file)
    where = {name: file for file, held in files.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_split_checkpoint_gives_the_weights_of_a_whole_one(family: str, tmp_path: Path) -> None:
    folder, model = hub_folder(tmp_path / "hub", family)
    split(folder)
    assert torch.equal(taken(folder, FAMILIES[family])(TOKENS), model(TOKENS))


def test_half_precision_is_read_as_it_is(tmp_path: Path) -> None:
    folder, model = hub_folder(tmp_path / "hub")
    change_tensors(folder, lambda stored: stored.update({name: each.bfloat16() for name, each in stored.items()}))
    for was, now in zip(model.parameters(), taken(folder, FAMILIES["llama"]).parameters(), strict=True):
        assert now.dtype == torch.float32
        assert torch.equal(now, was.bfloat16().float())


def test_a_tied_checkpoint_may_repeat_its_embedding(tmp_path: Path) -> None:
    folder, model = hub_folder(tmp_path / "hub", "qwen-2")
    repeated = {"lm_head.weight": model.embedding.weight.detach().clone()}
    older = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    change_tensors(folder, lambda stored: stored.update(repeated | older))
    assert torch.equal(taken(folder, FAMILIES["qwen-2"]).embedding.weight, model.embedding.weight)


Q = "model.layers.1.self_attn.q_proj.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "of another model": (
        lambda folder: change_config(folder, hidden_size=64),
        "of another model: dim is 32, the checkpoint's is 64",
    ),
    "another vocabulary": (
        lambda folder: change_config(folder, vocab_size=128),
        "its vocabulary has 128 rows, the model's 64; take the tokenizer that it was trained with, and model.vocab_",
    ),
    "a shorter context": (
        lambda folder: change_config(folder, max_position_embeddings=32),
        "was made for a context of 32, not of 64; give train.seq_len_tokens at most 32",
    ),
    "an unknown layout": (lambda folder: change_config(folder, model_type="bert"), "this layout is not known here"),
    "a tensor too many": (
        lambda folder: change_tensors(folder, lambda stored: stored.update({"model.extra": torch.zeros(2)})),
        "holds model.extra, which the layout llama has not; it is of a layout that is not known here",
    ),
    "a tensor missing": (lambda folder: change_tensors(folder, lambda stored: stored.pop(Q)), f"has no {Q}"),
    "another shape": (
        lambda folder: change_tensors(folder, lambda stored: stored.update({Q: torch.zeros(2, 2)})),
        f"{Q} has the shape [2, 2], not [32, 32]",
    ),
    "quantised": (
        lambda folder: change_tensors(folder, lambda stored: stored.update({Q: torch.zeros((32, 32)).char()})),
        f"{Q} is I8; quantised weights are not read",
    ),
    "not a number": (
        lambda folder: change_tensors(folder, lambda stored: stored[Q][0].fill_(float("nan"))),
        f"{Q} holds values that are no numbers",
    ),
    "cut short": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[: -(1 << 10)]
        ),
        "model.safetensors: not readable as safetensors",
    ),
    "a length of nonsense": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
        "model.safetensors: not readable as safetensors",
    ),
    "a shard missing": (
        lambda folder: (split(folder), (folder / "b.safetensors").unlink()),
        "b.safetensors: not readable as safetensors",
    ),
    "no tensors": (lambda folder: (folder / "model.safetensors").unlink(), "holds neither model.safetensors nor"),
    "pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "pytorch_model.bin is pickle, which is never loaded; convert it to safetensors",
    ),
    "config of nonsense": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid JSON"),
    "config too large": (lambda folder: (folder / "config.json").write_text(" " * (2 << 20)), "larger than 1048576"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_does_not_fit_is_refused_in_one_sentence(how: str, tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "hub")
    damage, said = BROKEN[how]
    damage(folder)
    with pytest.raises(UserError) as caught:
        taken(folder, FAMILIES["llama"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "model.bin", 3, None, "a/b.safetensors"])
def test_an_index_names_only_files_beside_it(file: object, tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "hub")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {Q: file}}))
    with pytest.raises(UserError, match="which is no safetensors file beside it"):
        taken(folder, FAMILIES["llama"])


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "hub")

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="not readable as safetensors"):
        taken(folder, FAMILIES["llama"])
    assert not (tmp_path / "exploded").exists()


def test_a_bias_that_the_model_has_not_must_be_zero(tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "hub", "enoki")
    change_tensors(folder, lambda stored: stored["model.layers.0.self_attn.dense.bias"].fill_(1.0))
    with pytest.raises(UserError, match=r"self_attn.dense.bias: is not zero, and the model has no such bias"):
        taken(folder, FAMILIES["enoki"])


SHORT = ("train.steps=2", "schedule.warmup_steps=1", "evaluation.every_steps=null", "logging.num_samples=0")


@pytest.mark.slow
def test_a_run_starts_from_a_hugging_face_folder_on_one_rank_as_on_two(ground: Ground, tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "hub", "enoki", 384)
    words = [*overrides("enoki"), *SHORT]
    fresh = make_run(ground, tmp_path / "fresh", *words)
    one = make_run(ground, tmp_path / "one", *words, f"train.init_from={folder}")
    two = make_run(ground, tmp_path / "two", *words, f"train.init_from={folder}", TWO_RANKS)
    assert (train_here(fresh), train_here(one)) == (Exit.OK, Exit.OK)
    done = train_in_processes(two, 2)
    assert done.code == Exit.OK, done.said
    assert f"initial weights are those of {folder} (persimmon)" in done.said
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert abs(losses(fresh)[1] - losses(one)[1]) > 0.1


def test_a_folder_that_does_not_fit_ends_a_run_with_78(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = hub_folder(tmp_path / "hub", "qwen-3", 64)
    run = make_run(ground, tmp_path / "run", *overrides("qwen-3"), f"train.init_from={folder}")
    assert train_here(run) == Exit.REFUSED
    assert "its vocabulary has 64 rows, the model's 320" in capsys.readouterr().err


def test_a_checkpoint_of_another_tokenizer_is_refused_and_one_of_the_same_is_taken(
    ground: Ground, tmp_path: Path
) -> None:
    folder, _ = hub_folder(tmp_path / "hub")
    check_tokenizer(folder, ground.bundle)
    write_tokenizer_json(folder, ground.bundle, 64)
    check_tokenizer(folder, ground.bundle)
    tree = json.loads((folder / "tokenizer.json").read_text())
    tree["model"]["vocab"] |= {"a": 98, "b": 97}
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"another: 'a' is 98 there and 97 in the run's tokenizer; set tokenizer.path="):
        check_tokenizer(folder, ground.bundle)
    for broken in ("[]", "{"):
        (folder / "tokenizer.json").write_text(broken)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            check_tokenizer(folder, ground.bundle)


def test_a_model_of_the_hub_that_is_here_is_taken_without_a_network(
    ground: Ground, one: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, assets = RunFolder(tmp_path / "runs" / "mine"), tmp_path / "assets"
    (assets / "models").mkdir(parents=True)
    folder, _ = hub_folder(assets / "models" / "some--model")
    files = [FileEntry(each.name, each.stat().st_size, sha256_file(each)) for each in folder.iterdir()]
    write_json(folder / "manifest.json", {"files": [asdict(each) for each in files]})
    assert initial_weights("hub:some/model", run, assets, one, ground.bundle) == folder

    def forbidden(given: str, _: Path) -> Path:
        raise MissingError(f"{given}: no network")

    monkeypatch.setattr(pretrained, "download_weights", forbidden)
    with pytest.raises(MissingError, match="hub:other/model: no network"):
        initial_weights("hub:other/model", run, assets, one, ground.bundle)
    # A run that has saved something needs no other weights.
    (run.checkpoints / "step_00000010").mkdir(parents=True)
    initial_weights("hub:other/model", run, assets, one, ground.bundle)


def test_all_differences_of_a_model_are_named_at_once(tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "hub")
    with pytest.raises(UserError) as caught:
        taken(folder, Llama(dim=64, num_layers=3, num_heads=4, mlp="silu"))
    assert all(f"{name} is " in str(caught.value) for name in ("dim", "num_layers", "kv_heads", "mlp", "mlp_dim"))
    assert "init_std" not in str(caught.value)
