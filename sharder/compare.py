"""How well a tokenizer does: bytes a token on fixed texts and on the corpus, beside GPT-2's and GPT-4's; round trips.

    python -m sharder tokenizer EXP --evaluate

More bytes a token means fewer tokens to train on for the same text. A tokenizer that does not give a text back is
refused; a vocabulary to compare with that is neither here (`fetch` brings it) nor can be downloaded is left out, and
said so.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sharder.shard import Facts
from sharder.tokenizer import find_or_make
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Places
from trainwright.store.assets import CL100K_FILE, GPT2_FILES, OFFLINE_VARIABLE
from trainwright.store.text_shards import TextManifest, read_documents
from trainwright.tokens.bundle import Bundle

log = logging.getLogger(__name__)

CORPUS_BYTES = 4_000_000
"""Text of each split that is looked at."""
OTHERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "gpt2": ("gpt2", tuple(entry.path for entry in GPT2_FILES.values())),
    "cl100k": ("cl100k_base", (CL100K_FILE.path,)),
}
"""What is compared with: tiktoken's name for it, and its files in tiktoken's cache."""
TEXTS: Mapping[str, str] = {
    "news": "The city council voted 7 to 2 on Tuesday to reopen the old harbour bridge, eleven months after a barge "
    "struck its northern pier. Repairs cost $14.3 million, about a third more than planned; the mayor said that the "
    "first buses would cross by March 2025.\n\n“We've waited long enough,” she told reporters.\n",
    "korean": "어제 저녁 서울에는 올해 첫눈이 내렸습니다. 시민들은 우산을 쓰고 천천히 걸으며 사진을 찍었고, "
    "지하철은 평소보다 조금 늦게 도착했습니다. 내일은 기온이 영하 5도까지 떨어질 것으로 보입니다.\n",
    "code": "def windows(tokens, width, step=1):\n    if width <= 0:\n        raise ValueError(f'width={width}')\n"
    "    for start in range(0, len(tokens) - width + 1, step):\n        yield tokens[start:start + width]\n\n\n"
    "print([sum(each) / 3 for each in windows([1, 4, 9, 16, 25], 3)])  # 4.67, 9.67, 16.67\n",
    "maths": "Let $f\\colon [0,1] \\to \\mathbb{R}$ be continuous with $\\int_0^1 f(x)\\,dx = 0$. Then there is $c "
    "\\in (0,1)$ with $f(c)=0$, since otherwise $f>0$ or $f<0$ throughout, and $\\left|\\int_0^1 f\\right| > 0$.\n",
    "science": "Photosynthesis in C₄ plants keeps CO₂ at about 10 times its concentration in air around RuBisCO, which "
    "lowers photorespiration at 30 °C; the cost is 2 more molecules of ATP per CO₂ fixed (ΔG ≈ 30.5 kJ·mol⁻¹ each).\n",
}
"""Written for this comparison."""


@dataclass(frozen=True, slots=True)
class Row:
    """One text: its bytes, and the tokens that each tokenizer makes of it."""

    name: str
    num_bytes: int
    num_tokens: Mapping[str, int]

    def __str__(self) -> str:
        ours = self.num_tokens["ours"]
        cells = [f"{self.name:<9}{self.num_bytes:>11,} bytes  ours {self.num_bytes / ours:5.2f}"]
        for name, tokens in self.num_tokens.items():
            if name != "ours":
                cells.append(f"{name} {self.num_bytes / tokens:5.2f} ({100 * (tokens - ours) / tokens:+5.1f} %)")
        return "  ".join(cells)


def run(places: Places) -> Facts:
    """Log the table for an experiment's tokenizer; return the bytes a token on its validation text, or on all."""
    bundle, _ = find_or_make(places)
    others = {name: found for name in OTHERS if (found := other(name, places.assets)) is not None}
    rows = [row(name, texts, bundle, others) for name, texts in samples(places)]
    log.info("bytes a token; in brackets how many fewer tokens ours makes")
    for each in rows:
        log.info("%s", each)
    last = rows[-1]
    facts: Facts = {"stage": "tokenizer", "state": "evaluated", "hash": bundle.hash[:8], "round_trip": "exact"}
    facts |= {f"{name}_bytes_per_token": f"{last.num_bytes / count:.3f}" for name, count in last.num_tokens.items()}
    return facts | {"on": last.name, "left_out": ",".join(sorted(set(OTHERS) - set(others))) or "none"}


def samples(places: Places) -> Iterator[tuple[str, list[str]]]:
    """Yield the fixed texts, then the beginning of each split that is there."""
    yield from ((name, [text]) for name, text in TEXTS.items())
    for split in SPLITS:
        folder = places.text(split)
        if (folder / MANIFEST).exists():
            documents, num_bytes = [], 0
            for shard in TextManifest.read(folder).shards:
                for text in read_documents(folder / shard.path):
                    documents.append(text)
                    num_bytes += len(text.encode())
                    if num_bytes > CORPUS_BYTES:
                        break
                if num_bytes > CORPUS_BYTES:
                    break
            if documents:
                yield split, documents


def row(name: str, texts: list[str], bundle: Bundle, others: Mapping[str, Bundle]) -> Row:
    """Return what each tokenizer makes of texts; raise `UserError` when ours does not give one back."""
    counts = {"ours": 0, **dict.fromkeys(others, 0)}
    for text in texts:
        tokens = bundle.encode(text)
        if bundle.decode(tokens.tolist()) != text:
            raise UserError(f"tokenizer {bundle.hash[:8]}: does not give {text[:40]!r} back; choose another vocabulary")
        counts["ours"] += len(tokens)
        for each, found in others.items():
            counts[each] += len(found.encode(text))
    return Row(name, sum(len(text.encode()) for text in texts), counts)


def other(name: str, assets: Path) -> Bundle | None:
    """Return a tokenizer to compare with, from tiktoken's cache or the network; None when neither has it."""
    import tiktoken

    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken"))
    cache, (encoding_name, files) = Path(os.environ["TIKTOKEN_CACHE_DIR"]), OTHERS[name]
    if OFFLINE_VARIABLE in os.environ and not all((cache / file).exists() for file in files):
        return None
    try:
        encoding = tiktoken.get_encoding(encoding_name)
    except (ValueError, OSError):
        return None
    # tiktoken keeps these to itself, and a bundle is made of nothing else.
    ranks = dict(encoding._mergeable_ranks)  # noqa: SLF001 - tiktoken has no public name
    return Bundle("bpe", encoding._pat_str, ranks, dict(encoding._special_tokens))  # noqa: SLF001 - likewise
