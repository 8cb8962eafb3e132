"""Makes a run folder such as boot and the trainer leave behind, with real shards, manifests and a real tokenizer."""

import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainwright.spec.load import parse, validate
from trainwright.spec.paths import Places, RunFolder, shard_name
from trainwright.spec.resolved import Training, experiment_text
from trainwright.store.text_shards import Drops, TextManifest, TextShardWriter
from trainwright.tokens.bundle import CHAT_SPECIALS, GPT4_PATTERN, Bundle
from trainwright.tokens.shards import TokenManifest, write_shard

EXPERIMENT = """\
name: tiny-stdlib
data: {validation_fraction: 0.02, documents_per_shard: 4}
tokenizer: {kind: bpe, vocab_size: 2048}
model: {kind: llama, dim: 192, num_layers: 6, num_heads: 6, qk_norm: true}
train: {seq_len_tokens: 256, micro_batch: 8, global_batch_sequences: 32, steps: 1200}
optimizer: {kind: adamw, lr: 2e-3}
schedule: {kind: cosine, warmup_steps: 60}
evaluation: {every_steps: 100}
resources: {device: cpu, ranks_per_node: 2}
"""
COMMIT = "3f9c1d2b7a5e4c60918273645566778899aabbcc"
WORDS = ("the", "return", "self", "value", "import", "of", "a", "function", "naïve", "raise", "None", "def")
SAMPLES = (
    ("import os\n", "import sys\n\ndef main() -> int:\n    return os.EX_OK\n"),
    ("The meaning of this function is", " to return the value of the given object, or None if it is not found.\n"),
    ("def read(self, size):", '\n    """Read at most size bytes."""\n    return self._file.read(size)\n'),
    ("class Error(Exception):", "\n    pass\n\n\nclass TimeoutError(Error):\n    pass\n"),
    ("# Copyright", " (C) 2001 the authors.\n# This module is part of the package and released under its licence.\n"),
)


def make_run(root: Path, *, steps: int = 1200, total: int = 1200, code: int = 0) -> RunFolder:
    """Write a run that made `steps` of its `total` steps, with everything a report reads; return its folder."""
    tree, _ = parse(EXPERIMENT, "experiment")
    tree["train"]["steps"] = str(total)
    tree["schedule"]["warmup_steps"] = str(min(60, total))
    experiment = validate(tree, "experiment")
    places = Places(root, experiment)
    run = places.run
    bundle = make_bundle()
    bundle.save(places.tokenizer)
    for split, count in (("train", 30), ("val", 5)):
        documents = [" ".join(random.Random(f"{split}{i}").choices(WORDS, k=200)) for i in range(count)]
        make_corpus(places.text(split), places.tokens(split, bundle.hash), bundle, split, documents)
    tokens = (places.tokens(split, bundle.hash) for split in ("train", "val"))
    training = Training(experiment, run.path, *tokens, places.tokenizer)
    write(run.experiment, experiment_text(experiment, commit=COMMIT, image="registry.invalid/trainwright@sha256:12ab"))
    write(run.training_yaml, training.yaml_text())
    write(run.metrics, lines(metric_rows(steps, total)))
    if steps == total:
        rows = [{"prompt": p, "continuation": c, "step": steps, "temperature": 0.8} for p, c in SAMPLES]
        write(run.samples, lines(rows))
    make_records(run, steps, total, code)
    return run


def make_bundle() -> Bundle:
    """Return a small byte-pair vocabulary: the bytes, and each of the words with a space before it."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for word in WORDS:
        text = f" {word}".encode()
        for end in range(2, len(text) + 1):
            ranks.setdefault(text[:end], len(ranks))
    specials = {name: len(ranks) + index for index, name in enumerate(CHAT_SPECIALS)}
    return Bundle("bpe", GPT4_PATTERN, ranks, specials, {"source": "test"})


def make_corpus(text: Path, tokens: Path, bundle: Bundle, split: Any, documents: Sequence[str]) -> None:
    """Write documents as text shards and as token shards."""
    drops = Drops({"empty": 3, "not UTF-8": 1})
    inputs = {"data.source.kind": "stdlib", "seed": 42}
    manifest = TextManifest(split, "fraction", 42, inputs, drops=drops)
    with TextShardWriter(text, manifest, documents_per_shard=20, drops=drops) as writer:
        for document in documents:
            writer.add(document, len(document.encode()))
        writer.commit_rest()
    made = writer.complete()
    name = f"{shard_name(split, 0)}.bin"
    pieces = [bundle.encode_document(document) for document in documents]
    shard = write_shard(tokens / name, pieces, bundle.vocab_size, len(documents))
    whole = TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, made.sha256, True, (shard,))
    whole.write(tokens)


def metric_rows(steps: int, total: int) -> list[dict[str, Any]]:
    """Return the rows of a run whose loss falls as real ones do."""
    noise, rows = random.Random(7), [evaluation(0, 7.68)]
    for step in range(1, steps + 1):
        loss = 2.1 + 5.5 * (1 + step / 18) ** -0.62
        warm = min(1.0, step / 60)
        lr = 2e-3 * warm * (0.1 + 0.9 * (1 + math.cos(math.pi * max(0, step - 60) / max(1, total - 60))) / 2)
        seconds = (3.1 if step == 1 else 0.82) * noise.uniform(0.97, 1.06) * (1.5 if noise.random() < 0.01 else 1)
        rows.append(
            {
                "step": step,
                "loss": loss * noise.gauss(1, 0.022),
                "lr": lr,
                "grad_norm": (0.4 + 3 / (1 + step / 15)) * math.exp(noise.gauss(0, 0.2)),
                "tokens": step * 8192,
                "step_seconds": seconds,
                "tokens_per_second": 8192 / seconds,
                "mfu": None,
                "time": 1_795_000_000 + 0.83 * step,
            }
        )
        if step % 100 == 0 or step == total:
            rows.append(evaluation(step, loss * 1.012))
    return rows


def evaluation(step: int, loss: float) -> dict[str, Any]:
    return {
        "step": step,
        "eval_loss": loss,
        "bits_per_byte": loss / math.log(2) / 3.05,
        "eval_tokens": 50_000,
        "eval_seconds": 2.1,
        "time": 1_795_000_000 + 0.83 * step,
    }


def make_records(run: RunFolder, steps: int, total: int, code: int) -> None:
    """Write the records of the stages that are done, and of two attempts, the first of which was interrupted."""
    done = {"prepare": 0.02, "shard": 12.31, "tokenizer": 41.7}
    if steps == total:
        done["train"] = 1043.5
    for index, (stage, seconds) in enumerate(done.items()):
        record = {"stage": stage, "seconds": seconds, "finished": f"2026-11-21T04:3{index}:00Z", "inputs": {}}
        write(run.stage(stage), json.dumps(record))
    ends = [{"code": 75, "reason": "SIGTERM", "seconds": 402.0, "step": steps // 3}]
    ends.append({"code": code, "reason": "complete" if code == 0 else "stopped", "seconds": 741.25, "step": steps})
    for number, end in enumerate(ends, 1):
        write(run.attempts / f"{number:04d}" / "start.json", "{}")
        write(run.attempts / f"{number:04d}" / "end.json", json.dumps(end))


def lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def edit_lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a file."""
    write(path, "".join(f"{line}\n" for line in change(path.read_text(encoding="utf-8").splitlines())))


if __name__ == "__main__":
    # A run folder to look at: python tests/report/made_run.py FOLDER
    print(make_run(Path(sys.argv[1])))
