"""How long training a vocabulary takes, beside the trainers alone.

    python bench/bpe.py --text FOLDER [--rounds 3]

FOLDER holds English text (.txt), which becomes text shards first. In each round, one after the other, a vocabulary of
32,768 entries split as GPT-4 does with two digits a token:

    ours          `train_bpe`, as the tokenizer stage calls it: decompress, parse, cut long documents, count, merge
    rustbpe       rustbpe alone, on documents that are in memory already
    tokenizers    Hugging Face's trainer alone, on the same

The two vocabularies of ours must be the same each time. The last line is one JSON object; the exit code is 0 when ours
takes at most 1.3 times as long as the faster of the two.
"""

import argparse
import json
import os
from pathlib import Path
import statistics
import sys
import tempfile
import time

import rustbpe
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from sharder.tokenizer import train_bpe
from trainwright.store.text_shards import ShardFile, json_line
from trainwright.tokens.bundle import GPT4_PATTERN

VOCABULARY = 32_768
PROMISED_TO_FASTEST = 1.3
DOCUMENT_CHARACTERS = 3000


def main() -> int:
    """Print the medians as one JSON object; return 1 when the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    texts = documents(asked.text)
    with tempfile.TemporaryDirectory() as folder:
        shard = written(Path(folder) / "train_00000.jsonl.zst", texts)
        vocabularies = []

        def ours() -> None:
            vocabularies.append(train_bpe([shard], VOCABULARY, GPT4_PATTERN, 1 << 40)[0])

        ways = {"ours": ours, "rustbpe": lambda: by_rustbpe(texts), "tokenizers": lambda: by_tokenizers(texts)}
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(asked.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                found[name].append(time.perf_counter() - started)
                print(f"round={number} {name}={found[name][-1]:.1f} load={os.getloadavg()[0]:.1f}", file=sys.stderr)
    same = all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    ratios = [mine / min(others) for mine, *others in zip(*found.values(), strict=True)]
    passed = same and statistics.median(ratios) <= PROMISED_TO_FASTEST
    result = {
        "bench": "bpe",
        "unit": "seconds, median of rounds in turn",
        "text_megabytes": round(sum(len(text.encode()) for text in texts) / 1e6, 1),
        "vocabulary": VOCABULARY,
        "rounds": asked.rounds,
        **{name: round(statistics.median(seconds), 2) for name, seconds in found.items()},
        "fastest": {name: round(min(seconds), 2) for name, seconds in found.items()},
        "ours_to_fastest_trainer": round(statistics.median(ratios), 3),
        "promised": {"ours_to_fastest_trainer": PROMISED_TO_FASTEST},
        "same_vocabulary_each_time": same,
        "passed": passed,
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result))
    return 0 if passed else 1


def documents(folder: Path) -> list[str]:
    """Return the text files of a folder in pieces of some 3,000 characters."""
    texts = (path.read_text(encoding="utf-8", errors="ignore") for path in sorted(folder.glob("**/*.txt")))
    return [
        text[start : start + DOCUMENT_CHARACTERS]
        for text in texts
        for start in range(0, len(text), DOCUMENT_CHARACTERS)
        if text[start : start + DOCUMENT_CHARACTERS].strip()
    ]


def written(path: Path, texts: list[str]) -> Path:
    """Write one text shard."""
    shard = ShardFile(path)
    for text in texts:
        data = text.encode()
        shard.add_line(json_line(data), len(data))
    shard.commit()
    return path


def by_rustbpe(texts: list[str]) -> None:
    """Train by rustbpe alone."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), VOCABULARY, pattern=GPT4_PATTERN)


def by_tokenizers(texts: list[str]) -> None:
    """Train by Hugging Face's trainer alone; its regular expressions spell the same split another way."""
    pattern = GPT4_PATTERN.replace("{1,2}+", "{1,2}").replace("$", r"\z")
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer=trainer)


if __name__ == "__main__":
    sys.exit(main())
