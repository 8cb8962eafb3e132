"""How fast text shards become committed token shards, beside tiktoken alone and datatrove's pipeline.

    python bench/encode.py --text FOLDER [--rounds 3] [--datatrove PYTHON] [--times 10]

FOLDER holds English text (.txt); it becomes text shards of documents of some 3,000 characters first. The vocabulary is
a BPE of 32,768 trained on it, split as GPT-4 does with two digits a token, unless --pattern says otherwise. In each
round, one after the other:

    ours       `python -m sharder encode` on all cores: verify, decompress, parse, encode, write, hash, commit
    exact      the same with data.encoder=tiktoken, on a fifth of the text
    tiktoken   one process and one core, `encode_ordinary` on documents that are in memory already; nothing is written
    datatrove  its JsonlReader -> DocumentTokenizer on all cores, with the same vocabulary as tokenizer.json, where
               --datatrove names a Python that has it; on a fifth of the text once, since it is slow

All figures are megabytes (10^6) of text a second; of ours, by the stage's own clock from its start to its last commit,
the start of its processes included, on the text --times over. At the end the peak of memory (PSS of all processes of
ours) is taken on the text once and --times over. The last line is one JSON object; the exit code is 0 when all is as
promised.
"""

import argparse
import json
import os
from pathlib import Path
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from memory_of import peak_below
from trainwright.store.text_shards import TextManifest, read_documents
from trainwright.tokens.bundle import Bundle

ROOT = Path(__file__).resolve().parent.parent
PROMISED_MB_PER_S = 100
PROMISED_TO_TIKTOKEN = 1.8
PROMISED_TO_DATATROVE = 5
PROMISED_PEAK_GIB = 1.5
DOCUMENT_CHARACTERS = 3000
SAMPLE_MB = 40
DATATROVE = """
import sys, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
if __name__ == "__main__":
    text, output, tokenizer, tasks, end = sys.argv[1:]
    steps = [JsonlReader(text), DocumentTokenizer(output, tokenizer_name_or_path=tokenizer, eos_token=end,
             shuffle_documents=False)]
    started = time.perf_counter()
    LocalPipelineExecutor(steps, tasks=int(tasks), workers=int(tasks), logging_dir=output + "/logs").run()
    print(time.perf_counter() - started)
"""


def main() -> int:
    """Print the medians as one JSON object; return 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pattern", default="gpt4")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--datatrove", metavar="PYTHON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), asked.text, asked.pattern, asked.times)
        ways = {"ours": work.ours, "exact": work.exact, "tiktoken": work.tiktoken}
        if asked.datatrove:
            ways["datatrove"] = lambda: work.datatrove(asked.datatrove)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(asked.rounds):
            for name, way in ways.items():
                found[name].append(way())
                print(f"round={number} {name}={found[name][-1]:.1f} load={os.getloadavg()[0]:.1f}", file=sys.stderr)
        peaks = {"1": work.peak_gib("once"), str(asked.times): work.peak_gib("more")}
        result = summary(found, peaks, work)
    print(json.dumps(result))
    return 0 if result["passed"] else 1


def summary(found: dict[str, list[float]], peaks: dict[str, float], work: "Work") -> dict[str, object]:
    """Return what is printed last."""
    medians = {name: round(statistics.median(speeds), 1) for name, speeds in found.items()}
    exact = statistics.median(a / b for a, b in zip(found["exact"], found["tiktoken"], strict=True))
    ratios = {"exact_to_one_core_of_tiktoken": round(exact, 2)}
    ratios["ours_to_one_core_of_tiktoken"] = round(medians["ours"] / medians["tiktoken"], 2)
    if "datatrove" in medians:
        ratios["ours_to_datatrove"] = round(medians["ours"] / medians["datatrove"], 2)
    passed = medians["ours"] >= PROMISED_MB_PER_S and exact >= PROMISED_TO_TIKTOKEN
    passed = passed and ratios.get("ours_to_datatrove", PROMISED_TO_DATATROVE) >= PROMISED_TO_DATATROVE
    return {
        "bench": "encode",
        "unit": "megabytes of text a second, median of rounds in turn",
        "text_megabytes": round(work.text_mb, 1),
        "times": work.times,
        "vocabulary": f"bpe 32768, pattern {work.pattern}",
        "encoder": work.encoder,
        "rounds": len(found["ours"]),
        **medians,
        "fastest": {name: round(max(speeds), 1) for name, speeds in found.items()},
        "slowest": {name: round(min(speeds), 1) for name, speeds in found.items()},
        **ratios,
        "peak_gib_by_size": peaks,
        "promised": {
            "ours": PROMISED_MB_PER_S,
            "exact_to_one_core_of_tiktoken": PROMISED_TO_TIKTOKEN,
            "ours_to_datatrove": PROMISED_TO_DATATROVE,
            "peak_gib": PROMISED_PEAK_GIB,
        },
        "passed": passed and max(peaks.values()) < PROMISED_PEAK_GIB,
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


class Work:
    """Text shards and a tokenizer in a folder, and the ways to encode."""

    def __init__(self, folder: Path, text: Path, pattern: str, times: int) -> None:
        self.folder, self.pattern, self.encoder = folder, pattern, ""
        self._experiment = folder / "encode.yaml"
        self._corpus = folder / "corpus"
        self._corpus.mkdir()
        write_documents(text, self._corpus / "0.jsonl")
        tokenizer = f"tokenizer: {{kind: bpe, vocab_size: 32768, pattern: {pattern}, name: shared}}\n"
        self._experiment.write_text(
            "name: encode\ntrain: {global_batch_sequences: 1, micro_batch: 1, steps: 1}\n" + tokenizer
        )
        self._shards(self._corpus, "once")
        self._sharder("tokenizer", "data.name=once")
        self.bundle = Bundle.load(folder / "artifacts" / "tokenizer" / "shared")
        self._text = folder / "datasets" / "train" / "once"
        lines = (self._corpus / "0.jsonl").read_text().splitlines(keepends=True)
        for index in range(1, times):
            if index == max(1, times // 5):
                self._shards(self._corpus, "fifth")
            # Turned, since a file with the bytes of another is dropped.
            (self._corpus / f"{index}.jsonl").write_text("".join(lines[index:] + lines[:index]))
        self._shards(self._corpus, "more")
        self.text_mb = TextManifest.read(self._text.with_name("more")).text_bytes / 1e6
        self.times = times

    def _shards(self, corpus: Path, name: str) -> None:
        settings = ("data.source.kind=jsonl", f"data.path={corpus}", "data.documents_per_shard=5000")
        self._sharder("shard", *settings, f"data.name={name}", "data.validation_fraction=0.001")

    def _sharder(self, word: str, *overrides: str) -> str:
        command = [sys.executable, "-m", "sharder", word, str(self._experiment), *overrides]
        environ = {**os.environ, "TRAINWRIGHT_ROOT": str(self.folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.encoder = next((w[8:] for w in done.stderr.split() if w.startswith("encoder=giga")), self.encoder)
        return done.stdout

    def ours(self, *overrides: str, name: str = "more") -> float:
        """Encode everything anew; return the stage's speed."""
        for tokens in self.folder.glob(f"datasets/*/{name}/tokens-*"):
            shutil.rmtree(tokens)
        facts = self._sharder("encode", f"data.name={name}", *overrides).split()
        return next(float(fact.removeprefix("mb_per_s=")) for fact in facts if fact.startswith("mb_per_s="))

    def exact(self) -> float:
        """Encode a part anew by tiktoken; return the stage's speed."""
        return self.ours("data.encoder=tiktoken", name="fifth")

    def tiktoken(self) -> float:
        """Return the speed of tiktoken alone on one core."""
        documents, num_bytes = [], 0
        for shard in TextManifest.read(self._text).shards:
            for text in read_documents(self._text / shard.path):
                documents.append(text)
                num_bytes += len(text.encode())
                if num_bytes > SAMPLE_MB * 1e6:
                    break
        encode = self.bundle.encoding.encode_ordinary
        encode("warm")
        started = time.perf_counter()
        for text in documents:
            encode(text)
        return num_bytes / 1e6 / (time.perf_counter() - started)

    def datatrove(self, python: str) -> float:
        """Return the speed of datatrove's pipeline on a fifth of the text."""
        from trainwright.tokens.tokenizer_json import tokenizer_tree

        part, output = self.folder / "part", self.folder / "datatrove"
        shutil.rmtree(output, ignore_errors=True)
        part.mkdir(exist_ok=True)
        tokenizer = self.folder / "tokenizer.json"
        tokenizer.write_text(json.dumps(tokenizer_tree(self.bundle)))
        shards = TextManifest.read(self._text).shards[::5]
        for shard in shards:
            lines = (json.dumps({"text": text}) for text in read_documents(self._text / shard.path))
            (part / shard.path.replace(".jsonl.zst", ".jsonl")).write_text("\n".join(lines))
        program = self.folder / "pipeline.py"
        program.write_text(DATATROVE)
        words = [str(part), str(output), str(tokenizer), str(os.cpu_count()), next(iter(self.bundle.special_tokens))]
        done = subprocess.run([python, str(program), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return sum(shard.text_bytes for shard in shards) / 1e6 / float(done.stdout.split()[-1])

    def peak_gib(self, name: str) -> float:
        """Return the peak of memory of encoding a corpus."""
        with peak_below() as peak:
            self.ours(name=name)
        return round(peak[0] / 2**30, 3)


def write_documents(folder: Path, target: Path) -> None:
    """Write the text files of a folder as JSON lines of some 3,000 characters."""
    with target.open("w") as file:
        for path in sorted(folder.glob("**/*.txt")):
            text = path.read_text(encoding="utf-8", errors="ignore")
            for start in range(0, len(text), DOCUMENT_CHARACTERS):
                file.write(json.dumps({"text": text[start : start + DOCUMENT_CHARACTERS]}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
