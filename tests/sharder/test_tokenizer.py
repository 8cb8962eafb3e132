import hashlib
import logging
import os
from pathlib import Path
import subprocess
import sys

import pytest

from made_corpus import REPOSITORY, digest, experiment_file, facts, jsonl, made_documents, places, sharder, write_jsonl
from sharder import shard, tokenizer
from sharder.tokenizer import PATTERNS, find_or_make, gpt2_bundle, run, train_bpe, with_chat_specials
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.paths import Places
from trainwright.store.assets import GPT2_FILES
from trainwright.tokens.bundle import CHAT_SPECIALS, Bundle, bytes_bundle, vocabulary_text
from vocabularies import CACHE_FILES

BPE = ("tokenizer.kind=bpe", "tokenizer.vocab_size=400")
VECTORS = {
    "Hello, world!": [15496, 11, 995, 0],
    "hello  world\n\n": [31373, 220, 995, 628],
    " naïve 🙂": [41492, 32485],
    "I'll don't 12345": [40, 1183, 836, 470, 17031, 2231],
    "<|endoftext|>": [27, 91, 437, 1659, 5239, 91, 29],
}
"""Texts and GPT-2's tokens for them."""


def sharded(root: Path, *overrides: str) -> Places:
    """Return places whose text shards are there."""
    corpus = root / "corpus.jsonl"
    if not corpus.exists():
        write_jsonl(corpus, made_documents(1500))
    asked = places(root, *jsonl(corpus), *overrides)
    shard.run(asked)
    return asked


# --- which tokenizer it is --------------------------------------------------------------------------------------------


def test_the_order_is_given_then_run_then_shared_then_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = sharded(tmp_path, *BPE)
    with caplog.at_level(logging.INFO, logger="sharder"):
        made, how = find_or_make(asked)
        assert how == "made"
        assert find_or_make(asked) == (made, "shared")
        made.save(asked.run.path / "tokenizer")
        assert find_or_make(asked) == (made, "run")
        made.save(tmp_path / "mine")
        given = places(tmp_path, *BPE, f"tokenizer.path={tmp_path / 'mine'}")
        assert find_or_make(given) == (made, "given")
    reasons = [message for message in caplog.messages if "using=" in message]
    assert [message.split("using=")[1].split()[0] for message in reasons] == ["made", "shared", "run", "given"]


def test_a_bundle_of_the_run_is_copied_to_the_shared_folder(tmp_path: Path) -> None:
    asked = places(tmp_path)
    bytes_bundle().save(asked.run.path / "tokenizer")
    assert run(asked)["state"] == "run"
    assert Bundle.load(asked.tokenizer).hash == bytes_bundle().hash


def test_a_given_bundle_does_not_replace_another_one(tmp_path: Path) -> None:
    asked = sharded(tmp_path, *BPE)
    run(asked)
    before = digest(asked.tokenizer)
    other = with_chat_specials("bpe", PATTERNS["gpt4"], {bytes([byte]): byte for byte in range(256)}, {})
    other.save(tmp_path / "other")
    with pytest.raises(UserError, match=r"holds another tokenizer .* choose another tokenizer\.name"):
        run(places(tmp_path, *BPE, f"tokenizer.path={tmp_path / 'other'}"))
    assert digest(asked.tokenizer) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("tokenizer.kind=bytes",), "tokenizer.kind=bytes is asked, but it holds bpe"),
        (("tokenizer.kind=bpe", "tokenizer.vocab_size=380"), "tokenizer.vocab_size=380 is asked, but it holds 400"),
        ((*BPE, "tokenizer.pattern=gpt2"), "tokenizer.pattern=gpt2 is asked, but it has gpt4"),
    ],
)
def test_a_shared_bundle_of_another_sort_is_refused_by_field(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    run(sharded(tmp_path, *BPE))
    with pytest.raises(UserError) as error:
        run(places(tmp_path, *overrides))
    assert message in str(error.value)
    assert "another tokenizer.name" in str(error.value)


def test_a_damaged_bundle_is_refused_by_name(tmp_path: Path) -> None:
    asked = places(tmp_path)
    run(asked)
    path = asked.tokenizer / "vocabulary.tiktoken"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"vocabulary\.tiktoken"):
        run(asked)


@pytest.mark.parametrize("path", ["/nowhere", "/dev/zero"])
def test_a_missing_path_is_refused_by_name(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match=rf"tokenizer\.path={path}: there is no such file or folder"):
        run(places(tmp_path, "tokenizer.kind=bpe", f"tokenizer.path={path}"))


def test_a_given_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"a" * length: 254 + length for length in range(2, 60)}
    (tmp_path / "x.tiktoken").write_bytes(vocabulary_text(ranks))
    path = f"tokenizer.path={tmp_path / 'x.tiktoken'}"
    with pytest.raises(UserError, match=r"vocab_size=300 is asked, but it holds 323; set tokenizer\.vocab_size=323"):
        run(places(tmp_path, "tokenizer.kind=bpe", "tokenizer.vocab_size=300", path))
    assert run(places(tmp_path, "tokenizer.kind=bpe", "tokenizer.vocab_size=323", path))["vocab_size"] == 323


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_is_deterministic_and_tiktoken_encodes_as_the_trainer_does(tmp_path: Path, pattern: str) -> None:
    import rustbpe

    files = [write_jsonl(tmp_path / "a.jsonl", made_documents(300))]
    first = train_bpe(files, 700, PATTERNS[pattern], 10**9)
    assert train_bpe(files, 700, PATTERNS[pattern], 10**9) == first
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(made_documents(300)), 700, pattern=PATTERNS[pattern])
    bundle = with_chat_specials("bpe", PATTERNS[pattern], first[0], {})
    for text in made_documents(100, seed=7):
        assert bundle.encode(text).tolist() == trainer.encode(text)
        assert bundle.decode(bundle.encode(text).tolist()) == text


def test_a_trained_bundle_has_the_size_asked_and_says_what_it_was_made_from(tmp_path: Path) -> None:
    asked = sharded(tmp_path, *BPE)
    run(asked)
    bundle = Bundle.load(asked.tokenizer)
    manifest = shard.read_text(asked)["train"]
    assert bundle.vocab_size == 400
    assert list(bundle.special_tokens.values()) == list(range(391, 400))
    assert bundle.made["text_sha256"] == manifest.sha256
    assert bundle.made["num_documents"] == manifest.num_documents
    assert bundle.made["num_bytes"] == manifest.text_bytes
    assert bundle.made["rustbpe"]


def test_only_so_many_bytes_are_read(tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / "a.jsonl", ["x" * 100] * 50)]
    assert train_bpe(files, 300, PATTERNS["gpt4"], 1000)[1:] == (10, 1000)


def test_a_corpus_too_small_for_the_vocabulary_gives_a_smaller_one_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", ["ab " * number for number in range(1, 50)])
    big = ("tokenizer.kind=bpe", "tokenizer.vocab_size=5000")
    asked = places(tmp_path, *jsonl(corpus), "data.validation_fraction=0.5", *big)
    shard.run(asked)
    with caplog.at_level(logging.INFO, logger="sharder"):
        assert int(str(run(asked)["vocab_size"])) < 300
    assert "asked=5000" in caplog.messages[-1]
    assert run(asked)["state"] == "shared"


def test_a_document_that_the_pattern_cannot_take_does_not_end_the_training(tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / "a.jsonl", [" " * 2_000_000 + "a", "ab ab ab"])]
    assert train_bpe(files, 300, PATTERNS["gpt4"], 10**9)[1] == 2


def test_training_on_damaged_text_is_refused_by_name(tmp_path: Path) -> None:
    asked = sharded(tmp_path, *BPE)
    path = tmp_path / "datasets/train/made/train_00000.jsonl.zst"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train_00000\.jsonl\.zst: its sha256"):
        run(asked)


def test_training_needs_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no text shards here, run the shard stage"):
        run(places(tmp_path, *BPE))


# --- GPT-2 and bytes --------------------------------------------------------------------------------------------------


def test_the_vocabulary_of_gpt2_gives_its_known_tokens(
    tmp_path: Path, gpt2_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", gpt2_folder)
    bundle = gpt2_bundle(tmp_path)
    assert (bundle.vocab_size, bundle.separator, len(bundle.ranks)) == (50257, 50256, 50256)
    for text, tokens in VECTORS.items():
        assert bundle.encode(text).tolist() == tokens
        assert bundle.decode(tokens) == text


def test_gpt2_is_read_from_the_assets_offline(tmp_path: Path, gpt2_folder: str) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "tiktoken").symlink_to(gpt2_folder)
    words = ("tokenizer", str(experiment_file(tmp_path)), "tokenizer.kind=gpt2")
    done = sharder(tmp_path, *words, HTTPS_PROXY="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert facts(done.stdout)["vocab_size"] == "50257"


def test_without_gpt2s_vocabulary_the_sentence_names_folder_and_files(tmp_path: Path) -> None:
    words = ("tokenizer", str(experiment_file(tmp_path)), "tokenizer.kind=gpt2")
    done = sharder(tmp_path, *words, HTTPS_PROXY="http://127.0.0.1:9")
    assert done.returncode == MissingError.exit == 69
    names = [name for what, entry in GPT2_FILES.items() for name in (what, entry.path)]
    for part in (str(tmp_path / "assets" / "tiktoken"), *names):
        assert part in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_names_of_the_cache_files_are_the_hashes_of_their_addresses() -> None:
    base = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
    for name, entry in GPT2_FILES.items():
        assert hashlib.sha1((base + name).encode()).hexdigest() == entry.path
        assert CACHE_FILES[name] == (entry.path, entry.sha256)


def test_bytes_need_neither_text_nor_network(tmp_path: Path) -> None:
    asked = places(tmp_path)
    assert run(asked) == {
        "stage": "tokenizer",
        "state": "made",
        "kind": "bytes",
        "vocab_size": 256 + len(CHAT_SPECIALS),
        "hash": bytes_bundle().hash[:8],
        "folder": asked.tokenizer,
    }
    assert [path.name for path in asked.tokenizer.iterdir() if "lease" in path.name] == []


def test_a_tokenizer_has_one_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = places(tmp_path)
    seen = []

    def made_meanwhile() -> Bundle:
        seen.append((asked.tokenizer / "lease.json").exists())
        return bytes_bundle()

    monkeypatch.setattr(tokenizer, "bytes_bundle", made_meanwhile)
    run(asked)
    assert seen == [True]


def test_training_gives_the_same_vocabulary_whatever_the_threads(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    write_jsonl(corpus, made_documents(400))
    program = (
        "import sys, hashlib; from pathlib import Path; from sharder.tokenizer import PATTERNS, train_bpe\n"
        "from trainwright.tokens.bundle import vocabulary_text\n"
        "for name in PATTERNS: print(name, hashlib.sha256(vocabulary_text("
        "train_bpe([Path(sys.argv[1])], 600, PATTERNS[name], 1 << 30)[0])).hexdigest())"
    )
    found = set()
    for threads in ("1", "2", "5"):
        environ = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-c", program, str(corpus)], env=environ, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
    # The patterns differ, and so do the vocabularies.
    assert len({line.split()[1] for line in found.pop().splitlines()}) == len(PATTERNS)
