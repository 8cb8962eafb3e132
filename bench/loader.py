"""How many tokens a second one process reads from the page cache, and how long it takes to stand at sample 10^9.

    python bench/loader.py [--rounds 7]

The corpus is uint16 tokens of 16 shards, read whole once beforehand. Batches of 2^19 tokens at sequence 2048 are read
in an order shuffled over all of it. In each round, one after the other:

    loader     `trainer.data.batches` as the trainer has it: order, reading, checks, the thread that reads ahead
    naive      a memory map, one random window after the other, each made int64 twice (inputs, targets), as nanoGPT does
    widened    the loader, and each batch made int64 on the CPU, which on a GPU the GPU does

Then an order over 10,000 shards of 10^8 tokens is made, without the shards, and the samples of the batch at sample 10^9
are computed. The last line is one JSON object; the exit code is 0 when both are as promised.
"""

import argparse
import json
import os
from pathlib import Path
import statistics
import sys
import tempfile
import time

import numpy as np
import torch

from trainer.data import CPU, Dealing, batches
from trainwright.tokens.order import SampleOrder
from trainwright.tokens.shards import TokenCorpus, TokenManifest, write_shard

SEQ_LEN_TOKENS = 2048
ROWS = 256
NUM_SHARDS = 16
SHARD_TOKENS = 16_000_000
BATCHES = 200
PROMISED_MTOK_PER_S = 400
PROMISED_RESUME_S = 0.05


def main() -> int:
    """Print the medians as one JSON object; return 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = made_corpus(Path(folder))
        ways = {"loader": lambda: loader(corpus, widened=False), "naive": lambda: naive(corpus)}
        ways["widened"] = lambda: loader(corpus, widened=True)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                speed = way()
                # The first round brings the shards into the page cache.
                if number:
                    found[name].append(speed)
    resumes = [resume() for _ in range(rounds)]
    medians = {name: round(statistics.median(speeds), 1) for name, speeds in found.items()}
    resume_s = max(resumes)
    passed = medians["loader"] >= PROMISED_MTOK_PER_S and resume_s <= PROMISED_RESUME_S
    result = {
        "bench": "loader",
        "unit": "million tokens a second of one process, median",
        "rounds": rounds,
        "seq_len_tokens": SEQ_LEN_TOKENS,
        "tokens_per_batch": ROWS * SEQ_LEN_TOKENS,
        "corpus_tokens": NUM_SHARDS * SHARD_TOKENS,
        "promised": {"loader": PROMISED_MTOK_PER_S, "resume_seconds": PROMISED_RESUME_S},
        **medians,
        "fastest": {name: round(max(speeds), 1) for name, speeds in found.items()},
        "slowest": {name: round(min(speeds), 1) for name, speeds in found.items()},
        "loader_to_naive": round(medians["loader"] / medians["naive"], 2),
        "resume_seconds_at_sample_1e9_of_1e12_tokens": {"slowest": round(resume_s, 4)},
        "passed": passed,
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result))
    return 0 if passed else 1


def made_corpus(folder: Path) -> TokenCorpus:
    """Return a corpus of random tokens."""
    generator = np.random.default_rng(1)
    entries = []
    for index in range(NUM_SHARDS):
        tokens = generator.integers(0, 50_257, SHARD_TOKENS, dtype=np.uint16)
        entries.append(write_shard(folder / f"train_{index:05d}.bin", [tokens], 50_257, 1))
    TokenManifest("made", 50_257, 50_256, "made", complete=True, shards=tuple(entries)).write(folder)
    return TokenCorpus(folder)


def loader(corpus: TokenCorpus, *, widened: bool) -> float:
    """Return the million tokens a second of the trainer's own batches."""
    order = SampleOrder(corpus.shard_tokens, SEQ_LEN_TOKENS, seed=1)
    with batches(corpus, order, Dealing(32, ROWS // 32, 0, 1), 0) as stream:
        next(stream)
        started = time.perf_counter()
        for _ in range(BATCHES):
            batch = next(stream)
            if widened:
                for _ in batch.on(CPU):
                    pass
        return BATCHES * ROWS * SEQ_LEN_TOKENS / 1e6 / (time.perf_counter() - started)


def naive(corpus: TokenCorpus) -> float:
    """Return the million tokens a second of windows that are read one by one, twice, as int64."""
    generator = np.random.default_rng(2)
    started = time.perf_counter()
    for _ in range(BATCHES // 4):
        path = corpus.folder / corpus.manifest.shards[int(generator.integers(NUM_SHARDS))].path
        tokens = np.memmap(path, dtype=np.uint16, mode="r", offset=1024)
        places = generator.integers(0, len(tokens) - SEQ_LEN_TOKENS - 1, ROWS)
        torch.stack([torch.from_numpy(tokens[at : at + SEQ_LEN_TOKENS].astype(np.int64)) for at in places])
        torch.stack([torch.from_numpy(tokens[at + 1 : at + 1 + SEQ_LEN_TOKENS].astype(np.int64)) for at in places])
    return BATCHES // 4 * ROWS * SEQ_LEN_TOKENS / 1e6 / (time.perf_counter() - started)


def resume() -> float:
    """Return the seconds from the list of 10,000 shards to the samples of the batch at sample 10^9, in epoch 3."""
    shard_tokens = tuple(100_000_000 + index for index in range(10_000))
    started = time.perf_counter()
    order = SampleOrder(shard_tokens, SEQ_LEN_TOKENS // 2, seed=time.perf_counter_ns(), group_tokens=200_000_000)
    cursor = 2 * order.num_samples + 10**9
    order.samples(Dealing(32, ROWS // 32, 3, 64).rows(cursor).ravel())
    order.num_targets(cursor, cursor + 64 * ROWS)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
