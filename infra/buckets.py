"""Places that files are copied between: a folder, an S3 bucket, or a network volume at RunPod through its S3 door."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from infra.runpod import cloud
from infra.runpod.client import connect
from trainwright.spec.exits import MissingError, UserError
from trainwright.store.files import atomic_writer

VOLUME = "volume:"
ACCESS_VARIABLE, SECRET_VARIABLE = "RUNPOD_S3_ACCESS_KEY", "RUNPOD_S3_SECRET_KEY"
ENDPOINT_VARIABLE = "RUNPOD_S3_URL"
TRIES_VARIABLE = "AWS_MAX_ATTEMPTS"
"""Boto3's own; without it ten, as RunPod advises for its busy doors."""
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as a listing shows it."""

    num_bytes: int
    stamp: str
    """Changes with the content: a time, or what the server calls an entity tag."""


class Place(Protocol):
    """Where files lie; names are relative, with forward slashes."""

    def files(self) -> dict[str, Seen]:
        """Return every file."""

    def reading(self, name: str) -> Any:
        """Return a context manager with the file's bytes as a stream."""

    def write(self, name: str, stream: BinaryIO) -> None:
        """Write a file, whole or not at all."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine."""

    path: Path

    def files(self) -> dict[str, Seen]:
        """Return every file; links lead out of a folder and are left out."""
        found = (path for path in self.path.rglob("*") if path.is_file() and not path.is_symlink())
        return {
            path.relative_to(self.path).as_posix(): Seen(status.st_size, str(status.st_mtime_ns))
            for path in found
            for status in (path.stat(),)
        }

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """Open a file."""
        with (self.path / name).open("rb") as file:
            yield file

    def write(self, name: str, stream: BinaryIO) -> None:
        """Write a file under a temporary name, then rename it."""
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise UserError(f"{name}: leads out of {self.path}; such a name is not written")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path) as file:
            while chunk := stream.read(CHUNK_BYTES):
                file.write(chunk)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A part of a bucket."""

    client: Any
    bucket: str
    prefix: str

    def files(self) -> dict[str, Seen]:
        """Return every object below the prefix; a name that ends in a slash stands for a folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        objects = [one for page in pages for one in page.get("Contents", ())]
        return {
            one["Key"][len(self.prefix) :]: Seen(one["Size"], str(one.get("ETag") or one.get("LastModified")))
            for one in objects
            if not one["Key"].endswith("/")
        }

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """Open an object."""
        body: Any = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"]
        try:
            yield body
        finally:
            body.close()

    def write(self, name: str, stream: BinaryIO) -> None:
        """Upload an object, large ones in parts; it appears when it is whole."""
        self.client.upload_fileobj(stream, self.bucket, self.prefix + name)


def place(text: str, environ: Mapping[str, str] = os.environ) -> Place:
    """Return the place that a word names: `s3://BUCKET/PREFIX`, `volume:NAME/PATH`, or a folder."""
    if text.startswith("s3://"):
        parts = urlsplit(text)
        if not parts.netloc:
            raise UserError(f"{text}: names no bucket; expected s3://BUCKET/PREFIX")
        return Bucket(s3_client(), parts.netloc, _prefix(parts.path))
    if text.startswith(VOLUME):
        return _volume(text.removeprefix(VOLUME), environ)
    if ":" in text.split("/", maxsplit=1)[0]:
        raise UserError(f"{text}: expected a folder, s3://BUCKET/PREFIX or volume:NAME/PATH")
    return Folder(Path(text))


def _volume(text: str, environ: Mapping[str, str]) -> Bucket:
    """Return a network volume as its bucket; no pod has to run."""
    name, _, path = text.partition("/")
    if missing := [one for one in (ACCESS_VARIABLE, SECRET_VARIABLE) if not environ.get(one)]:
        way = "RunPod makes an S3 key under Settings, S3 API Keys; it is not the API key"
        raise MissingError(f"{' and '.join(missing)}: not set; {way}")
    volume = cloud.find_volume(connect(environ), name)
    center = volume.data_center.lower()
    client = s3_client(
        endpoint_url=environ.get(ENDPOINT_VARIABLE) or f"https://s3api-{center}.runpod.io",
        region_name=volume.data_center,
        aws_access_key_id=environ[ACCESS_VARIABLE],
        aws_secret_access_key=environ[SECRET_VARIABLE],
    )
    return Bucket(client, volume.id, _prefix(path))


def _prefix(path: str) -> str:
    inner = path.strip("/")
    return f"{inner}/" if inner else ""


def s3_client(**given: Any) -> Any:
    """Return a client of S3; what is not given comes from boto3's own places (environment, ~/.aws)."""
    import boto3
    from botocore.config import Config

    # Checksums of the newest kind are unknown to most servers but Amazon's; ours is taken over what is read back.
    config = Config(
        retries={"mode": "standard"} if os.environ.get(TRIES_VARIABLE) else {"mode": "standard", "max_attempts": 10},
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", config=config, **given)


def explaining(work: Callable[[], int]) -> int:
    """Do work with S3, and say in a sentence what it refuses."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return work()
    except ClientError as error:
        said = error.response.get("Error", {})
        words = f"{said.get('Code', '')}: {said.get('Message', '')}"
        raise UserError(f"S3 refuses {error.operation_name} ({words}); check the names and the key") from None
    except (BotoCoreError, Boto3Error) as error:
        raise MissingError(f"S3: {error}; run the same command again, it goes on where it stopped") from None
