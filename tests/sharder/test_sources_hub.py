from collections.abc import Callable
from dataclasses import replace
import json
import os
from pathlib import Path
import subprocess
import sys
import time

import pytest
import zstandard

from hub import CARD, NEW, OLD, Dataset, Hub, Running, parquet_bytes
from made_corpus import (
    REPOSITORY,
    digest,
    documents,
    environment,
    experiment_file,
    facts,
    made_documents,
    num_slices,
    sharder,
    start,
    wait_until,
)
from sharder.sources import hub as module
from sharder.sources.corpus import Request
from sharder.sources.hub import COMMIT, HubCorpus, open_hub
from trainwright.spec.data import FinewebSource, HubSource
from trainwright.spec.exits import MissingError, UserError
from trainwright.store.text_shards import TextManifest, read_documents

FINEWEB = ("data.source.kind=fineweb", "data.name=web", "data.documents_per_shard=50")
FEWER = "data.documents_per_shard=500"
BOTH = made_documents(120)
FILE = "10BT/000_00000.parquet"


def shard(tmp_path: Path, hub: Running, *overrides: str, **variables: str) -> subprocess.CompletedProcess[str]:
    words = ("shard", str(experiment_file(tmp_path)), *FINEWEB, *overrides)
    return sharder(tmp_path, *words, HF_ENDPOINT=hub.url, **variables)


def texts(tmp_path: Path) -> list[str]:
    folders = [tmp_path / "datasets" / split / "web" for split in ("train", "val")]
    found = [(folder, shard) for folder in folders for shard in TextManifest.read(folder).shards]
    return [text for folder, shard in found for text in read_documents(folder / shard.path)]


def asked_for(hub: Running, end: str) -> int:
    return sum(command == "GET" and path.endswith(end) for command, path, _ in hub.hub.requests)


@pytest.fixture
def here(tmp_path: Path, hub: Running, monkeypatch: pytest.MonkeyPatch) -> Callable[..., HubCorpus]:
    """Open sources of the hub in this process; the libraries have read the endpoint when they were imported."""
    import huggingface_hub.constants
    import huggingface_hub.hf_api

    for name in ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)

    def opened(*, validation: bool = False, **settings: object) -> HubCorpus:
        source = HubSource(**{"dataset": "HuggingFaceFW/fineweb", "files": "sample/10BT/*.parquet", **settings})
        return open_hub(Request(source, None, "data.path", tmp_path / "cache", {}, validation))

    return opened


# --- through the real libraries, as a real process -------------------------------------------------------------------


@pytest.mark.slow
def test_files_are_downloaded_at_the_newest_commit_and_a_later_run_stays_with_it(tmp_path: Path, hub: Running) -> None:
    done = shard(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert sorted(texts(tmp_path)) == sorted(BOTH)
    folder = tmp_path / "datasets" / "train" / "web"
    manifest = TextManifest.read(folder)
    assert manifest.inputs[COMMIT] == NEW
    assert manifest.drops == {"no text": 1, "empty": 1}
    assert (tmp_path / "hf_cache").is_dir()
    assert not (folder / ".work").exists()
    assert asked_for(hub, FILE) == 1

    # The data set moves on: what is finished asks the hub nothing, what is not goes on at its own commit.
    whole = digest(tmp_path / "datasets")
    dataset = hub.hub.datasets["HuggingFaceFW/fineweb"]
    dataset.commits["c" * 40] = dataset.commits[OLD]
    hub.hub.requests.clear()
    assert facts(shard(tmp_path, hub).stdout)["state"] == "already"
    assert hub.hub.requests == []
    replace(manifest, complete=False, shards=manifest.shards[:1]).write(folder)
    again = shard(tmp_path, hub)
    assert facts(again.stdout)["state"] == "written", again.stderr
    assert digest(tmp_path / "datasets") == whole


@pytest.mark.slow
def test_a_broken_network_changes_nothing_but_the_time(tmp_path: Path, hub: Running) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    assert shard(whole, hub).returncode == 0
    hub.hub.faults = {FILE: ["429", "503", "cut", "wrong"], "001_00000.parquet": ["wrong", "cut"]}
    done = shard(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "datasets") == digest(whole / "datasets")
    assert "does not have the sha256 that its data set lists" in done.stderr
    assert not any(hub.hub.faults.values())


@pytest.mark.slow
def test_a_killed_download_goes_on_with_what_is_missing_only(tmp_path: Path, hub: Running) -> None:
    files = hub.hub.datasets["HuggingFaceFW/fineweb"].commits[NEW]
    # Files that do not compress are pieces of their own.
    for number in range(3):
        noise = [os.urandom(300).hex() for _ in range(3000)]
        files[f"sample/10BT/00{number}_00000.parquet"] = parquet_bytes(noise)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert shard(whole, hub, FEWER).returncode == 0
    hub.hub.requests.clear()
    words = ("shard", str(experiment_file(tmp_path)), *FINEWEB, FEWER)
    process = start(tmp_path, *words, HF_ENDPOINT=hub.url)
    work = tmp_path / "datasets" / "train" / "web" / ".work"
    assert wait_until(lambda: num_slices(work / "00001") >= 2, process)
    process.kill()
    process.communicate()
    assert num_slices(work / "00000") > 0
    hub.hub.requests.clear()
    done = shard(tmp_path, hub, FEWER)
    assert done.returncode == 0, done.stderr
    assert asked_for(hub, FILE) == 0, "the first file was done"
    assert digest(tmp_path / "datasets") == digest(whole / "datasets")


@pytest.mark.slow
def test_a_gated_data_set_wants_a_token_which_is_never_shown(tmp_path: Path, hub: Running) -> None:
    hub.hub.datasets["HuggingFaceFW/fineweb"].token = "hf_secret"
    without = shard(tmp_path, hub)
    assert (without.returncode, without.stdout) == (69, "")
    assert "the hub, or not open to us (no token is set in HUGGINGFACEHUB_API_TOKEN or HF_TOKEN)" in without.stderr
    refused = shard(tmp_path, hub, HF_TOKEN="hf_wrong")
    assert refused.returncode == 69
    assert "a token is set" in refused.stderr
    given = shard(tmp_path, hub, HUGGINGFACEHUB_API_TOKEN="hf_secret", HF_TOKEN="hf_wrong")
    assert given.returncode == 0, given.stderr
    for done in (refused, given):
        assert "hf_secret" not in done.stdout + done.stderr
        assert "hf_wrong" not in done.stdout + done.stderr
    assert not any(b"hf_secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


# --- what there is to choose -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("download", [True, False])
def test_downloading_and_streaming_give_the_same_rows_from_any_row_on(
    tmp_path: Path, here: Callable[..., HubCorpus], download: bool
) -> None:
    corpus = here(download=download)
    first = corpus.files[0]
    corpus.fetch(first, tmp_path)
    rows = [row.decode() for row in corpus.rows(first, 0, tmp_path) if isinstance(row, bytes)]
    assert rows == BOTH[:70]
    assert [row.decode() for row in corpus.rows(first, 57, tmp_path) if isinstance(row, bytes)] == BOTH[57:70]
    assert any(tmp_path.rglob("000_00000.parquet")) == download
    corpus.release(first, tmp_path)
    assert not any(tmp_path.rglob("*.parquet"))


def test_a_stream_that_breaks_goes_on_at_its_row(tmp_path: Path, hub: Running, here: Callable[..., HubCorpus]) -> None:
    corpus = here(download=False)
    hub.hub.faults = {FILE: ["503", "cut", "429", "cut"]}
    assert [row.decode() for row in corpus.rows(corpus.files[0], 0, tmp_path) if isinstance(row, bytes)] == BOTH[:70]
    assert hub.hub.faults == {FILE: []}


def test_a_hash_that_stays_wrong_is_missing(tmp_path: Path, hub: Running, here: Callable[..., HubCorpus]) -> None:
    corpus = here(download=True)
    hub.hub.faults = {FILE: ["wrong"] * 50}
    with pytest.raises(MissingError, match=r"000_00000\.parquet does not have the sha256 that its data set lists"):
        corpus.fetch(corpus.files[0], tmp_path)
    assert not any(tmp_path.rglob("*.parquet"))


def test_small_files_are_held_against_the_hash_of_git(
    tmp_path: Path, hub: Running, here: Callable[..., HubCorpus]
) -> None:
    lines = b"".join(b'{"text": "%d"}\n' % number for number in range(9))
    files = {"a/1.jsonl": lines, "a/2.jsonl.zst": zstandard.compress(lines), "b/3.jsonl": b"{}"}
    hub.hub.datasets["some/set"] = Dataset({NEW: files})
    corpus = here(dataset="some/set", files="a/*", download=True)
    assert [(file.checksum or "").partition(":")[0] for file in corpus.files] == ["git", "sha256"]
    hub.hub.faults = {"1.jsonl": ["wrong"]}
    assert documents(corpus, place=tmp_path) == [str(number) for number in range(9)] * 2
    assert hub.hub.faults == {"1.jsonl": []}


def test_pinned_validation_is_left_out_of_training(hub: Running, here: Callable[..., HubCorpus]) -> None:
    files = {f"shard_{number:05d}.parquet": parquet_bytes([str(number)]) for number in range(5)}
    hub.hub.datasets["some/set"] = Dataset({NEW: files})
    settings = {"dataset": "some/set", "files": "shard_*.parquet", "validation_files": "shard_00004.parquet"}
    assert [file.name for file in here(**settings, num_files=2).files] == ["shard_00000.parquet", "shard_00001.parquet"]
    assert [file.name for file in here(**settings, validation=True).files] == ["shard_00004.parquet"]


def test_up_to_a_hundred_thousand_documents_are_streamed_unless_asked_otherwise() -> None:
    cases = [({}, True), ({"take": 100_000}, False), ({"take": 100_001}, True), ({"take": 5, "download": True}, True)]
    assert [FinewebSource(**settings).downloads for settings, _ in cases] == [downloads for _, downloads in cases]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"revision": "v9"}, UserError, "correct data.source.revision"),
        ({"dataset": "no/body"}, MissingError, "no/body .*is not on the hub"),
        ({"files": "nothing/*"}, UserError, "no file of that name; correct data.source.files"),
        ({"files": "*"}, UserError, r"README\.md is of a kind that is not read here \(\.parquet "),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(
    here: Callable[..., HubCorpus], settings: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        here(**settings)
    assert len(str(error.value).splitlines()) == 1


IN_ONE_PROCESS = """
import json, sys
from pathlib import Path
from sharder.sources.corpus import Request
from sharder.sources.hub import open_hub
from trainwright.spec.data import FinewebSource

for settings in json.loads(sys.argv[2]):
    try:
        corpus = open_hub(Request(FinewebSource(**settings), None, "data.path", Path(sys.argv[1]), {}))
        print(*(file.name for file in corpus.files))
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


@pytest.mark.slow
def test_the_real_library_says_which_files_a_configuration_has(tmp_path: Path, hub: Running) -> None:
    cases = [
        ({"config": "nope"}, "CorpusError", "Available: ['default', 'sample-10BT']"),
        ({"split": "nope"}, "CorpusError", "no split nope; set data.source.split to one of: train"),
        ({"config": "default"}, "data/CC-MAIN/000_00000.parquet", ""),
        ({}, "sample/10BT/000_00000.parquet sample/10BT/001_00000.parquet", ""),
        ({"dataset": "no/data"}, "CorpusError", "; name its files in data.source.files"),
    ]
    hub.hub.datasets["no/data"] = Dataset({NEW: {"README.md": b"# nothing\n"}})
    words = [sys.executable, "-c", IN_ONE_PROCESS, str(tmp_path), json.dumps([settings for settings, _, _ in cases])]
    variables = environment(tmp_path, HF_ENDPOINT=hub.url)
    done = subprocess.run(words, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=True)
    for (settings, first, part), line in zip(cases, done.stdout.splitlines(), strict=True):
        assert line.startswith(first), (settings, line)
        assert part in line


OF_PRESETS = {
    "HuggingFaceFW/fineweb": ("data/CC-MAIN/0.parquet", "sample/10BT/0.parquet", "sample/100BT/0.parquet"),
    "HuggingFaceFW/fineweb-edu": ("data/CC-MAIN/0.parquet", "sample/10BT/0.parquet", "sample/100BT/0.parquet"),
    "mlfoundations/dclm-baseline-1.0": (
        *(f"global-shard_{number:02d}_of_10/local-shard_0_of_10/shard_0_processed.jsonl.zst" for number in (1, 2)),
        "README.md",
    ),
    "karpathy/fineweb-edu-100b-shuffle": ("shard_00000.parquet", "shard_00001.parquet", "shard_01822.parquet"),
    "karpathy/climbmix-400b-shuffle": ("shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"),
}
"""Some of the files of each data set, as they are called on the hub."""
PRESET_FILES: dict[str, tuple[list[str], list[str]]] = {
    "fineweb": (["data/CC-MAIN/0.parquet"], []),
    "fineweb-10bt": (["sample/10BT/0.parquet"], []),
    "fineweb-100bt": (["sample/100BT/0.parquet"], []),
    "fineweb-edu": (["data/CC-MAIN/0.parquet"], []),
    "fineweb-edu-10bt": (["sample/10BT/0.parquet"], []),
    "fineweb-edu-100bt": (["sample/100BT/0.parquet"], []),
    "dclm-baseline-1.0": (list(OF_PRESETS["mlfoundations/dclm-baseline-1.0"][:2]), []),
    "dclm-baseline-1.0-10prct": (list(OF_PRESETS["mlfoundations/dclm-baseline-1.0"][:1]), []),
    "fineweb-edu-shuffled": (["shard_00000.parquet", "shard_00001.parquet"], ["shard_01822.parquet"]),
    "climbmix-shuffled": (["shard_00000.parquet", "shard_00001.parquet"], ["shard_06542.parquet"]),
}
"""Preset -> the files for training and those for validation."""
EVERY_PRESET = """
import json, sys
from pathlib import Path
from sharder.sources.corpus import Request
from sharder.sources.hub import open_hub
from trainwright.spec.data import HubSource
from trainwright.spec.presets import PRESETS

found = {}
for name, place in PRESETS.items():
    asked = Request(HubSource(preset=name), None, "data.path", Path(sys.argv[1]), {})
    of = [False, True] if place.validation_files else [False]
    opened = [open_hub(Request(asked.settings, None, "data.path", asked.hf_cache, {}, each)) for each in of]
    found[name] = [[file.name for file in corpus.files] for corpus in opened]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_preset_finds_its_files(tmp_path: Path) -> None:
    card = CARD.replace(b"---\n", b"", 1).replace(b"sample-10BT", b"sample-100BT").replace(b"10BT/*", b"100BT/*")
    samples = card.partition(b"- config_name: sample")
    card = CARD.removesuffix(b"---\n") + samples[1] + samples[2]
    datasets = {name: {path: parquet_bytes(["a"]) for path in paths} for name, paths in OF_PRESETS.items()}
    for name, files in datasets.items():
        files["README.md"] = card if name.startswith("HuggingFaceFW") else b"# no configurations\n"
    hub = Hub({name: Dataset({NEW: files}) for name, files in datasets.items()}).start()
    words = [sys.executable, "-c", EVERY_PRESET, str(tmp_path)]
    variables = environment(tmp_path, HF_ENDPOINT=hub.url)
    done = subprocess.run(words, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    hub.stop()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {name: [train, *([val] if val else [])] for name, (train, val) in PRESET_FILES.items()}


def test_a_column_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, here: Callable[..., HubCorpus]
) -> None:
    corpus = here(column="body", download=False)
    with pytest.raises(UserError, match=r"set data\.source\.column to one of text, id, token_count"):
        list(corpus.rows(corpus.files[0], 0, tmp_path))


def test_a_hub_that_does_not_answer_is_missing_in_the_end(
    hub: Running, here: Callable[..., HubCorpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stop()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with pytest.raises(MissingError, match=f"reading from {hub.url} failed .*; what is written stays, run again"):
        here()


def test_a_full_commit_is_not_resolved_again(hub: Running, here: Callable[..., HubCorpus]) -> None:
    assert here(revision=OLD).inputs == {COMMIT: OLD}
    assert not any(path == "/api/datasets/HuggingFaceFW/fineweb" for _, path, _ in hub.hub.requests)
