from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
import pytest
from ruamel.yaml import YAML
import yaml

from infra.yaml_text import yaml_text

TRAPS = [
    *(
        "1e3",
        "1e-3",
        "0o17",
        "017",
        "0x1f",
        "0b1",
        "1_000",
        "12:30:00",
        ".5",
        "-1",
        "+1",
        ".inf",
        "-.INF",
        ".nan",
        "nan",
    ),
    *("no", "No", "y", "N", "on", "off", "true", "FALSE", "null", "Null", "~", "", " ", "2026-11-21", "=", "<<", "inf"),
    *(
        "a: b",
        "a #b",
        "#",
        "- a",
        "-",
        "--",
        "---",
        "...",
        "?",
        "!x",
        "&x",
        "*x",
        "{a}",
        "[a]",
        "%x",
        "@x",
        "`x`",
        "|",
        ">",
    ),
    *(
        "it's",
        'say "x"',
        "a\\b",
        "$HOME",
        "$$",
        "a\tb",
        "a\r\nb",
        "a\nb",
        "a\n",
        "\na\n",
        " a\n b\n",
        "a \nb\n",
        "a\n\n\n",
    ),
    *(
        "a\nb\n",
        "#a\nb\n",
        "---\na\n",
        "a\n...\nb\n",
        "é\nü\n",
        "\N{BOM}a\nb\n",
        "a\N{LINE SEPARATOR}b\nc\n",
        "\x85\n\x00\x1b\n",
    ),
    *("\N{GRINNING FACE}", "/workspace", "registry.invalid/x", "a-", "\u00a0", "a "),
]
LONG = ["x" * 20_000, "x y " * 5000, "x y " * 5000 + "x\nz\n"]
"""Longer than the width at which lines are folded."""
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(TRAPS)
LINES = st.lists(TEXT, max_size=5).map("\n".join)
TREES = st.recursive(
    TEXT | LINES,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4),
    max_leaves=10,
)
NUMBERS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)


def by_yaml_1_2(text: str) -> Any:
    reader = YAML(typ="safe", pure=True)
    assert reader.version is None  # 1.2 unless the text says otherwise
    return reader.load(text)


def both_readers(document: object) -> None:
    text = yaml_text(document)
    assert yaml.safe_load(text) == document
    assert by_yaml_1_2(text) == document


@pytest.mark.parametrize("value", TRAPS + LONG, ids=lambda value: ascii(value[:12]))
def test_what_looks_like_something_else_stays_text_as_a_value_and_as_a_key(value: str) -> None:
    both_readers({"key": value, "list": [value], value: "x"})


@given(st.dictionaries(TEXT, TREES, max_size=5))
@example({"": ""})
def test_any_tree_of_text_arrives_as_it_is_at_readers_of_both_versions(document: dict[str, Any]) -> None:
    both_readers(document)


@given(st.lists(NUMBERS, max_size=5))
def test_numbers_and_booleans_stay_what_they_are(values: list[Any]) -> None:
    document = {"values": values}
    for found in (yaml.safe_load(yaml_text(document)), by_yaml_1_2(yaml_text(document))):
        assert found == document
        assert [type(value) for value in found["values"]] == [type(value) for value in values]


def test_text_of_many_lines_can_be_read_by_people() -> None:
    document = {"experiment": "name: x\n\ntrain:\n  steps: 1\n", "names": ["a", "1"]}
    assert yaml_text(document) == ('experiment: |\n  name: x\n\n  train:\n    steps: 1\nnames:\n  - a\n  - "1"\n')


def test_keys_keep_their_order() -> None:
    assert list(yaml.safe_load(yaml_text({"b": 1, "a": 2}))) == ["b", "a"]
