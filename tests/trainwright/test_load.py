"""Reading an experiment: what is accepted, where each value came from, and one clear sentence for every mistake."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
import pytest
import yaml

from trainwright.spec.data import JsonlSource, TextSource
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import MAX_FILE_BYTES, ExperimentError, find_experiment, load_experiment, parse
from trainwright.spec.load import split_words, validate

Write = Callable[..., Path]


def refusal(path: Path, *overrides: str) -> str:
    """Return the sentence with which an experiment is refused, without the file's name."""
    with pytest.raises(UserError) as caught:
        load_experiment(path, overrides, {})
    assert caught.value.exit == Exit.REFUSED
    text = str(caught.value)
    assert text.startswith((str(path), *overrides))
    return text.removeprefix(str(path)).removeprefix(": ")


HORIZONS = "steps, tokens, tokens_per_parameter, tokens_per_matrix_weight, flops"
BAD_VALUES = {
    "seed=1.5": "expected a whole number, such as 8 or 1e6",
    "seed=yes": "expected a whole number, such as 8 or 1e6",
    "seed=-1": "must be at least 0",
    "seed=9223372036854775808": "must be below 9223372036854775808",
    "train.steps=0": "must be at least 1",
    "train.steps=1e300": "must be at most 1000000000000000",
    "train.precision=fp16": "choose one of bf16, fp8 or fp32",
    "train.compile=maybe": "expected true or false",
    "train=3": "expected a block of keys",
    "optimizer.lr=-1": "must be above 0.0",
    "optimizer.lr=fast": "expected a number, such as 0.1 or 3e-4",
    "optimizer.lr=nan": "expected a finite number",
    "optimizer.kind=sgd": "choose one of adamw, adana, dana-mk4, dana-star, dana-star-mk4, muon",
    "optimizer.beta1=1.5": "must be at most 1.0",
    "name=Tiny_Run": "use lower-case letters, digits and dashes, at most 52 characters",
    "data.source.kind=jsnl": "choose one of stdlib, text, jsonl, parquet, fineweb, hub, s3",
    "data.path=x": "the source stdlib reads no local files; leave it out, or use text, jsonl or parquet",
    "model.num_heads=7": "model.dim 64 is not divisible by it; try 4 or 8",
    "train.tokens=5": f"give exactly one of {HORIZONS} (steps and tokens are given)",
    "train.steps=null": f"give exactly one of {HORIZONS} (none is given)",
    "schedule.warmup_steps=11": "the whole run has 10 steps; give fewer",
    "resources.walltime_minutes=12:30:00": "expected a number, such as 0.1 or 3e-4",
    "train.steps.x=3": "train.steps is a single value and has no x",
    "steps": "an override is written dotted.key=value, such as train.steps=100",
    "a..b=1": "an override is written dotted.key=value, such as train.steps=100",
}

BAD_FILES = {
    "- a\n": "holds no keys; an experiment starts with `name: ...`",
    "train: {steps: 1, steps: 2}\n": ":1: train.steps is given twice (first on line 1); keep one",
    "a: &x 1\nb: *x\n": ":2: aliases (*x) are not read; write the value out",
    "a: !!python/name:os.system\n": (
        ":1: tags (tag:yaml.org,2002:python/name:os.system) are not read; write the plain value"
    ),
    "\nseed: !!int '3'\n": ":2: tags (tag:yaml.org,2002:int) are not read; write the plain value",
    "[a]: 1\n": ":1: a key must be a word",
    "a: [1\n": ":2: not valid YAML (expected ',' or ']', but got '<stream end>')",
    "a: 1\n---\nb: 2\n": ":2: not valid YAML (but found another document)",
    "a: \x07\n": "not valid YAML (unacceptable character #x0007: special characters are not allowed)",
    "a: " + "[" * 100_000: ":1: nested deeper than 16 levels; this is no experiment file",
    "train: {steps: 1, global_batch_sequences: 8}\n": "name: is required; add it",
}


@pytest.mark.parametrize("override", BAD_VALUES)
def test_every_wrong_value_gets_path_value_and_way_out(experiment_file: Write, override: str) -> None:
    assert refusal(experiment_file(), override) == f"{override}: {BAD_VALUES[override]}"


def test_what_is_absent_or_unknown_gets_a_way_out_too(experiment_file: Write) -> None:
    assert refusal(experiment_file(), "train.step=9") == "train.step: unknown key; did you mean train.steps?"
    sentence = "data.path=null: the source text reads local files; give a file or a folder"
    assert refusal(experiment_file(), "data.source.kind=text") == sentence
    sentence = "data.source: say which kind it is: kind: stdlib | text | jsonl | parquet | fineweb | hub | s3 (line 4)"
    assert refusal(experiment_file("data: {source: {field: x}}\n")) == sentence


@pytest.mark.parametrize("text", BAD_FILES, ids=lambda text: repr(text[:20]))
def test_every_wrong_file_gets_its_line_and_a_way_out(experiment_file: Write, text: str) -> None:
    assert refusal(experiment_file(text=text)) == BAD_FILES[text]


def test_an_empty_file_lacks_what_is_required(experiment_file: Write) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(experiment_file(text="# nothing yet\n"), (), {})
    assert caught.value.lines == ("name: is required; add it", "train: is required; add it")


def test_all_field_errors_are_told_at_once_with_their_lines(experiment_file: Write) -> None:
    more = "data: {source: {kind: text, colour: red}, sharrd: yes}\noptimizer:\n  lr: high\nseeed: 1\n"
    with pytest.raises(ExperimentError) as caught:
        load_experiment(experiment_file(more), (), {})
    assert caught.value.lines == (
        "data.source.colour: unknown key; known here: document, kind, max_bytes, take (line 4)",
        "data.sharrd: unknown key; did you mean data.shard? (line 4)",
        "optimizer.lr=high: expected a number, such as 0.1 or 3e-4 (line 6)",
        "seeed: unknown key; did you mean seed? (line 7)",
    )
    assert len(str(caught.value).splitlines()) == 5


def test_cross_field_errors_come_all_at_once_and_after_the_fields(experiment_file: Write) -> None:
    wrong = (
        "model.num_heads=7",
        "optimizer.beta1=1",
        "data.validation=x",
        "tokenizer.kind=bpe",
        "tokenizer.vocab_size=9",
    )
    with pytest.raises(ExperimentError) as caught:
        load_experiment(experiment_file(), wrong, {})
    paths = [line.split("=")[0] for line in caught.value.lines]
    assert paths == ["data.validation", "tokenizer.vocab_size", "model.num_heads", "optimizer.beta1"]
    assert refusal(experiment_file(), *wrong, "seed=x").startswith("seed=x")


def test_a_batch_that_ranks_cannot_share_names_batches_and_micro_batches_that_they_can(experiment_file: Write) -> None:
    sentence = refusal(experiment_file(), "resources.ranks_per_node=8")
    assert sentence == (
        "train.global_batch_sequences=8: it is not a multiple of micro_batch 2 x 8 ranks = 16; "
        "try 16, or train.micro_batch=1 (line 2)"
    )
    tokens = ("train.global_batch_sequences=null", "train.tokens_per_step=256", "resources.ranks_per_node=3")
    sentence = refusal(experiment_file(), *tokens)
    expected = (
        "train.tokens_per_step=256: 8 sequences are not a multiple of micro_batch 2 x 3 ranks = 6; try 192 or 384"
    )
    assert sentence == expected
    assert "try 96" in refusal(experiment_file(), "train.global_batch_sequences=null", "train.tokens_per_step=100")


def test_a_typing_error_of_any_size_is_answered_at_once(experiment_file: Write) -> None:
    assert "not divisible" in refusal(experiment_file(), "model.dim=1000000007", "model.num_heads=1e14")
    sizes = ("train.global_batch_sequences=999999999999989", "train.micro_batch=1e14", "resources.nodes=1")
    assert "not a multiple" in refusal(experiment_file(), *sizes)
    assert len(refusal(experiment_file(), "seed=" + "9" * 100_000)) < 200


def test_an_error_in_an_override_names_no_line_of_the_file(experiment_file: Write) -> None:
    assert refusal(experiment_file(), "train.steps=x") == "train.steps=x: expected a whole number, such as 8 or 1e6"


def test_a_message_stays_on_one_line_whatever_the_value(experiment_file: Write) -> None:
    assert (
        refusal(experiment_file('seed: "1\\n2\\e"\n'))
        == r"seed='1\n2\x1b': expected a whole number, such as 8 or 1e6 (line 4)"
    )


def test_a_file_that_is_not_utf8_or_huge_or_absent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_bytes(b"name: \xff\n")
    assert refusal(path) == "byte 6 is not UTF-8; save the file as UTF-8"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert refusal(path) == "larger than 1 MiB; this is no experiment file"
    assert refusal(tmp_path) == "cannot be read (Is a directory)"
    assert refusal(tmp_path / "absent.yaml") == "cannot be read (No such file or directory)"


def test_values_are_read_by_annotation_never_by_yamls_guess(experiment_file: Write) -> None:
    more = (
        "optimizer: {lr: 3e-4}\n"
        "data: {name: no, path: 12:30:00, source: {kind: jsonl, field: null}, documents_per_shard: 1e6}\n"
        "tokenizer: {kind: bpe, vocab_size: 32_768, name: ~}\n"
        "schedule: {warmup_steps: 2.0}\n"
        "paths: {runs: 2026-11-21}\n"
    )
    experiment = load_experiment(experiment_file(more), ("train.deterministic=on",), {}).experiment
    assert experiment.optimizer.lr == 3e-4
    assert experiment.data.name == "no"
    assert experiment.data.path == "12:30:00"
    assert isinstance(experiment.data.source, JsonlSource)
    assert experiment.data.source.field is None
    assert experiment.data.documents_per_shard == 1_000_000
    assert experiment.tokenizer.max_vocab_size == 32_768
    assert experiment.tokenizer.name is None
    assert experiment.schedule.warmup_steps == 2
    assert experiment.paths.runs == "2026-11-21"
    assert experiment.train.deterministic is True


def test_large_whole_numbers_keep_every_digit(experiment_file: Write) -> None:
    seed = 2**63 - 1
    assert load_experiment(experiment_file(), (f"seed={seed}",), {}).experiment.seed == seed


def test_layers_win_in_order_and_each_value_knows_its_origin(experiment_file: Write) -> None:
    path = experiment_file("seed: 1\n")
    loaded = load_experiment(path, ("seed=2", "train.steps=20"), {"RUN_EXPERIMENT": "from-pod"})
    assert (loaded.experiment.seed, loaded.experiment.train.steps, loaded.experiment.name) == (2, 20, "from-pod")
    assert loaded.origin("seed") == "seed=2"
    assert loaded.origin("name") == "RUN_EXPERIMENT"
    assert loaded.origin("model.dim") == f"{path}:3"
    assert loaded.origin("optimizer.lr") == "default"
    assert loaded.overrides == ("seed=2", "train.steps=20")
    assert loaded.source == path.read_text()


def test_the_last_of_two_overrides_wins(experiment_file: Write) -> None:
    assert load_experiment(experiment_file(), ("seed=2", "seed=3"), {}).experiment.seed == 3


def test_choosing_another_kind_starts_from_its_defaults(experiment_file: Write) -> None:
    path = experiment_file("data: {path: x, source: {kind: jsonl, field: body, max_bad_share: 0.5}}\n")
    loaded = load_experiment(path, ("data.source.kind=text",), {})
    assert loaded.experiment.data.source == TextSource()
    assert loaded.origin("data.source.kind") == "data.source.kind=text"
    assert loaded.origin("data.source.field") == "default"
    same = load_experiment(path, ("data.source.kind=jsonl",), {}).experiment
    assert same.data.source == JsonlSource(field="body", max_bad_share=0.5)


def test_a_kind_and_its_settings_may_come_in_any_order(experiment_file: Write) -> None:
    path = experiment_file("data: {source: {kind: parquet, column: c}}\n")
    overrides = ("data.source.field=body", "data.path=x", "data.source.kind=jsonl")
    for order in (overrides, overrides[::-1]):
        experiment = load_experiment(path, order, {}).experiment
        assert experiment.data.source == JsonlSource(field="body")


def test_a_section_may_be_named_by_an_override_alone(experiment_file: Write) -> None:
    experiment = load_experiment(experiment_file(), ("checkpoint.dump.keep=5",), {}).experiment
    assert experiment.checkpoint.dump.keep == 5


def test_an_experiment_is_found_by_path_by_name_and_by_run_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    named = Path("experiments/tiny.yaml")
    named.write_text("name: tiny\n")
    assert find_experiment("tiny", {}) == named
    assert find_experiment(str(named), {}) == named
    assert find_experiment(None, {"RUN_CONFIG": "tiny"}) == named
    assert find_experiment("tiny", {"RUN_CONFIG": "other"}) == named
    with pytest.raises(UserError, match=r"^tinny: no such experiment file; experiments here: tiny$"):
        find_experiment("tinny", {})
    with pytest.raises(UserError, match=r"^no experiment given: name a file, or set RUN_CONFIG$"):
        find_experiment(None, {"RUN_CONFIG": ""})


def test_the_first_word_is_the_experiment_unless_it_is_an_override() -> None:
    assert split_words(["demo", "a=b", "c=d"]) == ("demo", ("a=b", "c=d"))
    assert split_words(["a=b", "c=d"]) == (None, ("a=b", "c=d"))
    assert split_words([]) == (None, ())


SCALARS = st.sampled_from(
    [
        "",
        "null",
        "no",
        "3",
        "-1",
        "1e400",
        "0x10",
        "nan",
        "text",
        "jsonl",
        "12:30:00",
        "9" * 30,
        "\N{ARABIC-INDIC DIGIT TWO}",
    ]
)
KEYS = st.sampled_from(
    [
        *("name", "seed", "data", "source", "kind", "path", "field", "text", "x", "tokenizer", "vocab_size"),
        *("train", "steps", "tokens", "tokens_per_parameter", "flops", "micro_batch", "seq_len_tokens"),
        *("model", "llama", "dim", "num_heads", "num_kv_heads", "optimizer", "lr", "schedule", "warmup_steps"),
        *("resources", "nodes"),
    ]
)
TREES = st.recursive(
    SCALARS | st.text(max_size=8) | st.floats(),
    lambda below: st.dictionaries(KEYS, below, max_size=5) | st.lists(below, max_size=3),
    max_leaves=20,
)


@given(TREES)
@example({"data": {"source": {"kind": {"a": "1"}}}})
@example({"data": {"source": {"kind": "text", "text": {"text": "1"}}}})
def test_any_tree_of_known_words_gives_an_experiment_or_one_of_our_errors(tree: object) -> None:
    sound = {"name": "x", "train": {"steps": 1, "global_batch_sequences": 8}}
    for each in (tree, {**sound, **tree} if isinstance(tree, dict) else sound):
        _parsed_or_refused(yaml.safe_dump(each))


@given(st.text(max_size=60))
@example("a: {b: [c, {d: e}]}")
@example("<<: {name: x}")
@example("? ")
@example("a: 2026-13-45")
def test_any_text_gives_an_experiment_or_one_of_our_errors(text: str) -> None:
    _parsed_or_refused(text)


def _parsed_or_refused(text: str) -> None:
    try:
        tree, lines = parse(text, "e.yaml")
        assert isinstance(validate(tree, "e.yaml", lines), Experiment)
    except UserError as error:
        if not str(error).startswith("e.yaml"):
            pytest.fail(f"names no file: {error}")


def test_the_json_schema_describes_every_field() -> None:
    schema = Experiment.model_json_schema()
    blocks = {"Experiment": schema, **schema["$defs"]}
    silent = [
        f"{name}.{field}"
        for name, block in blocks.items()
        for field, facts in block["properties"].items()
        # A field whose text is that of its block shows the block's.
        if not facts.get("description") and "$ref" not in facts and field != "kind"
    ]
    assert silent == []
    assert all(block.get("description") for block in blocks.values())
    assert all(block["additionalProperties"] is False for block in blocks.values())


def test_a_name_is_found_beside_the_code_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_experiment("demo", {}).resolve() == Path(__file__).resolve().parents[2] / "experiments" / "demo.yaml"
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "demo.yaml").write_text("name: mine\n")
    assert find_experiment("demo", {}) == Path("experiments/demo.yaml")
