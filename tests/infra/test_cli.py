from collections.abc import Callable, Iterator
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest
import yaml

from infra.cli import WORDS, find_run
from tiny_boot import clean_environment
from trainwright import __version__
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import load_experiment
from trainwright.spec.resolved import experiment_hash, flat, plain

REPOSITORY = Path(__file__).resolve().parents[2]
PASSED_ON = [name for name, word in WORDS.items() if word.run.__qualname__.startswith("_room")]
"""The words that are not answered here but by their rooms."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_the_page_lists_every_word(said: Callable[..., tuple[int, str, str]]) -> None:
    for words in (["--help"], ["-h"], ["help"]):
        code, out, _ = said(*words)
        assert code == 0
        assert all(f"  {name} " in out and word.help in out for name, word in WORDS.items())


def test_no_word_at_all_shows_the_page_and_is_refused(said: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = said()
    assert (code, out) == (78, said("--help")[1])


def test_an_unknown_word_is_refused_with_a_way_out(said: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = said("lunch")
    assert (code, out) == (78, "")
    assert err == "trainwright: lunch: no such word; `trainwright --help` lists them\n"


def test_the_version_is_that_of_the_package(said: Callable[..., tuple[int, str, str]]) -> None:
    assert said("--version")[:2] == (0, f"trainwright {__version__}\n")


@pytest.mark.parametrize(
    ("word", "arguments"),
    [
        ("init", ["name", "--like", "--checkpoint"]),
        ("show", ["EXP [a.b=c", "--json"]),
        ("schema", ["JSON Schema"]),
        ("render", ["EXP [a.b=c", "--target", "--output", "--check", "--continue", "--fresh", "--from"]),
        ("launch", ["EXP [a.b=c", "--target", "--continue", "--fresh", "--from"]),
        ("ps", ["--json"]),
        ("logs", ["RUN", "--follow"]),
        ("stop", ["RUN", "--reason"]),
        ("delete", ["RUN", "--checkpoints", "--all", "--yes"]),
    ],
)
def test_help_of_a_word_names_its_arguments(
    said: Callable[..., tuple[int, str, str]], word: str, arguments: list[str]
) -> None:
    code, out, _ = said(word, "--help")
    assert code == 0
    assert out.startswith(f"usage: trainwright {word}")
    assert all(argument in out for argument in arguments), out


@pytest.fixture(scope="module")
def room_pages() -> dict[str, tuple[int, str, str]]:
    """Return what the rooms say for their words; started together, because each takes its time to start."""
    arguments = [sys.executable, "-m", "infra"]
    started = {
        word: subprocess.Popen(
            [*arguments, word, "--help"],
            env=clean_environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for word in PASSED_ON
    }
    found = {word: (process.communicate(timeout=60), process.returncode) for word, process in started.items()}
    return {word: (code, out, err) for word, ((out, err), code) in found.items()}


ROOM_ARGUMENTS = {
    "boot": ["EXP [a.b=c ...]", "--until", "--redo", "--continue", "--fresh", "--node-rank", "--master"],
    "shard": ["EXP a.b=c"],
    "tokenizer": ["EXP a.b=c"],
    "encode": ["EXP a.b=c", "--input", "--tokenizer", "--output", "--workers"],
    "import": ["--input", "--tokenizer", "--name", "--output"],
    "train": ["training.yaml"],
    "report": ["RUN_FOLDER"],
    "export": ["RUN", "--output", "--step", "--dtype"],
    "doctor": ["EXP [a.b=c ...]", "--alive"],
}


def test_help_of_a_rooms_word_is_the_rooms_own_and_names_its_arguments(
    room_pages: dict[str, tuple[int, str, str]],
) -> None:
    assert set(room_pages) == set(ROOM_ARGUMENTS)
    for word, (code, out, err) in room_pages.items():
        assert (code, err) == (0, ""), word
        assert all(argument in out for argument in ROOM_ARGUMENTS[word]), out


@pytest.mark.parametrize("words", [["show", "--nonsense"], ["render", "x.yaml"], ["launch", "x", "--target", "moon"]])
def test_wrong_words_are_refused_as_configuration_is(
    said: Callable[..., tuple[int, str, str]], words: list[str]
) -> None:
    code, out, err = said(*words)
    assert (code, out) == (78, "")
    assert f"trainwright {words[0]} --help" in err
    assert err.count("\n") == 1


# --- show ------------------------------------------------------------------------------------------------------------


def test_show_prints_one_json_document_with_the_origin_of_every_value(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path]
) -> None:
    path = experiment_file()
    code, out, err = said("show", "--json", str(path), "train.steps=20")
    assert (code, err) == (0, "")
    document, experiment = json.loads(out), load_experiment(path, ["train.steps=20"], {}).experiment
    assert document["hash"] == experiment_hash(experiment)
    assert document["experiment"] == plain(experiment)
    assert document["derived"]["steps"] == 20
    assert set(document["origins"]) == {field for field, _ in flat(plain(experiment))}
    assert document["origins"]["train.steps"] == "train.steps=20"
    assert document["origins"]["model.dim"] == f"{path}:3"
    assert document["model"][0].startswith("n_head=")
    assert document["origins"]["seed"] == "default"


def test_show_prints_every_value_and_what_follows_from_it(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path]
) -> None:
    path = experiment_file()
    code, out, _ = said("show", str(path))
    values, _, derived = out.partition("\nDerived:\n")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in values.splitlines() if line}
    assert set(lines) == {field for field, _ in flat(plain(load_experiment(path, (), {}).experiment))}
    assert lines["model.dim"] == ["64", f"{path}:3"]
    assert lines["data.shard"] == ["true", "default"]
    assert lines["data.path"] == ["null", "default"]
    assert "num_parameters" in derived


def test_show_names_every_mistake_at_once(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path]
) -> None:
    path = experiment_file("modle: {}\noptimizer: {lr: fast}\nseed: -1\n")
    code, out, err = said("show", str(path))
    assert (code, out) == (78, "")
    first, *mistakes = err.splitlines()
    assert first == f"trainwright: {path}:"
    assert mistakes == [
        "  seed=-1: must be at least 0 (line 6)",
        "  optimizer.lr=fast: expected a number, such as 0.1 or 3e-4 (line 5)",
        "  modle: unknown key; did you mean model? (line 4)",
    ]


@pytest.mark.parametrize("text", ["", "- a\n", "name: [\n", "name: &a x\nseed: *a\n", "name: x\nname: y\n", "\0"])
def test_show_refuses_whatever_is_no_experiment(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path], text: str
) -> None:
    code, out, err = said("show", str(experiment_file(text=text)))
    assert (code, out) == (78, "")
    assert "experiment.yaml" in err
    assert "Traceback" not in err


# --- schema ----------------------------------------------------------------------------------------------------------

KEYWORDS = {
    *("$defs", "$ref", "$schema", "additionalProperties", "anyOf", "oneOf", "const", "default", "description", "enum"),
    *("discriminator", "exclusiveMinimum", "exclusiveMaximum", "maximum", "minimum", "maxLength", "minLength"),
    *("pattern", "properties", "required", "title", "type", "items", "format"),
}
"""Those of draft 2020-12 that may stand here, and OpenAPI's discriminator, which validators pass over."""


@pytest.fixture
def schema(said: Callable[..., tuple[int, str, str]]) -> dict[str, Any]:
    code, out, _ = said("schema")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema inside a schema."""
    yield schema
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            for each in value.values():
                yield from nodes(each)
        elif key in ("anyOf", "oneOf"):
            for each in value:
                yield from nodes(each)
        elif key == "items":
            yield from nodes(value)


def test_the_schema_is_a_json_schema_whose_references_lead_somewhere(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Experiment.model_fields)
    for node in nodes(schema):
        assert set(node) <= KEYWORDS, set(node) - KEYWORDS
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"]
        if "properties" in node:
            assert node["additionalProperties"] is False


def test_every_field_of_the_schema_is_documented(schema: dict[str, Any]) -> None:
    silent = [
        f"{node.get('title')}.{name}"
        for node in nodes(schema)
        for name, field in node.get("properties", {}).items()
        if name != "kind" and "description" not in {**field, **schema["$defs"].get(field.get("$ref", "")[8:], {})}
    ]
    assert not silent


def wrong(value: Any, node: dict[str, Any], schema: dict[str, Any], path: str = "") -> list[str]:
    """Return why a parsed YAML value does not fit a schema, by the few keywords that decide about our files."""
    if "$ref" in node:
        return wrong(value, schema["$defs"][node["$ref"].removeprefix("#/$defs/")], schema, path)
    for way in ("anyOf", "oneOf"):
        if way in node:
            tried = [wrong(value, each, schema, path) for each in node[way]]
            return [] if [] in tried else min(tried, key=len)
    found = []
    types = {"object": dict, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    types["array"] = list
    if "type" in node and (
        not isinstance(value, types[node["type"]]) or (isinstance(value, bool) != (node["type"] == "boolean"))
    ):
        return [f"{path}: {value!r} is no {node['type']}"]
    if "const" in node and value != node["const"]:
        found.append(f"{path}: not {node['const']}")
    if "enum" in node and value not in node["enum"]:
        found.append(f"{path}: not one of {node['enum']}")
    if isinstance(value, dict):
        found += [f"{path}.{key}: unknown" for key in value.keys() - node["properties"].keys()]
        found += [f"{path}.{key}: missing" for key in set(node.get("required", ())) - value.keys()]
        for key in value.keys() & node["properties"].keys():
            found += wrong(value[key], node["properties"][key], schema, f"{path}.{key}")
    return found


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_accepts_the_experiments_that_are_shipped(schema: dict[str, Any], path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    # YAML 1.1 takes 3e-3 for text; editors, by YAML 1.2, for a number, and so do we.
    if "lr" in tree["optimizer"]:
        tree["optimizer"]["lr"] = float(tree["optimizer"]["lr"])
    assert wrong(tree, schema, schema) == []


def test_the_schema_refuses_what_the_loader_refuses(schema: dict[str, Any]) -> None:
    tree = yaml.safe_load((REPOSITORY / "experiments" / "demo.yaml").read_text())
    tree["optimizer"]["lr"] = 3e-3
    for change in ({"modle": {}}, {"seed": "x"}, {"tokenizer": {"kind": "words"}}, {"train": {"steps": 1.5}}):
        assert wrong({**tree, **change}, schema, schema)
    del tree["name"]
    assert wrong(tree, schema, schema) == [".name: missing"]


# --- render ----------------------------------------------------------------------------------------------------------


def test_render_prints_what_it_writes_and_says_when_that_is_out_of_date(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path], tmp_path: Path
) -> None:
    path, folder = experiment_file(), tmp_path / "a folder"
    words = ("render", str(path), "--target", "local", "train.steps=20", "--fresh")
    code, shown, _ = said(*words)
    assert code == 0
    assert said(*words)[1] == shown
    assert said(*words, "-o", str(folder))[:2] == (0, f"{folder}/small.sh\n{folder}/small.yaml\n")
    assert shown == "\n".join(f"# --- {each}\n{(folder / each).read_text()}" for each in ("small.sh", "small.yaml")) + (
        "\n"
    )
    assert said(*words, "-o", str(folder), "--check")[:2] == (0, f"{folder}: up to date\n")
    path.write_text(path.read_text() + "# changed\n")
    code, _, err = said(*words, "-o", str(folder), "--check")
    assert code == 78
    way = f"trainwright render {path} --target local train.steps=20 --fresh -o '{folder}'"
    assert err == f"trainwright: {folder}: not up to date: small.yaml; run `{way}`\n"


def test_render_check_needs_a_folder_and_may_find_none(
    said: Callable[..., tuple[int, str, str]],
    experiment_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("RUN_CONFIG", str(experiment_file()))
    code, _, err = said("render", "--target", "local", "--check")
    assert code == 78
    assert "add -o DIR" in err
    code, _, err = said("render", "--target", "local", "--check", "-o", str(tmp_path / "none"))
    assert code == 78
    assert "small.sh, small.yaml" in err


def test_a_word_says_which_variables_of_the_environment_it_followed(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = experiment_file()
    assert said("render", str(path), "--target", "local")[2] == ""
    monkeypatch.setenv("RUN_CONFIG", str(path))
    monkeypatch.setenv("RUN_EXPERIMENT", "stray")
    monkeypatch.setenv("RUN_SHARD", "")
    code, out, err = said("render", str(path), "--target", "local")
    assert (code, err) == (0, "note: follows RUN_EXPERIMENT=stray of this environment\n")
    assert "export RUN_EXPERIMENT=stray" in out
    _, _, err = said("render", "--target", "local")
    assert err == f"note: follows RUN_EXPERIMENT=stray, RUN_CONFIG={path} of this environment\n"


def test_from_is_an_override_like_any_other(
    said: Callable[..., tuple[int, str, str]], experiment_file: Callable[..., Path]
) -> None:
    _, out, _ = said("render", str(experiment_file()), "--target", "local", "--from", "other")
    assert "train.init_from=other" in out


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("one", "two"):
        folder = tmp_path / "root" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "experiment.yaml").touch()
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def test_a_run_is_found_by_its_name_and_by_its_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = root / "runs" / "one"
    assert find_run("one", root).path == find_run(str(expected), root).path == expected
    monkeypatch.chdir(root)
    assert find_run("runs/one", root).path == expected


def test_a_run_that_is_not_there_is_refused_with_those_that_are(root: Path) -> None:
    with pytest.raises(UserError, match=rf"three: no such run below {root}/runs; runs here: one, two"):
        find_run("three", root)


def test_stop_writes_the_reason_of_a_run_that_is_not_live_once(
    said: Callable[..., tuple[int, str, str]], root: Path
) -> None:
    assert said("stop", "one", "--reason", "enough")[:2] == (
        0,
        f"{root}/runs/one: is not running; marked as ended\n",
    )
    ended = root / "runs" / "one" / "ended.json"
    record = ended.read_bytes()
    assert json.loads(record)["reason"] == "enough"
    assert said("stop", "one")[:2] == (0, f"{root}/runs/one: is ended already\n")
    assert ended.read_bytes() == record
    assert said("stop", "three")[0] == 78
