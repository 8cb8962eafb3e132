"""The tokenizer bundle: a folder that holds all there is to know about a tokenizer, as text, with a hash.

    vocabulary.tiktoken   one line a token: base64 of its bytes, a space, its rank
    bundle.json           kind, split pattern, special tokens, and how it was made
    manifest.json         sizes and hashes, written last

Encoding is tiktoken's, for every kind; the bundle needs no download and no pickle.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainwright.spec.canonical import sha256_json
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST
from trainwright.store.files import FileEntry, read_json, verify_entry, write_bytes, write_json
from trainwright.tokens.shards import Tokens, token_dtype

if TYPE_CHECKING:
    import tiktoken

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
"""GPT-4's split."""
GPT4_PATTERN = CL100K_PATTERN.replace("{1,3}", "{1,2}")
"""GPT-4's split with numbers cut into two digits at most, which suits vocabularies of about 32,768 better."""

CHAT_SPECIALS = tuple(
    f"<|{name}|>"
    for name in (
        "bos",
        "user_start",
        "user_end",
        "assistant_start",
        "assistant_end",
        "python_start",
        "python_end",
        "output_start",
        "output_end",
    )
)
"""Special tokens of the tokenizers made here; the first one starts every document."""

VOCABULARY = "vocabulary.tiktoken"
FACTS = "bundle.json"
MAX_VOCABULARY_BYTES = 64 << 20


@dataclass(frozen=True)
class Bundle:
    """A tokenizer. `ranks[i]` are the bytes of token i; special tokens follow them."""

    kind: str
    pattern: str
    ranks: Mapping[bytes, int] = field(repr=False)
    special_tokens: Mapping[str, int]
    made: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """How it was made: source, corpus hash, trainer and its version; not part of its identity."""

    @cached_property
    def vocab_size(self) -> int:
        """Return one more than the largest token id; cached, because every document asks."""
        return 1 + max(*self.ranks.values(), *self.special_tokens.values())

    @property
    def separator(self) -> int:
        """Return the token that starts every document."""
        return next(iter(self.special_tokens.values()))

    @cached_property
    def hash(self) -> str:
        """Return the identity: equal hashes encode every text to the same tokens."""
        vocabulary = sorted((rank, token.hex()) for token, rank in self.ranks.items())
        return sha256_json([self.pattern, vocabulary, sorted(self.special_tokens.items()), self.separator])

    @cached_property
    def encoding(self) -> "tiktoken.Encoding":
        """Return tiktoken's encoder for this vocabulary."""
        import tiktoken

        return tiktoken.Encoding(
            f"trainwright-{self.hash[:8]}",
            pat_str=self.pattern,
            mergeable_ranks=dict(self.ranks),
            special_tokens=dict(self.special_tokens),
        )

    def encode(self, text: str) -> Tokens:
        """Return the tokens of a text; special tokens spelled out in it are ordinary text, half a character is `?`."""
        data = text.encode("utf-8", errors="replace")
        if self.kind == "bytes":
            return np.frombuffer(data, dtype=np.uint8).astype(token_dtype(self.vocab_size))
        return self.encoding.encode_to_numpy(data.decode(), disallowed_special=()).astype(token_dtype(self.vocab_size))

    def encode_document(self, text: str) -> Tokens:
        """Return the separator and the tokens of one document."""
        head = np.array([self.separator], dtype=token_dtype(self.vocab_size))
        return np.concatenate([head, self.encode(text)])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; bytes that are no UTF-8 become the replacement character."""
        return self.encoding.decode([token for token in tokens if token < self.vocab_size])

    @cached_property
    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Return the length in bytes of every token, shape (vocab_size,); special tokens have none."""
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        for token, rank in self.ranks.items():
            lengths[rank] = len(token)
        return lengths

    def save(self, folder: Path) -> None:
        """Write the bundle; the manifest comes last, so a folder without it is no bundle."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "format": "tokenizer bundle 1",
            "kind": self.kind,
            "pattern": self.pattern,
            "special_tokens": dict(self.special_tokens),
            "vocab_size": self.vocab_size,
            "made": dict(self.made),
        }
        files = [write_bytes(folder / VOCABULARY, vocabulary_text(self.ranks)), write_json(folder / FACTS, facts)]
        write_json(folder / MANIFEST, {"hash": self.hash, "files": [asdict(entry) for entry in files]})

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle and verify every hash; raise `UserError` naming the file that is wrong."""
        try:
            manifest = read_json(folder / MANIFEST)
        except FileNotFoundError:
            raise UserError(f"{folder}: no tokenizer bundle here (no {MANIFEST}); run the tokenizer stage") from None
        try:
            entries = [FileEntry(**entry) for entry in manifest["files"]]
            wrong = [problem for entry in entries if (problem := verify_entry(folder, entry, hashes=True))]
            if wrong:
                raise UserError(f"{'; '.join(wrong)}; restore the bundle, or delete its folder to make it again")
            facts = read_json(folder / FACTS)
            ranks = parse_vocabulary((folder / VOCABULARY).read_bytes(), str(folder / VOCABULARY))
            bundle = cls(facts["kind"], facts["pattern"], ranks, facts["special_tokens"], facts["made"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder}: not a tokenizer bundle ({error})") from None
        if bundle.hash != manifest["hash"]:
            raise UserError(f"{folder}: its contents do not have the hash that its manifest names")
        return bundle


def vocabulary_text(ranks: Mapping[bytes, int]) -> bytes:
    """Return a vocabulary in tiktoken's text format, in order of rank."""
    lines = sorted((rank, base64.b64encode(token)) for token, rank in ranks.items())
    return b"".join(token + b" %d\n" % rank for rank, token in lines)


def parse_vocabulary(data: bytes, where: str) -> dict[bytes, int]:
    """Return token bytes -> rank from tiktoken's text format; raise `UserError` naming the line that is wrong."""
    if len(data) > MAX_VOCABULARY_BYTES:
        raise UserError(f"{where}: larger than {MAX_VOCABULARY_BYTES >> 20} MiB; this is no vocabulary")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(f"{where}:{number}: expected base64 and a rank, as tiktoken writes them") from None
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing or len(set(ranks.values())) != len(ranks):
        what = f"byte {missing[0]} has no token" if missing else "two tokens share a rank"
        raise UserError(f"{where}: {what}; this vocabulary cannot encode every text")
    if min(ranks.values()) < 0 or max(ranks.values()) > 2 * len(ranks):
        raise UserError(f"{where}: has {len(ranks)} tokens, but ranks up to {max(ranks.values())}; count them from 0")
    return ranks


def bytes_bundle() -> Bundle:
    """Return the tokenizer whose tokens are the 256 bytes."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    specials = {name: 256 + index for index, name in enumerate(CHAT_SPECIALS)}
    return Bundle("bytes", r"[\s\S]", ranks, specials, {"source": "bytes"})
