"""The source `s3`: files below a prefix of a bucket, downloaded one by one and held against their listed size."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharder.sources.corpus import ANOTHER_KIND, EMPTY_FILE, InputFile, Request, Row
from sharder.sources.remote import READ_ENDINGS, local_name, remote_rows, wrong
from trainwright.spec.canonical import sha256_json
from trainwright.spec.data import S3Source
from trainwright.spec.exits import MissingError, UserError
from trainwright.store.files import CHUNK_BYTES, fsync_file
from trainwright.store.text_shards import Drops

ATTEMPTS = 6
"""Of each request, by boto3's own rules."""


@dataclass(frozen=True, slots=True)
class S3Corpus:
    """The objects of a prefix; their keys and tags say whether they are still the same."""

    settings: S3Source
    files: tuple[InputFile, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Return a hash of keys, sizes and entity tags."""
        return {"data.files": sha256_json([[file.name, file.bytes, file.checksum] for file in self.files])}

    def fetch(self, file: InputFile, temporary: Path) -> None:
        """Download an object, unless it is here."""
        target = local_name(file, temporary)
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name("part")
        bucket, _ = _place(self.settings.prefix)
        with _explained(self.settings.prefix):
            # The tag is asked for: an object that was written anew since the listing is refused by the server.
            body = _client().get_object(Bucket=bucket, Key=file.name, IfMatch=_tag(file))["Body"]
            with part.open("wb") as writing:
                shutil.copyfileobj(body, writing, CHUNK_BYTES)
        if problem := wrong(part, file):
            raise MissingError(f"s3://{bucket}/{file.name}: {problem}; run again")
        fsync_file(part)
        part.replace(target)

    def release(self, file: InputFile, temporary: Path) -> None:
        """Delete the copy of an object."""
        shutil.rmtree(local_name(file, temporary).parent, ignore_errors=True)

    def rows(self, file: InputFile, start: int, temporary: Path) -> Iterator[Row]:
        """Yield the rows of an object from row `start` on."""
        return remote_rows(local_name(file, temporary), self.settings.column, self.settings.document, start)


def open_s3(request: Request) -> S3Corpus:
    """Return the objects below the prefix that are read here, in the order of their keys."""
    settings = request.settings
    assert isinstance(settings, S3Source)
    bucket, prefix = _place(settings.prefix)
    with _explained(settings.prefix):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        listed = [entry for page in pages for entry in page.get("Contents", [])]
    files, left_out = [], Drops()
    for entry in sorted(listed, key=lambda entry: str(entry["Key"])):
        if not entry["Key"].endswith(READ_ENDINGS):
            # A key that ends in / stands for a folder.
            left_out[ANOTHER_KIND] += not entry["Key"].endswith("/")
        elif not entry["Size"]:
            left_out[EMPTY_FILE] += 1
        else:
            files.append(InputFile(entry["Key"], entry["Size"], f"etag:{entry['ETag']}"))
    if not files:
        raise UserError(f"data.source.prefix={settings.prefix}: nothing there ends in {' '.join(READ_ENDINGS)}")
    return S3Corpus(settings, tuple(files), +left_out)


def _place(prefix: str) -> tuple[str, str]:
    bucket, _, rest = prefix.removeprefix("s3://").partition("/")
    return bucket, rest


def _tag(file: InputFile) -> str:
    return (file.checksum or "").removeprefix("etag:")


def _client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(retries={"max_attempts": ATTEMPTS, "mode": "standard"}))


@contextmanager
def _explained(prefix: str) -> Iterator[None]:
    """Turn what boto3 raises for a missing bucket, key or network into one sentence."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise MissingError("data.source.kind=s3: needs boto3; pip install 'trainwright[s3]'") from None
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        way = "check the prefix, the credentials (AWS_ACCESS_KEY_ID or a profile) and AWS_ENDPOINT_URL, then run again"
        raise MissingError(f"data.source.prefix={prefix}: {error}; {way}") from None
