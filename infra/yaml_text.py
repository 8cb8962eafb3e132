"""YAML text that every reader reads alike: whatever is not plainly a word stands in double quotes.

Readers disagree about bare scalars: `1e3`, `0o17` and `no` are text to one and a number or a boolean to another.
"""

import re
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*")
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's names
        """Indent lists below their key, as people write them."""
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    if _is_block(value):
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|")
    plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


def _is_block(value: str) -> bool:
    """Return whether text keeps every byte as a literal block: printable lines, no tab, no space at their ends."""
    lines = value.split("\n")
    return (
        value.endswith("\n")
        and len(lines) > 2
        and not value.startswith((" ", "\n"))
        and all((line.isprintable() or not line) and line == line.rstrip() for line in lines)
    )


_Dumper.add_representer(str, _text)


def yaml_text(document: Any) -> str:
    """Return a document of dicts, lists, text, numbers and booleans as YAML, keys in their given order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
