"""One value, one hash."""

import hashlib

import pytest

from trainwright.spec.canonical import sha256_json


def test_the_hash_is_that_of_sorted_compact_utf8_json() -> None:
    assert (
        sha256_json({"b": [1, None], "a": "\u00e9"})
        == hashlib.sha256('{"a":"\u00e9","b":[1,null]}'.encode()).hexdigest()
    )


def test_the_order_of_keys_changes_nothing_and_every_value_counts() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert len({sha256_json(value) for value in ({"a": 1}, {"a": "1"}, {"a": True}, {"a": [1]}, {"a": None}, {})}) == 6


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        sha256_json(float("nan"))
