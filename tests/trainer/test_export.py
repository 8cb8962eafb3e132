"""A folder that transformers loads with the same logits, and from which a run starts with the same weights."""

import json
from pathlib import Path
import warnings

import pytest
from safetensors.torch import load_file
import torch
from torch import Tensor, nn

from families import FAMILIES, lively, overrides
from tiny_run import Ground, make_run
from trainer import checkpoint, export
from trainer.checkpoint import TrainState
from trainer.export import main
from trainer.models import build_model
from trainer.pretrained import take_pretrained
from trainer.ranks import Ranks
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, guarded
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import read_training

TOKENS = torch.randint(265, (2, 64), generator=torch.Generator().manual_seed(1))


def made_run(ground: Ground, folder: Path, one: Ranks, *words: str) -> tuple[RunFolder, nn.Module]:
    """Return a run with one checkpoint, and the model that is in it."""
    run = make_run(ground, folder, *words)
    derived = Derived(read_training(run.training_yaml).experiment)
    model = lively(derived.experiment.model, derived.vocab_size, derived.experiment.train.seq_len_tokens)
    state: dict[str, Tensor] = {f"model/{name}": each.detach() for name, each in model.named_parameters()}
    checkpoint.save(run.checkpoints, state, TrainState(7, 0, "corpus", {}), one)
    return run, model


def exported(run: RunFolder, folder: Path, *words: str) -> Path:
    assert main([str(run), "-o", str(folder), *words]) == Exit.OK
    return folder


@torch.no_grad()
def logits_of_transformers(folder: Path) -> Tensor:
    with warnings.catch_warnings():
        # What the library says about itself is not about the folder.
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        assert not any(report.values()), report
        logits: Tensor = model(TOKENS).logits
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_gives_the_same_logits_and_loading_back_the_same_weights(
    family: str, ground: Ground, tmp_path: Path, one: Ranks
) -> None:
    run, model = made_run(ground, tmp_path / "run", one, *overrides(family))
    folder = exported(run, tmp_path / "out")
    with torch.no_grad():
        ours: Tensor = model(TOKENS)
    assert ours.std() > 0.1
    assert (logits_of_transformers(folder) - ours).abs().max() < 1e-4
    back = build_model(FAMILIES[family], ours.shape[-1], 64)
    take_pretrained(folder, back)
    for (name, was), now in zip(model.named_parameters(), back.parameters(), strict=True):
        assert torch.equal(was, now), name


@pytest.fixture(scope="module")
def made(ground: Ground, one: Ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, nn.Module]:
    return made_run(ground, tmp_path_factory.mktemp("made") / "run", one, *overrides("llama"))


def test_a_large_model_is_cut_into_files_with_an_index(
    made: tuple[RunFolder, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = made
    monkeypatch.setattr(export, "SHARD_BYTES", 60_000)
    folder = exported(run, tmp_path / "out")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert files == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    held = {name: file for file in files for name in load_file(folder / file)}
    assert held == index["weight_map"]
    assert index["metadata"]["total_size"] == 4 * sum(each.numel() for each in model.parameters())
    with torch.no_grad():
        assert (logits_of_transformers(folder) - model(TOKENS)).abs().max() < 1e-4


def test_half_precision_is_asked_for(made: tuple[RunFolder, nn.Module], tmp_path: Path) -> None:
    folder = exported(made[0], tmp_path / "out", "--dtype", "bf16")
    stored = load_file(folder / "model.safetensors")
    assert {each.dtype for each in stored.values()} == {torch.bfloat16}
    assert torch.equal(stored["model.embed_tokens.weight"], made[1].embedding.weight.bfloat16())
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_folder_says_how_texts_begin_and_end(made: tuple[RunFolder, nn.Module], tmp_path: Path) -> None:
    folder = exported(made[0], tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        found = json.loads((folder / name).read_text())
        assert (found["bos_token_id"], found["eos_token_id"]) == (256, 256), name
    spelled = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][0]
    assert (spelled["id"], spelled["content"]) == (256, "<|bos|>")
    assert not list(tmp_path.glob(".*"))


def test_by_default_the_folder_lies_in_the_run(ground: Ground, one: Ranks, tmp_path: Path) -> None:
    run, _ = made_run(ground, tmp_path / "run", one)
    assert main([str(run)]) == Exit.OK
    assert (run.export / "model.safetensors").is_file()


def test_a_damaged_checkpoint_is_passed_over(
    ground: Ground, one: Ranks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, model = made_run(ground, tmp_path / "run", one)
    state = {f"model/{name}": torch.zeros_like(each) for name, each in model.named_parameters()}
    checkpoint.save(run.checkpoints, state, TrainState(9, 0, "corpus", {}), one)
    file = run.checkpoints / "step_00000009" / "rank_00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    stored = load_file(exported(run, tmp_path / "out") / "model.safetensors")
    assert torch.equal(stored["lm_head.weight"], model.output.weight)
    assert "step_00000009 is refused" in caplog.text


def test_what_cannot_be_exported_is_said_in_one_sentence(
    made: tuple[RunFolder, nn.Module], ground: Ground, tmp_path: Path, one: Ranks, capsys: pytest.CaptureFixture[str]
) -> None:
    homeless, _ = made_run(ground, tmp_path / "homeless", one, "model.norm=layer")
    empty = make_run(ground, tmp_path / "empty")
    there = tmp_path / "there"
    there.mkdir()
    cases = {
        (str(made[0]), "-o", str(there)): f"{there}: is there already; give another folder with -o",
        (str(made[0]), "-o", str(tmp_path / "a"), "--step", "3"): "holds no sound checkpoint of step 3",
        (str(empty), "-o", str(tmp_path / "b")): "holds no checkpoint that verifies; nothing to export",
        (str(homeless), "-o", str(tmp_path / "c")): "Hugging Face has no layout that computes this model (norm layer",
        (str(there),): "is no run (it has no training.yaml)",
    }
    for words, said in cases.items():
        code = guarded("export", lambda words=words: main(words))
        err = capsys.readouterr().err
        assert (code, err.count("\n")) == (Exit.REFUSED, 1)
        assert said in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "homeless", "there"]
