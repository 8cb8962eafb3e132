"""What a user can get wrong costs nothing: one sentence that names it, the right code, and no traceback."""

from collections.abc import Callable
from pathlib import Path
import subprocess
import sys

import pytest
import torch

from tiny_run import TWO_RANKS, Ground, clean_environment, make_run, train_here, train_in_processes
from trainer.__main__ import main
from trainwright.spec.exits import Exit, guarded
from trainwright.spec.paths import RunFolder
from trainwright.tokens.bundle import Bundle

SHARD = "train/train_00001.bin"


def refused(run: RunFolder, capsys: pytest.CaptureFixture[str], code: Exit = Exit.REFUSED) -> str:
    """Train, and return the one sentence that was said."""
    assert train_here(run) == code
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("trainer: ")
    assert not run.checkpoints.exists()
    assert not run.metrics.exists()
    return sentence


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        (SHARD, cut, "but its manifest says"),
        (SHARD, change, "its sha256 is not the one in its manifest"),
        (SHARD, Path.unlink, "missing"),
        ("val/val_00000.bin", change, "its sha256 is not the one in its manifest"),
        ("train/manifest.json", Path.unlink, "missing"),
        ("train/manifest.json", cut, "not valid JSON"),
        ("tokenizer/vocabulary.tiktoken", change, "its sha256 is not the one in its manifest"),
        ("tokenizer/bundle.json", Path.unlink, "missing"),
    ],
)
def test_a_damaged_file_is_named(
    own_ground: Ground,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], None],
    why: str,
) -> None:
    damage(own_ground.root / name)
    said = refused(make_run(own_ground, tmp_path / "run"), capsys)
    assert str(own_ground.root / name) in said
    assert why in said


def test_shards_of_another_tokenizer_are_refused(
    own_ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = own_ground.bundle
    # The same tokens cut by another pattern: nothing but the hash can tell.
    other = Bundle(old.kind, r"[\s\S]{1}", old.ranks, old.special_tokens)
    other.save(own_ground.tokenizer)
    said = refused(make_run(own_ground, tmp_path / "run"), capsys)
    assert f"was made by tokenizer {old.hash[:8]}, but the run's is {other.hash[:8]}" in said
    assert any(str(own_ground.tokens(split)) in said for split in ("train", "val"))


def test_ranks_that_were_not_started_are_refused(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(make_run(ground, tmp_path / "run", TWO_RANKS), capsys)
    assert said == "trainer: resources ask for 2 ranks, but 1 were started"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_gpus_that_are_not_here_are_missing(ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(make_run(ground, tmp_path / "run", "resources.device=cuda"), capsys, Exit.MISSING)
    assert "resources.device=cuda: 0 GPUs are here" in said
    assert "use resources.device=cpu" in said


@pytest.mark.parametrize("words", [[], ["one.yaml", "two.yaml"], ["one.yaml", "--fast"]])
def test_wrong_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("trainer", lambda: main(words)) == Exit.REFUSED
    assert "Traceback" not in capsys.readouterr().err


def test_an_edited_file_is_refused(ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(ground, tmp_path / "run")
    run.training_yaml.write_text(run.training_yaml.read_text().replace("lr: 0.003", "lr: 0.004"))
    said = refused(run, capsys)
    assert f"{run.training_yaml}: was edited by hand" in said


def test_a_process_says_one_sentence_and_ends_with_its_code(own_ground: Ground, tmp_path: Path) -> None:
    cut(own_ground.root / SHARD)
    done = train_in_processes(make_run(own_ground, tmp_path / "run"))
    assert done.code == Exit.REFUSED
    assert "Traceback" not in done.said
    last = done.said.splitlines()[-1]
    assert last.startswith(f"trainer: {own_ground.root / SHARD}: ")


def test_a_file_that_is_not_there_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    program = (
        "import sys; from trainer.__main__ import main; from trainwright.spec.exits import guarded\n"
        "code = guarded('trainer', lambda: main(sys.argv[1:])); print('torch' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == Exit.REFUSED
    assert done.stdout.strip() == "False"
    assert done.stderr.splitlines() == [f"trainer: {path}: cannot be read (No such file or directory)"]


def test_what_the_machine_refuses_is_a_failure_in_a_sentence(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(ground, tmp_path / "run", "evaluation.every_steps=null", "train.steps=3")
    run.checkpoints.write_text("a file where a folder belongs")
    assert train_here(run) == Exit.FAILED
    (sentence,) = capsys.readouterr().err.splitlines()
    assert str(run.checkpoints) in sentence
    assert "Not a directory" in sentence
