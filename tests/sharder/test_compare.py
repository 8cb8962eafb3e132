from dataclasses import replace
from pathlib import Path

import pytest

from made_corpus import experiment_file, facts, jsonl, made_documents, places, sharder, write_jsonl
from sharder import shard, tokenizer
from sharder.compare import TEXTS, other, row, samples
from trainwright.spec.exits import UserError
from trainwright.tokens.bundle import bytes_bundle

BPE = ("tokenizer.kind=bpe", "tokenizer.vocab_size=500")


def test_a_tokenizer_is_compared_on_fixed_texts_and_on_the_corpus(tmp_path: Path, gpt2_folder: str) -> None:
    words = [*jsonl(write_jsonl(tmp_path / "corpus.jsonl", made_documents(300))), *BPE]
    shard.run(places(tmp_path, *words))
    environ = {"TIKTOKEN_CACHE_DIR": gpt2_folder, "HF_HUB_OFFLINE": "1"}
    done = sharder(tmp_path, "tokenizer", str(experiment_file(tmp_path)), *words, "--evaluate", **environ)
    assert done.returncode == 0, done.stderr
    table = done.stderr.splitlines()
    assert [line.split()[0] for line in table if "bytes  ours" in line] == [*TEXTS, "train", "val"]
    found = facts(done.stdout)
    assert (found["round_trip"], found["on"], found["left_out"]) == ("exact", "val", "cl100k")
    # The text is made of few words, all of which ours has seen.
    assert float(found["ours_bytes_per_token"]) > float(found["gpt2_bytes_per_token"]) > 1


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


def test_offline_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert other("cl100k", tmp_path) is None
