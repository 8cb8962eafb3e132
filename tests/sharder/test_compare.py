from dataclasses import replace
from pathlib import Path

import pytest

from made_corpus import experiment_file, facts, jsonl, made_documents, places, sharder, write_jsonl
from sharder import shard, tokenizer
from sharder.compare import TEXTS, other, row, samples
from trainwright.spec.exits import UserError
from trainwright.store.text_shards import TextManifest
from trainwright.tokens.bundle import bytes_bundle

BPE = ("tokenizer.kind=bpe", "tokenizer.vocab_size=500")


def test_a_tokenizer_is_compared_on_fixed_texts_and_on_the_corpus(
    tmp_path: Path, gpt2_folder: str, cl100k_folder: str
) -> None:
    assert cl100k_folder == gpt2_folder
    words = [*jsonl(write_jsonl(tmp_path / "corpus.jsonl", made_documents(300))), *BPE]
    shard.run(places(tmp_path, *words))
    environ = {"TIKTOKEN_CACHE_DIR": gpt2_folder, "HF_HUB_OFFLINE": "1"}
    done = sharder(tmp_path, "tokenizer", str(experiment_file(tmp_path)), *words, "--evaluate", **environ)
    assert done.returncode == 0, done.stderr
    table = done.stderr.splitlines()
    assert [line.split()[0] for line in table if "bytes  ours" in line] == [*TEXTS, "train", "val"]
    found = facts(done.stdout)
    assert (found["round_trip"], found["on"], found["left_out"]) == ("exact", "val", "none")
    # The text is made of few words, all of which ours has seen.
    ours, gpt2, cl100k = (float(found[f"{name}_bytes_per_token"]) for name in ("ours", "gpt2", "cl100k"))
    assert ours > cl100k > gpt2 > 1


def test_bytes_make_a_token_of_each_byte(tmp_path: Path) -> None:
    asked = places(tmp_path)
    tokenizer.run(asked)
    for name, texts in samples(asked):
        found = row(name, texts, bytes_bundle(), {})
        assert found.num_tokens == {"ours": found.num_bytes}


def test_a_tokenizer_that_loses_text_is_refused() -> None:
    deaf = replace(bytes_bundle(), kind="bpe", pattern=r"[a-z]+")
    with pytest.raises(UserError, match="does not give 'one, two' back"):
        row("x", ["one, two"], deaf, {})


def test_the_others_give_their_known_tokens(
    tmp_path: Path, gpt2_folder: str, cl100k_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"gpt2": (gpt2_folder, [15496, 995, 0]), "cl100k": (cl100k_folder, [9906, 1917, 0])}
    for name, (folder, tokens) in known.items():
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
        found = other(name, tmp_path)
        assert found is not None
        assert found.encode("Hello world!").tolist() == tokens


def test_a_corpus_without_text_is_compared_on_the_fixed_texts(tmp_path: Path) -> None:
    asked = places(tmp_path)
    TextManifest("val", "imported", None, {"imported": "x"}, complete=True).write(asked.text("val"))
    assert [name for name, _ in samples(asked)] == list(TEXTS)


def test_offline_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert other("cl100k", tmp_path) is None
