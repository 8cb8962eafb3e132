"""Settings of the corpus, its source and its tokenizer."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainwright.spec.settings import Count, CountOrZero, OptionalCount, OptionalName, OptionalText, Problem, Settings
from trainwright.spec.settings import Share


class StdlibSource(Settings):
    """The text of Python's own standard library on this machine, without its `test` folders. No download."""

    kind: Literal["stdlib"] = "stdlib"


class TextSource(Settings):
    """Plain text files below `data.path` (`.txt`, `.txt.gz`, `.txt.zst`)."""

    kind: Literal["text"] = "text"
    document: Literal["line", "blank_line", "file"] = "blank_line"
    """What one document is: a line, a paragraph up to a blank line, or a whole file."""


class JsonlSource(Settings):
    """JSON Lines files below `data.path` (`.jsonl`, `.jsonl.gz`, `.jsonl.zst`), one object a line."""

    kind: Literal["jsonl"] = "jsonl"
    field: OptionalText = None
    """The key that holds the text; by default `text`, else `content`."""
    max_bad_share: Share = 0.001
    """Bad lines (no JSON object, or no text) are dropped and counted; more than this share of a corpus is an error."""


class ParquetSource(Settings):
    """Parquet files below `data.path`."""

    kind: Literal["parquet"] = "parquet"
    column: OptionalText = None
    """The column that holds the text; by default `text`, else `content`."""


class FinewebSource(Settings):
    """FineWeb, streamed from the Hugging Face hub by the `datasets` library."""

    kind: Literal["fineweb"] = "fineweb"
    dataset: str = "HuggingFaceFW/fineweb"
    """The data set's name on the hub."""
    config: str = "sample-10BT"
    """The data set's configuration."""
    split: str = "train"
    """The split to read."""
    revision: OptionalText = None
    """A commit of the data set; by default the newest, resolved once and recorded."""
    column: OptionalText = None
    """The column that holds the text; by default `text`, else `content`."""
    take: OptionalCount = None
    """Read at most this many documents; null reads the split to its end."""


Source = Annotated[
    StdlibSource | TextSource | JsonlSource | ParquetSource | FinewebSource,
    Field(discriminator="kind"),
]


class Data(Settings):
    """The corpus: where text comes from and how it is cut into shards, windows and an order."""

    name: OptionalName = None
    """The corpus's folder below `datasets/`; by default the experiment's name. Experiments may share one."""
    source: Source = StdlibSource()
    """Where the documents come from."""
    path: OptionalText = None
    """A file, or a folder that is read in sorted order, for the sources that read local files."""
    validation: OptionalText = None
    """A separate corpus for validation, read as `path` is; null takes `validation_fraction` of the documents."""
    validation_fraction: Share = 0.05
    """Documents that go to validation, chosen by a hash of seed and content, so that no order or restart changes it."""
    shard: bool = True
    """Write text shards from the source (once); false uses the shards that lie in the corpus's folders."""
    reuse_shards: bool = False
    """Accept the text shards that are there, whatever they were made from; files placed by hand are adopted."""
    documents_per_shard: Count = 250_000
    """Documents in one text shard."""
    shuffle_group_tokens: OptionalCount = None
    """Shuffle windows within groups of shards of about this many tokens; null makes the whole corpus one group."""
    workers: CountOrZero = 0
    """Processes that tokenize; 0 takes one for each processor."""

    def problems(self) -> Iterator[Problem]:
        """Check that the sources that read files are told which."""
        reads_files = self.source.kind in ("text", "jsonl", "parquet")
        if self.shard and reads_files and self.path is None:
            hint = f"the source {self.source.kind} reads local files; give a file or a folder"
            yield Problem("path", None, hint)
        if not reads_files and self.path is not None:
            hint = f"the source {self.source.kind} reads no local files; leave it out, or use text, jsonl or parquet"
            yield Problem("path", self.path, hint)
        if self.validation is not None and not reads_files:
            yield Problem("validation", self.validation, f"the source {self.source.kind} reads no local files")
        if self.shard and self.validation is None and not 0 < self.validation_fraction < 1:
            hint = "without a separate data.validation it must lie between 0 and 1; try 0.01"
            yield Problem("validation_fraction", self.validation_fraction, hint)


class BpeTokenizer(Settings):
    """Byte-pair encoding trained on this corpus."""

    kind: Literal["bpe"] = "bpe"
    name: OptionalName = None
    """The bundle's folder below `artifacts/tokenizer/`; by default the experiment's name."""
    path: OptionalText = None
    """A bundle to use instead of training: a bundle folder, a `tokenizer.json`, or a `.tiktoken` file."""
    vocab_size: Count = 32_768
    """Entries of the vocabulary, special tokens included."""
    pattern: Literal["gpt4", "gpt2"] = "gpt4"
    """How text is split before merging."""
    max_train_bytes: Count = 2_000_000_000
    """Text read to train the merges."""

    def problems(self) -> Iterator[Problem]:
        """Check that every byte and every special token has a place."""
        if self.vocab_size < 256 + 9 + 1:
            yield Problem("vocab_size", self.vocab_size, "256 bytes and 9 special tokens need at least 266")

    @property
    def max_vocab_size(self) -> int:
        """Entries that a model must be able to hold."""
        return self.vocab_size


class Gpt2Tokenizer(Settings):
    """GPT-2's vocabulary, read by tiktoken from its cache folder (`TIKTOKEN_CACHE_DIR`, else `assets/tiktoken`)."""

    kind: Literal["gpt2"] = "gpt2"
    name: OptionalName = None
    """The bundle's folder below `artifacts/tokenizer/`; by default the experiment's name."""
    path: OptionalText = None
    """A bundle folder or a `gpt2.tiktoken` file to use instead of the cache."""

    @property
    def max_vocab_size(self) -> int:
        """Entries that a model must be able to hold."""
        return 50_257


class BytesTokenizer(Settings):
    """One token a byte, and one that starts a document."""

    kind: Literal["bytes"] = "bytes"
    name: OptionalName = None
    """The bundle's folder below `artifacts/tokenizer/`; by default the experiment's name."""
    path: OptionalText = None
    """A bundle folder to use instead of making one."""

    @property
    def max_vocab_size(self) -> int:
        """Entries that a model must be able to hold."""
        return 256 + 9


Tokenizer = Annotated[BpeTokenizer | Gpt2Tokenizer | BytesTokenizer, Field(discriminator="kind")]
