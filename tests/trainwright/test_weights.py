"""Initial weights by name: runs, folders, and models of a hub, whose own library asks a small hub on this machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import os
from pathlib import Path
import subprocess
import sys
import threading

import pytest

from trainwright.spec.exits import Exit, UserError
from trainwright.store.files import read_json
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import Places
from trainwright.store.weights import hub_name, refuse_other_model, weights_folder, weights_problem

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 40,
    "pytorch_model.bin": b"pickle",
    "README.md": b"# A model",
    "original/model.safetensors": b"the same in another form",
}
BROUGHT = ["config.json", "model.safetensors"]


@dataclass
class ModelHub:
    """What the hub's library asks for one model; `wrong` sends other bytes of the same length."""

    url: str = ""
    wrong: bool = False
    gets: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    state = ModelHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/api/models/some/model" or path.startswith("/api/models/some/model/revision/"):
                self.answer(json.dumps(facts()).encode())
            elif path.startswith(f"/some/model/resolve/{COMMIT}/"):
                name = path.removeprefix(f"/some/model/resolve/{COMMIT}/")
                state.gets += [name] if self.command == "GET" else []
                data = FILES[name]
                self.answer(data[::-1] if state.wrong and name.endswith("safetensors") else data)
            else:
                self.answer(b'{"error": "Repository not found"}', 404)

        do_HEAD = do_GET  # noqa: N815 - the server's own spelling

        def answer(self, data: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def facts() -> dict[str, object]:
    siblings = []
    for name, data in FILES.items():
        entry = {
            "rfilename": name,
            "size": len(data),
            "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        }
        if name.endswith("safetensors"):
            entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        siblings.append(entry)
    return {"id": "some/model", "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "siblings": siblings}


PROGRAM = """
import sys
from pathlib import Path
from trainwright.spec.exits import guarded
from trainwright.store.weights import download_weights
sys.exit(guarded("weights", lambda: print(download_weights(sys.argv[1], Path(sys.argv[2]))) or 0))
"""


def brought(hub: ModelHub, given: str, assets: Path) -> tuple[int, str, str]:
    """Download in a process of its own: the library reads where its hub is when it is imported."""
    environ = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(assets / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", PROGRAM, given, str(assets)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


def test_a_model_of_the_hub_is_brought_once_and_whole(hub: ModelHub, tmp_path: Path) -> None:
    given = "hub:some/model"
    assert weights_problem(given, tmp_path, tmp_path) is not None
    code, said, err = brought(hub, given, tmp_path)
    assert code == Exit.OK, err
    folder = tmp_path / "models" / "some--model"
    assert said == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*BROUGHT, "manifest.json"])
    assert all((folder / name).read_bytes() == FILES[name] for name in BROUGHT)
    assert read_json(folder / "manifest.json")["commit"] == COMMIT
    assert weights_problem(given, tmp_path, tmp_path) is None
    hub.gets.clear()
    assert brought(hub, given, tmp_path)[:2] == (Exit.OK, str(folder))
    assert not hub.gets


def test_other_bytes_than_the_hub_lists_are_refused_and_fetched_anew(hub: ModelHub, tmp_path: Path) -> None:
    hub.wrong = True
    code, _, err = brought(hub, "hub:some/model@v1", tmp_path)
    assert code == Exit.MISSING
    assert "model.safetensors came with other bytes than the hub lists; run again" in err
    assert weights_problem("hub:some/model@v1", tmp_path, tmp_path) is not None
    hub.wrong = False
    assert brought(hub, "hub:some/model@v1", tmp_path)[0] == Exit.OK
    assert (tmp_path / "models" / "some--model@v1" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_model_that_the_hub_does_not_know_is_missing(hub: ModelHub, tmp_path: Path) -> None:
    code, _, err = brought(hub, "hub:some/other", tmp_path)
    assert code == Exit.MISSING
    assert "train.init_from=hub:some/other: cannot be downloaded" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "given", ["hub:", "hub:model", "hub:a/b/c", "hub:../../etc", "hub:a/b@", "hub:a/..", "hub:a /b"]
)
def test_names_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(UserError, match="write hub:OWNER/NAME"):
        hub_name(given)


def test_a_file_that_is_gone_or_cut_is_said(hub: ModelHub, tmp_path: Path) -> None:
    assert brought(hub, "hub:some/model", tmp_path)[0] == Exit.OK
    file = weights_folder("hub:some/model", tmp_path, tmp_path) / "model.safetensors"
    file.write_bytes(b"short")
    assert "5 bytes, but its manifest says 10240" in (weights_problem("hub:some/model", tmp_path, tmp_path) or "")


def test_folders_and_runs_are_told_apart(tmp_path: Path) -> None:
    theirs, run = tmp_path / "theirs", tmp_path / "runs" / "mine"
    theirs.mkdir()
    (theirs / "config.json").write_text("{}")
    run.mkdir(parents=True)
    places = (tmp_path / "runs", tmp_path / "assets")
    assert weights_folder(str(theirs), *places) == theirs
    assert weights_problem(str(theirs), *places) is None
    assert weights_folder("mine", *places) == weights_folder(str(run), *places) == run / "checkpoints"
    assert weights_problem("mine", *places) == f"{run / 'checkpoints'}: holds no checkpoint"


LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 2, "vocab_size": 320, "max_position_embeddings": 32, "rms_norm_eps": 1e-5}


def test_weights_are_held_against_the_model_without_reading_a_tensor(
    experiment_file: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "weights"

    def held(config: dict[str, object], *words: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        loaded = load_experiment(experiment_file(), ("tokenizer.kind=bytes", f"train.init_from={folder}", *words))
        refuse_other_model(Places(tmp_path / "root", loaded.experiment))

    held(LLAMA)
    with pytest.raises(UserError, match=r"is of another model: num_layers is 3, the checkpoint's is 2; `trainwright"):
        held(LLAMA, "model.num_layers=3")
    with pytest.raises(UserError, match=r"its vocabulary has 640 rows, the model's 320; take the tokenizer"):
        held({**LLAMA, "vocab_size": 640})
    with pytest.raises(UserError, match=r"was made for a context of 32, not of 64; give train.seq_len_tokens at most"):
        held(LLAMA, "train.seq_len_tokens=64")
    with pytest.raises(UserError, match=r"config.json: model_type=mamba: this layout is not known here"):
        held({"model_type": "mamba"})


def test_weights_that_are_not_there_are_refused_unless_the_run_has_its_own(
    experiment_file: Callable[..., Path], tmp_path: Path
) -> None:
    def places(given: str) -> Places:
        return Places(tmp_path / "root", load_experiment(experiment_file(), (f"train.init_from={given}",)).experiment)

    refuse_other_model(places("hub:some/model"))
    with pytest.raises(UserError, match=r"train.init_from=nobody: .*nobody/checkpoints: holds no checkpoint; name a"):
        refuse_other_model(places("nobody"))
    step = places("nobody").run.checkpoints / "step_00000001"
    step.mkdir(parents=True)
    (step / "manifest.json").touch()
    refuse_other_model(places("nobody"))
