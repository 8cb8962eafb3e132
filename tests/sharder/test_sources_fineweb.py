from hub import NEW, OLD, Running
from pathlib import Path
import pytest
from dataclasses import replace
import json
import subprocess
import sys


from made_corpus import REPOSITORY, digest, environment, experiment_file, facts, made_documents, sharder
from sharder.sources.corpus import Request
from sharder.sources.fineweb import COMMIT, open_fineweb
from trainwright.spec.data import FinewebSource
from trainwright.store.text_shards import TextManifest, read_documents

FINEWEB = ("data.source.kind=fineweb", "data.name=web")


def shard(tmp_path: Path, hub: Running, *overrides: str, **variables: str) -> subprocess.CompletedProcess[str]:
    words = ("shard", str(experiment_file(tmp_path)), *FINEWEB, *overrides)
    return sharder(tmp_path, *words, HF_ENDPOINT=hub.url, **variables)


def texts(tmp_path: Path) -> list[str]:
    folders = [tmp_path / "datasets" / split / "web" for split in ("train", "val")]
    found = [(folder, shard) for folder in folders for shard in TextManifest.read(folder).shards]
    return [text for folder, shard in found for text in read_documents(folder / shard.path)]


@pytest.mark.slow
def test_the_real_libraries_stream_the_newest_commit_and_a_later_run_stays_with_it(
    tmp_path: Path, hub: Running
) -> None:
    done = shard(tmp_path, hub, "data.documents_per_shard=50")
    assert done.returncode == 0, done.stderr
    assert sorted(texts(tmp_path)) == sorted(made_documents(120))
    folder = tmp_path / "datasets" / "train" / "web"
    manifest = TextManifest.read(folder)
    assert manifest.inputs[COMMIT] == NEW
    assert manifest.drops == {"no text": 1, "empty": 1}
    assert (tmp_path / "hf_cache" / "hub").is_dir()
    assert (tmp_path / "hf_cache" / "datasets").is_dir()

    # The data set moves on: what is finished asks the hub nothing, what is not goes on at its own commit.
    whole = digest(tmp_path / "datasets")
    dataset = hub.hub.datasets["HuggingFaceFW/fineweb"]
    dataset.commits["c" * 40] = dataset.commits[OLD]
    hub.hub.requests.clear()
    assert facts(shard(tmp_path, hub, "data.documents_per_shard=50").stdout)["state"] == "already"
    assert hub.hub.requests == []
    replace(manifest, complete=False, shards=manifest.shards[:1]).write(folder)
    again = shard(tmp_path, hub, "data.documents_per_shard=50")
    assert facts(again.stdout)["state"] == "written", again.stderr
    assert digest(tmp_path / "datasets") == whole


IN_ONE_PROCESS = """
import json, sys
from pathlib import Path
from sharder.sources.corpus import Request
from sharder.sources.fineweb import open_fineweb
from trainwright.spec.data import FinewebSource
from trainwright.store.text_shards import Drops

for settings in json.loads(sys.argv[2]):
    try:
        request = Request(FinewebSource(**settings), None, "data.path", Path(sys.argv[1]), {})
        print(len(list(open_fineweb(request).documents(Drops()))))
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_one_sentence_and_take_is_a_limit(tmp_path: Path, hub: Running) -> None:
    cases = [
        ({"config": "nope"}, "CorpusError .*Available: ['default', 'sample-10BT']"),
        ({"split": "nope"}, "CorpusError .*Available splits: ['train']"),
        ({"revision": "v9"}, "UserError .*correct data.source.revision"),
        ({"dataset": "no/body"}, "MissingError no/body: is not on the hub"),
        ({"column": "body"}, "CorpusError .*set data.source.column to one of text, id, token_count"),
        ({"config": "default"}, "1"),
        ({"take": 30}, "30"),
    ]
    words = [sys.executable, "-c", IN_ONE_PROCESS, str(tmp_path), json.dumps([settings for settings, _ in cases])]
    variables = environment(tmp_path, HF_ENDPOINT=hub.url)
    done = subprocess.run(words, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=True)
    for (settings, expected), line in zip(cases, done.stdout.splitlines(), strict=True):
        kind, _, part = expected.partition(" .*")
        assert line.startswith(kind), (settings, line)
        assert part in line


@pytest.mark.slow
def test_a_gated_data_set_wants_a_token_which_is_never_shown(tmp_path: Path, hub: Running) -> None:
    hub.hub.datasets["HuggingFaceFW/fineweb"].token = "hf_secret"
    refused = shard(tmp_path, hub, HF_TOKEN="hf_wrong")
    assert refused.returncode == 69
    assert "a token is set" in refused.stderr
    given = shard(tmp_path, hub, HUGGINGFACEHUB_API_TOKEN="hf_secret", HF_TOKEN="hf_wrong")
    assert given.returncode == 0, given.stderr
    for done in (refused, given):
        assert "hf_secret" not in done.stdout + done.stderr
        assert "hf_wrong" not in done.stdout + done.stderr
    assert not any(b"hf_secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_hub_that_does_not_answer_is_missing(tmp_path: Path) -> None:
    words = ("shard", str(experiment_file(tmp_path)), *FINEWEB)
    done = sharder(tmp_path, *words, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 69
    assert "reading from http://127.0.0.1:9 failed" in done.stderr.splitlines()[-1]


def test_a_full_commit_is_taken_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, str(tmp_path))
    corpus = open_fineweb(Request(FinewebSource(revision=OLD), None, "data.path", tmp_path, {}))
    assert corpus.inputs == {COMMIT: OLD}
