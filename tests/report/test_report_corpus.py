from pathlib import Path

import numpy as np
import pytest
from made_run import make_bundle

from report import corpus
from report.corpus import measure_compression
from trainwright.spec.exits import UserError
from trainwright.tokens.bundle import Bundle, bytes_bundle
from trainwright.tokens.shards import TokenManifest, write_shard


def shards(folder: Path, bundle: Bundle, *documents: str) -> TokenManifest:
    pieces = [bundle.encode_document(document) for document in documents]
    entry = write_shard(folder / "val_00000.bin", pieces, bundle.vocab_size, len(documents))
    return TokenManifest(bundle.hash, bundle.vocab_size, bundle.separator, "0" * 64, True, (entry,))


def test_compression_counts_bytes_of_text_and_every_token(tmp_path: Path) -> None:
    manifest = shards(tmp_path, bytes_bundle(), "naïve", "ab")
    compression = measure_compression(tmp_path, manifest, bytes_bundle())
    # 6 bytes and 2 bytes of text in 6 + 2 tokens, and a separator before each document.
    assert (compression.bytes_per_token, compression.num_tokens) == (8 / 10, 10)


def test_merged_tokens_count_for_all_their_bytes(tmp_path: Path) -> None:
    bundle = make_bundle()
    manifest = shards(tmp_path, bundle, " return self")
    compression = measure_compression(tmp_path, manifest, bundle)
    assert (compression.bytes_per_token, compression.num_tokens) == (12 / 3, 3)


def test_compression_reads_a_bounded_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "SAMPLE_TOKENS", 3)
    manifest = shards(tmp_path, bytes_bundle(), "abcdef")
    compression = measure_compression(tmp_path, manifest, bytes_bundle())
    assert (compression.bytes_per_token, compression.num_tokens) == (2 / 3, 3)


def test_tokens_of_another_tokenizer_are_not_measured(tmp_path: Path) -> None:
    manifest = shards(tmp_path, bytes_bundle(), "abc")
    with pytest.raises(UserError, match="another tokenizer"):
        measure_compression(tmp_path, manifest, make_bundle())


def test_tokens_outside_the_vocabulary_are_not_measured(tmp_path: Path) -> None:
    manifest = shards(tmp_path, bytes_bundle(), "abc")
    data = bytearray((tmp_path / "val_00000.bin").read_bytes())
    data[-2:] = np.array([60_000], dtype="<u2").tobytes()
    (tmp_path / "val_00000.bin").write_bytes(data)
    with pytest.raises(UserError, match="no tokens of this vocabulary"):
        measure_compression(tmp_path, manifest, bytes_bundle())
