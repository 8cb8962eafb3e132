"""Vocabularies of other projects as bundles: `.tiktoken` files, and Hugging Face's `tokenizer.json` of byte-level BPE.

tiktoken merges the pair whose token has the lowest number first; Hugging Face merges in the order of a list. The two
agree when the list makes tokens in the order of their numbers, which is checked here, token by token.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from trainwright.spec.exits import UserError
from trainwright.tokens.bundle import CHAT_SPECIALS, GPT2_PATTERN, MAX_VOCABULARY_BYTES, Bundle, parse_vocabulary

SEPARATORS = ("<|bos|>", "<|begin_of_text|>", "<bos>", "<s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "</s>")
"""Special tokens that may start a document, best first."""
SAMPLES = (
    "Hello, world! It's 12345 o'clock; they'll say \"naïve café\"\n\n\tdef f(x):\n        return x**2  # 100%\r\n",
    "  two spaces,   three,\u00a0no-break, 中文字符, مرحبا, Ελληνικά, 🙂🙂🏽, e\u0301, ﬁ, \x00\x7f\u2028 end   ",
    "'S 'LL 'Re don't DON'T\n \n  \n\n x 1234567890 ___ ---- <|endoftext|> http://a.b/c?d=e&f=g",
)
"""Texts that must come back unchanged from an imported vocabulary."""


def read_tiktoken_file(path: Path, kind: str, pattern: str) -> Bundle:
    """Return a bundle of a vocabulary in tiktoken's text format, with the special tokens that go with its kind."""
    if path.stat().st_size > MAX_VOCABULARY_BYTES:
        raise UserError(f"{path}: larger than {MAX_VOCABULARY_BYTES >> 20} MiB; this is no vocabulary")
    ranks = parse_vocabulary(path.read_bytes(), str(path))
    names = ("<|endoftext|>",) if kind == "gpt2" else CHAT_SPECIALS
    first = 1 + max(ranks.values())
    specials = {name: first + index for index, name in enumerate(names)}
    return _round_trip(Bundle(kind, pattern, ranks, specials, {"source": path.name}), path)


def read_tokenizer_json(path: Path) -> Bundle:
    """Return a bundle that encodes as a Hugging Face `tokenizer.json` does; raise `UserError` when it cannot."""
    if path.stat().st_size > MAX_VOCABULARY_BYTES:
        raise UserError(f"{path}: larger than {MAX_VOCABULARY_BYTES >> 20} MiB; this is no vocabulary")
    try:
        tree = json.loads(path.read_bytes())
        problem = _problem(tree)
        if problem is None:
            specials = _specials(tree["added_tokens"])
            pattern = _pattern(tree["pre_tokenizer"])
            ranks = _ranks(tree["model"]["vocab"], specials)
            problem = _order_problem(tree["model"]["merges"], ranks)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a tokenizer.json ({type(error).__name__}: {error})") from None
    if problem is None and not (specials and pattern):
        problem = "has no special token to start a document" if pattern else "splits text in a way that is not read"
    if problem is not None:
        way = "only byte-level BPE without normalizer is read; give a bundle folder or a .tiktoken file"
        raise UserError(f"{path}: {problem}; {way}")
    assert pattern is not None
    kind = "gpt2" if pattern == GPT2_PATTERN and list(specials) == ["<|endoftext|>"] and len(ranks) == 50256 else "bpe"
    return _round_trip(Bundle(kind, pattern, ranks, specials, {"source": path.name}), path)


def _problem(tree: Mapping[str, Any]) -> str | None:
    """Return why a tokenizer does not encode as byte-level BPE alone does, or None."""
    model = tree["model"]
    if model.get("type", "BPE") != "BPE":
        return f"its model is {model['type']}"
    if tree.get("normalizer") is not None:
        return f"it normalizes text ({tree['normalizer'].get('type')}), so that text does not come back unchanged"
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            return f"its model has {name}={model[name]}"
    steps = _steps(tree["pre_tokenizer"])
    if not steps or steps[-1].get("type") != "ByteLevel":
        return "it is not byte-level"
    if any(step.get("add_prefix_space") for step in steps):
        return "it puts a space before the text (add_prefix_space), so that text does not come back unchanged"
    return None


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _pattern(pre_tokenizer: Mapping[str, Any]) -> str | None:
    """Return the pattern that splits text, or None when the splitting is not one pattern."""
    steps = _steps(pre_tokenizer)
    uses_own = steps[-1].get("use_regex", True)
    if len(steps) == 1:
        return GPT2_PATTERN if uses_own else None
    split = steps[0]
    plain = len(steps) == 2 and split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]
    pattern: str | None = split["pattern"].get("Regex") if plain and not uses_own else None
    return pattern


def _specials(added_tokens: list[Mapping[str, Any]]) -> dict[str, int]:
    """Return the special tokens, the one that starts a document first."""
    found = {token["content"]: int(token["id"]) for token in added_tokens}
    first = next((name for name in SEPARATORS if name in found), None)
    ordered = sorted(found.items(), key=lambda item: (item[0] != first, item[1]))
    return dict(ordered)


def _ranks(vocabulary: Mapping[str, int], specials: Mapping[str, int]) -> dict[bytes, int]:
    return {_token_bytes(token): int(rank) for token, rank in vocabulary.items() if token not in specials}


def _order_problem(merges: list[Any], ranks: Mapping[bytes, int]) -> str | None:
    """Return why merging by token number would differ from merging in the order of the list, or None."""
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        return f"byte {missing[0]} has no token, so that not every text can be encoded"
    if len(set(ranks.values())) != len(ranks):
        return "two of its tokens share a number"
    made, last = set(), -1
    for number, merge in enumerate(merges, 1):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        token = _token_bytes(left) + _token_bytes(right)
        if token not in ranks or ranks[token] <= last:
            return f"merge {number} does not make a token in the order of token numbers"
        last = ranks[token]
        made.add(token)
    loose = [token for token in ranks if len(token) > 1 and token not in made]
    return f"no merge makes its token {loose[0]!r}" if loose else None


def _token_bytes(token: str) -> bytes:
    return bytes(_byte_of()[character] for character in token)


@cache
def _byte_of() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (GPT-2's table).

    Printable characters of Latin-1 stand for themselves; the other bytes, in order, for U+0100 and what follows.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def _round_trip(bundle: Bundle, path: Path) -> Bundle:
    try:
        broken = [text for text in SAMPLES if bundle.decode(bundle.encode(text).tolist()) != text]
    except Exception as error:
        # tiktoken reports a pattern that it cannot read in several ways.
        raise UserError(f"{path}: tiktoken cannot use this vocabulary ({error})") from None
    if broken:
        raise UserError(f"{path}: text does not come back unchanged from it; this is no byte-level vocabulary")
    return bundle
