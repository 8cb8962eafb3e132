"""The base of every settings model, the types of its scalars, and how a wrong combination is reported.

Values arrive as text (YAML scalars, command-line overrides, environment variables) and are read by the field's
annotation: `3e-4` is a number where a number is expected, and `no` is a word where a word is expected.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

ABSENT = object()
"""The value of a `Problem` whose path holds none."""

MAX_SHOWN = 80
"""Characters of a wrong value that a message shows."""
MAX_COUNT = 10**15
MAX_NUMBER = 1e30
"""Far above any run, and small enough that no derived number overflows."""

NULLS = frozenset({"", "~", "null", "none"})


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys; the string under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)

    def problems(self) -> "Iterator[Problem]":
        """Yield what is wrong between this model's own fields; each value alone is already valid."""
        yield from ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an experiment: where (a dotted path), the value found there, and the way out."""

    path: str
    value: object
    hint: str

    def below(self, prefix: str) -> "Problem":
        """Return the same problem seen from the owner of `prefix`."""
        return Problem(f"{prefix}.{self.path}" if self.path else prefix, self.value, self.hint)

    def __str__(self) -> str:
        if self.value is ABSENT:
            return f"{self.path}: {self.hint}"
        return f"{self.path}={_shown(self.value)}: {self.hint}"


def _shown(value: object) -> str:
    """Return a value as one short line; files hold line breaks and numbers of a thousand digits too."""
    text = "null" if value is None else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _whole(value: Any) -> Any:
    """Read `1e4`, `250_000` and `20.0` as whole numbers; leave everything else for pydantic to judge."""
    if isinstance(value, str):
        text = value.strip().replace("_", "")
        if re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text):
            number = float(text)
            return int(text) if re.fullmatch(r"[+-]?\d+", text) else int(number) if number.is_integer() else value
    return value


def _listed(value: Any) -> Any:
    """Read `A,B` as a list, because an override on the command line has no other way to write one."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _off(value: Any) -> Any:
    """Read the ways YAML has of writing nothing as None."""
    return None if isinstance(value, str) and value.strip().lower() in NULLS else value


Off = BeforeValidator(_off)
Whole = BeforeValidator(_whole)

Count = Annotated[int, Field(ge=1, le=MAX_COUNT), Whole]
"""A whole number of at least one."""
CountOrZero = Annotated[int, Field(ge=0, le=MAX_COUNT), Whole]
"""A whole number of at least zero."""
Positive = Annotated[float, Field(gt=0, le=MAX_NUMBER, allow_inf_nan=False)]
"""A finite number above zero."""
NonNegative = Annotated[float, Field(ge=0, le=MAX_NUMBER, allow_inf_nan=False)]
"""A finite number of at least zero."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A share between 0 and 1."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$")]
"""A name that is valid as a folder, a Kubernetes object and a job name: lower case, digits and dashes, at most 52."""

ImageReference = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?$", max_length=512)
]
"""An image as engines name it: registry/name:tag, or registry/name@sha256:digest."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,127}$")]
"""The name of an environment variable, in capitals: a token that is written here by mistake is refused."""

OptionalPort = Annotated[Annotated[int, Field(ge=1, le=65535), Whole] | None, Off]
OptionalCount = Annotated[Count | None, Off]
OptionalPositive = Annotated[Positive | None, Off]
OptionalName = Annotated[Name | None, Off]
OptionalText = Annotated[str | None, Off]
OptionalImage = Annotated[ImageReference | None, Off]
VariableNames = Annotated[tuple[VariableName, ...], BeforeValidator(_listed)]
"""Names of environment variables, as a YAML list or separated by commas."""
