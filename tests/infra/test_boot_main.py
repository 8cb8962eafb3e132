"""A user's mistake gets one clear sentence, never a traceback, and costs nothing."""

import json
from pathlib import Path

import pytest

from staged_runs import Staged
from tiny_boot import TINY, Done, Place, attempts, copy_place, digests, make_place, read


def refused(done: Done, code: int, *words: str) -> None:
    """Hold a boot against its exit code and one sentence at its end that has these words."""
    assert done.code == code, done.said
    assert "Traceback" not in done.said
    assert all(word in done.last for word in words), done.said


BEFORE_ANYTHING = {
    "a misspelt key": (
        TINY.replace("micro_batch: 4", "micro_bach: 4"),
        [],
        ["train.micro_bach: unknown key", "did you mean train.micro_batch?", "(line 8)"],
    ),
    "a wrong type": (
        TINY.replace("dim: 32", "dim: wide"),
        [],
        ["model.dim=wide", "expected a whole number, such as 8 or 1e6", "(line 7)"],
    ),
    "heads that do not divide": (
        TINY.replace("num_heads: 2", "num_heads: 3"),
        [],
        ["model.num_heads=3", "model.dim 32 is not divisible by it", "try 2 or 4"],
    ),
    "a batch that the ranks cannot divide": (
        TINY,
        ["resources.ranks_per_node=3"],
        ["train.global_batch_sequences=8", "micro_batch 4 x 3 ranks = 12", "try 12"],
    ),
    "no rule and no learning rate": (
        TINY,
        ["optimizer.kind=adana", "optimizer.lr=null"],
        ["optimizer.lr=null", "no scaling rule knows optimizer.kind adana on model.kind llama", "give a peak"],
    ),
    "an override that is none": (TINY, ["steps"], ["steps", "dotted.key=value"]),
    "an override of nothing": (TINY, ["train.stepps=3"], ["train.stepps: unknown key", "train.steps?"]),
    "a node rank outside": (TINY, ["--node-rank", "1"], ["--node-rank 1", "0 to 0", "resources.nodes"]),
    "a node rank that is no number": (TINY, ["--node-rank", "one"], ["--node-rank", "'one'", "--help"]),
    "several nodes without a meeting place": (
        TINY,
        ["resources.nodes=2", "--node-rank", "1"],
        ["resources.nodes=2", "give --master HOST:PORT"],
    ),
    "a meeting place without a port": (
        TINY,
        ["resources.nodes=2", "--master", "localhost"],
        ["--master localhost", "HOST:PORT"],
    ),
    "an unknown stage": (TINY, ["--until", "tarin"], ["--until", "'tarin'", "'train'", "--help"]),
    "an unknown flag": (TINY, ["--force"], ["--force", "--help"]),
    "text that is no YAML": ("name: [tiny\n", [], ["tiny.yaml:2", "not valid YAML"]),
}


@pytest.mark.parametrize("case", sorted(BEFORE_ANYTHING))
def test_a_mistake_in_words_is_refused_before_anything_is_made(tmp_path: Path, case: str) -> None:
    text, words, expected = BEFORE_ANYTHING[case]
    place = make_place(tmp_path / "root", text, documents=2)
    before = digests(place.root)
    done = place.boot(*words)
    refused(done, 78, *expected)
    assert len(done.said.splitlines()) == 1
    assert digests(place.root) == before
    assert sorted(path.name for path in place.root.iterdir()) == ["corpus", "tiny.yaml"]


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = TINY.replace("dim: 32", "dim: wide").replace("steps: 100", "steps: 0").replace("lr:", "rl:")
    done = make_place(tmp_path / "root", text, documents=2).boot()
    assert done.code == 78
    assert len(done.said.splitlines()) == 4
    assert all(field in done.said for field in ("model.dim=wide", "train.steps=0", "optimizer.rl")), done.said


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    place = Place(tmp_path / "root", tmp_path / "corpus")
    refused(place.boot(), 78, f"{place.file}: no such experiment file")
    assert not list(place.root.iterdir())


def test_scientific_numbers_are_numbers_wherever_they_stand(sharded: Staged, tmp_path: Path) -> None:
    text = TINY.replace("lr: 3e-3", "lr: 3e-4").replace("max_tokens: 1000", "max_tokens: 1e3")
    place = make_place(tmp_path / "root", text, documents=2)
    assert place.boot("--until", "prepare").code == 0
    resolved = place.run.experiment.read_text()
    assert "lr: 0.0003\n" in resolved
    assert "max_tokens: 1000\n" in resolved
    assert sharded.place.file.read_text() == TINY


def nothing_half_written(place: Place) -> None:
    assert not [path for path in place.root.rglob("*") if path.name.endswith(".tmp")]
    assert not list(place.root.rglob("*.jsonl.zst"))
    assert not place.run.stage("shard").exists()
    assert read(attempts(place.run)[-1] / "end.json")["code"] == 78


@pytest.mark.parametrize("corpus", ["empty", "missing"])
def test_a_corpus_without_text_is_refused_by_name(tmp_path: Path, corpus: str) -> None:
    place = make_place(tmp_path / "root", documents=0)
    if corpus == "missing":
        place.corpus.rmdir()
    done = place.boot()
    assert done.code == 78
    assert "Traceback" not in done.said
    assert sum(str(place.corpus) in line for line in done.lines) == 1, done.said
    nothing_half_written(place)


def jsonl_place(root: Path, num_lines: int, *bad: str) -> Place:
    text = TINY.replace("{kind: text, document: file}", "{kind: jsonl}")
    place = make_place(root, text, documents=0)
    lines = [json.dumps({"text": f"the river and the house number {number}"}) for number in range(num_lines)]
    (place.corpus / "lines.jsonl").write_text("\n".join([*lines[:3], *bad, *lines[3:]]) + "\n")
    return place


def test_a_bad_line_is_dropped_and_counted(tmp_path: Path) -> None:
    place = jsonl_place(tmp_path / "root", 40, '{"text": "cut', '{"other": 1}')
    done = place.boot("--until", "shard", "data.source.max_bad_share=0.1")
    assert done.code == 0, done.said
    drops = [read(place.root / "datasets" / split / "tiny" / "manifest.json")["drops"] for split in ("train", "val")]
    assert sum(sum(found.values()) for found in drops) == 2, drops


def test_more_bad_lines_than_allowed_are_refused_with_the_share(tmp_path: Path) -> None:
    place = jsonl_place(tmp_path / "root", 40, '{"text": "cut')
    done = place.boot("--until", "shard")
    assert done.code == 78
    assert "max_bad_share" in done.said
    assert "lines.jsonl" in done.said
    assert "Traceback" not in done.said
    nothing_half_written(place)


@pytest.mark.slow
def test_gpus_that_are_not_there_are_missing_rather_than_wrong(sharded: Staged, tmp_path: Path) -> None:
    place = copy_place(sharded.place, tmp_path / "root", trained=False)
    done = place.boot("resources.device=cuda", CUDA_VISIBLE_DEVICES="")
    assert done.code == 69, done.said
    assert "resources.device=cuda: this machine shows no NVIDIA driver" in done.said
    assert "resources.device=cpu" in done.said
    assert "Traceback" not in done.said
    assert not place.run.checkpoints.exists()


LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1}
LLAMA |= {"num_attention_heads": 2, "vocab_size": 320, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}
OTHER_WEIGHTS = {
    "an unknown layout": ({"model_type": "mamba"}, "model_type=mamba: this layout is not known here"),
    "another model": ({**LLAMA, "hidden_size": 64}, "is of another model: dim is 32, the checkpoint's is 64"),
    "another vocabulary": ({**LLAMA, "vocab_size": 512}, "its vocabulary has 512 rows, the model's 320; take the"),
    "a context too long": ({**LLAMA, "max_position_embeddings": 32}, "was made for a context of 32, not of 64; give"),
}


@pytest.mark.parametrize("what", OTHER_WEIGHTS)
def test_weights_of_another_model_are_refused_before_any_text_is_read(tmp_path: Path, what: str) -> None:
    place, folder = make_place(tmp_path / "root"), tmp_path / "weights"
    config, said = OTHER_WEIGHTS[what]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    words = ("tokenizer.kind=bytes", "model.hidden_dim=128", f"train.init_from={folder}")
    refused(place.boot(*words), 78, str(folder), said)
    assert not (place.root / "datasets").exists()
