"""Settings of the corpus, its source and its tokenizer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from trainwright.spec.presets import PRESETS, HubPlace, PresetName
from trainwright.spec.settings import Count, CountOrZero, Off, OptionalCount, OptionalName, OptionalPositive
from trainwright.spec.settings import OptionalText, Problem, Settings, Share, Whole

Compression = Literal["zstd", "gzip", "none"]
"""How text shards are compressed."""
STREAMED_DOCUMENTS = 100_000
"""Up to this many documents are streamed from the hub unless asked otherwise: whole files would be much more."""


class LimitedSource(Settings):
    """What every source can be asked to leave out at its end."""

    take: OptionalCount = None
    """Read at most this many documents; null reads to the end."""
    max_bytes: OptionalCount = None
    """Read at most this many bytes of text, in whole documents; null reads to the end."""


class StdlibSource(LimitedSource):
    """The text of Python's own standard library on this machine, without its `test` folders. No download."""

    kind: Literal["stdlib"] = "stdlib"


class TextSource(LimitedSource):
    """Plain text files below `data.path` (`.txt`, `.txt.gz`, `.txt.zst`)."""

    kind: Literal["text"] = "text"
    document: Literal["line", "blank_line", "file"] = "blank_line"
    """What one document is: a line, a paragraph up to a blank line, or a whole file."""


class JsonlSource(LimitedSource):
    """JSON Lines files below `data.path` (`.jsonl`, `.jsonl.gz`, `.jsonl.zst`), one object a line."""

    kind: Literal["jsonl"] = "jsonl"
    field: OptionalText = None
    """The key that holds the text; by default `text`, else `content`."""
    max_bad_share: Share = 0.001
    """Bad lines (no JSON object, or no text) are dropped and counted; more than this share of a corpus is an error."""


class ParquetSource(LimitedSource):
    """Parquet files below `data.path`."""

    kind: Literal["parquet"] = "parquet"
    column: OptionalText = None
    """The column that holds the text; by default `text`, else `content`."""


class _HubFiles(LimitedSource):
    """What every data set of the Hugging Face hub can be asked."""

    split: str = "train"
    """The split to read, of data sets that are read by `config`."""
    revision: OptionalText = None
    """A commit, branch or tag of the data set; by default the newest commit, resolved once and recorded."""
    column: OptionalText = None
    """The column or key that holds the text; by default `text`, else `content`."""
    num_files: OptionalCount = None
    """Read only this many of the files, from the first on."""
    max_bad_share: Share = 0.001
    """Bad JSON lines are dropped and counted; more than this share of a corpus is an error."""
    download: Annotated[bool | None, Off] = None
    """Download files whole and verify them (true), or stream them (false); null streams up to 100,000 documents."""

    @property
    def downloads(self) -> bool:
        """Return whether files are downloaded whole."""
        return self.download if self.download is not None else self.take is None or self.take > STREAMED_DOCUMENTS


class FinewebSource(_HubFiles):
    """FineWeb from the Hugging Face hub: downloaded file by file and verified, or streamed."""

    kind: Literal["fineweb"] = "fineweb"
    dataset: str = "HuggingFaceFW/fineweb"
    """The data set's name on the hub."""
    config: str = "sample-10BT"
    """The data set's configuration."""

    @property
    def place(self) -> HubPlace:
        """Return what is read on the hub."""
        return HubPlace(self.dataset, self.config)


class HubSource(_HubFiles):
    """Any data set of the Hugging Face hub, by a preset, by its configuration or by patterns of file names."""

    kind: Literal["hub"] = "hub"
    preset: Annotated[PresetName | None, Off] = None
    """A data set that is known here; what is given below replaces its values."""
    dataset: OptionalText = None
    """The data set's name on the hub, such as HuggingFaceFW/fineweb-edu."""
    config: OptionalText = None
    """The data set's configuration; null takes its default."""
    files: OptionalText = None
    """Read the files whose path in the repository matches this pattern (`*` matches `/` too), in sorted order."""
    validation_files: OptionalText = None
    """Files, by the same kind of pattern, that are for validation and left out of training."""

    @property
    def place(self) -> HubPlace:
        """Return what is read on the hub."""
        given = {name: getattr(self, name) for name in ("dataset", "config", "files", "validation_files")}
        known = PRESETS[self.preset] if self.preset is not None else HubPlace("")
        return replace(known, **{name: value for name, value in given.items() if value is not None})

    def problems(self) -> Iterator[Problem]:
        """Check that a data set is named, and that pinned validation has files to be left out of."""
        if self.preset is None and self.dataset is None:
            yield Problem("dataset", None, f"name a data set of the hub, or a preset: {', '.join(PRESETS)}")
        if self.place.validation_files is not None and self.place.files is None:
            yield Problem("files", None, "validation_files needs the pattern of the other files beside it")


class S3Source(LimitedSource):
    """Files below a prefix of an S3 bucket: `.jsonl`, `.parquet` and `.txt`, plain or compressed."""

    kind: Literal["s3"] = "s3"
    prefix: str = Field(default="s3://bucket/prefix", pattern=r"^s3://[^/]+(/.*)?$")
    """The bucket and the start of the keys: s3://bucket/prefix. Credentials and endpoint as boto3 finds them."""
    column: OptionalText = None
    """The column or key that holds the text; by default `text`, else `content`."""
    document: Literal["line", "blank_line", "file"] = "line"
    """What one document of a text file is."""
    max_bad_share: Share = 0.001
    """Bad JSON lines are dropped and counted; more than this share of a corpus is an error."""


Source = Annotated[
    StdlibSource | TextSource | JsonlSource | ParquetSource | FinewebSource | HubSource | S3Source,
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
    compression: Compression = "zstd"
    """How text shards are compressed: `.jsonl.zst`, `.jsonl.gz` or plain `.jsonl`."""
    shuffle_documents: bool = False
    """Put the documents into an order that seed and contents decide, before they become shards."""
    memory_mib: Annotated[int, Field(ge=16, le=1 << 20), Whole] = 512
    """Memory for text while documents are shuffled, in each process."""
    disk_reserve_gib: OptionalPositive = None
    """Stop reading while this much of the disk is still free; what is written by then is used. Not with a shuffle."""
    work: OptionalText = None
    """The folder of unfinished work, on every machine the same; null keeps it beside the shards."""
    temporary: OptionalText = None
    """The folder of downloads, which may be a machine's own; null keeps them with the unfinished work."""
    remove_work_files: bool = False
    """Empty `work` when the shards are complete and the hash of each was verified."""
    shuffle_group_tokens: OptionalCount = None
    """Shuffle windows within groups of shards of about this many tokens; null makes the whole corpus one group."""
    max_epochs: OptionalCount = None
    """Epochs that a run may read; one that needs more is refused at its start. Null repeats the corpus without end."""
    encoder: Literal["fastest", "tiktoken"] = "fastest"
    """What encodes: the fastest that gives tiktoken's very tokens, or tiktoken itself. The shards are the same."""
    workers: CountOrZero = 0
    """Processes that shard and tokenize; 0 takes one for each processor."""

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
        if self.disk_reserve_gib is not None and self.shuffle_documents:
            hint = "a shuffle needs the whole corpus before it writes a shard; use data.source.take or max_bytes"
            yield Problem("disk_reserve_gib", self.disk_reserve_gib, hint)
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
    pattern: Literal["gpt4", "cl100k", "gpt2"] = "gpt4"
    """How text is split before merging: as GPT-4 does with two digits a token, as GPT-4 does, or as GPT-2 does."""
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
