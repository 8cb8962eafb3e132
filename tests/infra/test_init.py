import json
from pathlib import Path
import re
from typing import Any

from pydantic import BaseModel
import pytest
import yaml

from infra.cli import main
from infra.init import commented_experiment, renamed
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.layouts import computes_the_same, read_config
from trainwright.spec.load import load_experiment
from trainwright.spec.resolved import flat, plain

TEXT = commented_experiment("new")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Experiment:
    Path("some.yaml").write_text(text)
    return load_experiment(Path("some.yaml"), (), {}).experiment


def uncommented(block: list[str]) -> list[str]:
    """Take the comment marks off the lines that hold fields."""
    return [re.sub(r"^( *)# (\w+:)", r"\1\2", line) for line in block]


def blocks() -> dict[str, list[str]]:
    """Return the lines of each top-level block, from its key on."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in TEXT.splitlines():
        if match := re.match(r"(?:# )?(\w+):", line):
            name = match[1]
        if name and line and not re.match(r"# (?!\w+:)", line):
            found.setdefault(name, []).append(line)
    return found


def test_init_writes_a_file_that_is_valid_as_it_is() -> None:
    assert main(["init", "new"]) == 0
    path = Path("experiments/new.yaml")
    assert path.read_text() == TEXT
    found = load_experiment(path, (), {}).experiment
    assert (found.name, found.train.global_batch_sequences, found.train.steps) == ("new", 64, 1000)


def test_every_field_of_the_defaults_is_there_with_its_documentation() -> None:
    words = {match[1] for match in re.finditer(r"(?m)^ *(?:# )?(\w+):", TEXT)}
    assert {path.rpartition(".")[2] for path, _ in flat(plain(load(TEXT)))} <= words
    documented = [line for line in TEXT.splitlines() if re.match(r"^ *(# )?\w+: .*  # \w", line)]
    assert len(documented) > 60
    for name, field in Experiment.model_fields.items():
        if name != "name":
            assert field.description in TEXT


def test_every_top_level_section_is_a_block() -> None:
    assert set(blocks()) == set(Experiment.model_fields)


@pytest.mark.parametrize("name", sorted(set(Experiment.model_fields) - {"train"}))
def test_a_block_that_is_wholly_uncommented_stays_valid_and_changes_nothing(name: str) -> None:
    block = blocks()[name]
    text = TEXT.replace("\n".join(block), "\n".join(uncommented(block)))
    value = yaml.safe_load(text)[name]
    assert isinstance(value, dict) == isinstance(getattr(load(TEXT), name), BaseModel)
    assert value is not None or getattr(load(TEXT), name) is None
    assert load(text) == load(TEXT)


@pytest.mark.parametrize("line", [line for line in blocks()["train"] if line.startswith("  # ")])
def test_each_line_of_train_may_be_uncommented_by_itself(line: str) -> None:
    # Batch and horizon are each given in one way, so that the ways are tried one at a time, as null.
    text = TEXT.replace(line, re.sub(r"^  # ", "  ", line))
    if line == "  # nonfinite:":
        nested = [each for each in blocks()["train"] if each.startswith("    # ")]
        for each in nested:
            text = text.replace(each, each.replace("    # ", "    "))
    assert load(text) == load(TEXT)


def test_all_of_it_may_be_uncommented_at_once() -> None:
    text = "\n".join(uncommented(TEXT.splitlines()))
    assert load(text) == load(TEXT)


def test_every_commented_value_is_the_default() -> None:
    defaults = Experiment.model_validate({"name": "new", "train": {"steps": 1, "global_batch_sequences": 8}})
    tree = yaml.safe_load("\n".join(uncommented(TEXT.splitlines())))
    given = {"name", "train.steps", "train.global_batch_sequences"}
    differ = {path for path, value in flat(plain(load(yaml.safe_dump(tree)))) if value != look_up(defaults, path)}
    assert differ == given - {"name"}


def look_up(settings: BaseModel, path: str) -> object:
    here: Any = settings.model_dump(mode="json")
    for part in path.split("."):
        here = here[part]
    found: object = here
    return found


def test_a_file_that_exists_is_refused_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "new"]) == 0
    path = Path("experiments/new.yaml")
    path.write_text("mine")
    for words in (["init", "new"], ["init", "new", "--like", "some"]):
        with pytest.raises(UserError, match=r"experiments/new.yaml: exists already; .*"):
            main(words)
    assert path.read_text() == "mine"
    assert "written" in capsys.readouterr().out


LIKE = """\
# A comment at the top.
seed: 7
name: old   # said of the name
train: {global_batch_sequences: 8, steps: 3}  # both
data:
  name: other   # another name, which stays
"""


def test_like_keeps_every_comment_and_all_values(capsys: pytest.CaptureFixture[str]) -> None:
    Path("experiments").mkdir()
    Path("experiments/old.yaml").write_text(LIKE)
    assert main(["init", "new", "--like", "old"]) == 0
    assert Path("experiments/new.yaml").read_text() == LIKE.replace("name: old ", "name: new ")
    assert load_experiment(Path("experiments/new.yaml"), (), {}).experiment.seed == 7
    assert "experiments/new.yaml: written" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["name: old", 'name: "old"', "name:   old", "name: 'old' # x"])
def test_however_the_name_is_written_the_copy_has_the_new_one(line: str) -> None:
    Path("old.yaml").write_text(f"{line}\ntrain: {{global_batch_sequences: 8, steps: 3}}\n")
    assert load(renamed(Path("old.yaml"), "new")).name == "new"


def test_a_name_that_has_no_line_of_its_own_is_refused() -> None:
    Path("old.yaml").write_text("{name: old, train: {global_batch_sequences: 8, steps: 3}}\n")
    with pytest.raises(UserError, match="has no line `name"):
        renamed(Path("old.yaml"), "new")


@pytest.mark.parametrize("name", ["Bad_Name", "../up", "a b", "", "-"])
@pytest.mark.parametrize("more", [[], ["--like", "old.yaml"]])
def test_a_name_that_is_none_is_refused_and_nothing_is_written(name: str, more: list[str]) -> None:
    Path("old.yaml").write_text(LIKE)
    with pytest.raises(UserError, match="lower-case letters"):
        main(["init", *more, "--", name])
    assert [path.name for path in Path().rglob("*")] == ["old.yaml"]


def test_a_wrong_experiment_is_no_start_for_another() -> None:
    Path("old.yaml").write_text(LIKE.replace("seed", "sede"))
    with pytest.raises(UserError, match="did you mean seed"):
        main(["init", "new", "--like", "old.yaml"])
    assert not Path("experiments").exists()


QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}


def test_an_experiment_for_a_checkpoint_has_its_model_and_its_vocabulary() -> None:
    Path("hub").mkdir()
    Path("hub/config.json").write_text(json.dumps(QWEN3))
    assert main(["init", "mine", "--checkpoint", "hub"]) == 0
    found = load_experiment(Path("experiments/mine.yaml"), (), {}).experiment
    assert computes_the_same(found.model.shape, read_config(QWEN3, "x").shape)
    assert found.model.padded_vocab_size(found.tokenizer.max_vocab_size) == 151936
    assert found.train.init_from == str(Path("hub").absolute())
    assert found.tokenizer.path == str(Path("hub/tokenizer.json").absolute())


@pytest.mark.parametrize(
    ("config", "said"),
    [(None, "holds no config.json"), ({**QWEN3, "model_type": "bert"}, "this layout is not known here")],
)
def test_a_checkpoint_that_is_not_known_makes_no_experiment(config: dict[str, Any] | None, said: str) -> None:
    Path("hub").mkdir()
    if config is not None:
        Path("hub/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        main(["init", "mine", "--checkpoint", "hub"])
    assert not Path("experiments").exists()
