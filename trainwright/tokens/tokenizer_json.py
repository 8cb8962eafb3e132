"""A tokenizer bundle as Hugging Face's `tokenizer.json`: the same tokens from `transformers` as from tiktoken here."""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainwright.store.files import FileEntry, write_json
from trainwright.tokens.bundle import GPT2_PATTERN, Bundle

PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""Bytes that stand for themselves in byte-level vocabularies; the others stand at U+0100 and after, in order."""


def write_tokenizer_json(folder: Path, bundle: Bundle, context_tokens: int) -> list[FileEntry]:
    """Write `tokenizer.json` and `tokenizer_config.json` into a folder."""
    name = next(iter(bundle.special_tokens))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name,
        "eos_token": name,
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
    }
    whole = write_json(folder / "tokenizer.json", tokenizer_tree(bundle))
    return [whole, write_json(folder / "tokenizer_config.json", config)]


def tokenizer_tree(bundle: Bundle) -> dict[str, Any]:
    """Return the whole of `tokenizer.json`. A text is given the separator first, as documents are in training."""
    characters = _characters()
    merges = [[_spelled(part, characters) for part in pair] for pair in merged_pairs(bundle.ranks)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    specials = sorted(bundle.special_tokens.items(), key=lambda item: item[1])
    first = next(iter(bundle.special_tokens))
    start = [{"SpecialToken": {"id": first, "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": rank, "content": name, **flags, "special": True} for name, rank in specials],
        "normalizer": None,
        "pre_tokenizer": _splitting(bundle.pattern),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*start, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [*start, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {first: {"id": first, "ids": [bundle.separator], "tokens": [first]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # tiktoken takes a piece that is a token as it is, without merging.
            "ignore_merges": True,
            # With their numbers in the vocabulary special tokens keep them, whatever comes before.
            "vocab": {**spelled_vocabulary(bundle), **dict(specials)},
            "merges": merges,
        },
    }


def spelled_vocabulary(bundle: Bundle) -> dict[str, int]:
    """Return the numbers of the tokens that are text, spelled as byte-level vocabularies spell them."""
    characters = _characters()
    return {_spelled(token, characters): rank for token, rank in bundle.ranks.items()}


def _splitting(pattern: str) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if pattern == GPT2_PATTERN:
        return {**level, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": _portable(pattern)}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**level, "use_regex": False}]}


def _portable(pattern: str) -> str:
    r"""Return a pattern for Hugging Face's regular expressions, which read two things otherwise.

    There `$` is the end of any line, and `{1,2}+` repeats the whole. What is possessive here is followed by what it
    could not have taken anyway, so that greedy repetition finds the same.
    """
    return re.sub(r"(?<!\\)\$", r"\\z", re.sub(r"(?<!\\)([+*?}])\+", r"\1", pattern))


def merged_pairs(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return the pair that makes each token of more than one byte, in the order of tokens.

    It is found by encoding the token with the tokens before it; one that is never made of two is left out.
    """
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _parts_before(token, rank, ranks)
            if len(parts) == 2:
                pairs.append((parts[0], parts[1]))
    return pairs


def _parts_before(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        found = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
        best = min(found)
        if best >= rank:
            break
        at = found.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _characters() -> dict[int, str]:
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    return {byte: chr(byte) for byte in PRINTABLE} | {byte: chr(0x100 + at) for at, byte in enumerate(others)}


def _spelled(token: bytes, characters: Mapping[int, str]) -> str:
    return "".join(characters[byte] for byte in token)
