"""Validation errors of pydantic, reworded for the author of a spec."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from raft_actor_node.errors import ConfigError
from raft_actor_node.text import did_you_mean
from sweeps.spec.document import Path, dotted
from sweeps.spec.parameters import PARAMETER_NAMES, Parameters, Spec
from sweeps.spec.source import Source


def translated(
    error: ValidationError, source: Source, raw: Any, prefix: Path, *, origin: Path | None = None, name: str = ""
) -> ConfigError:
    """Return the first error of a ValidationError as one line: the field, what is allowed, and what was given.

    `prefix`: path in `raw` of the validated data. `origin`: where the value was written, if not at the path of the
    error. `name`: dotted name of the parameter, for an error that pydantic reports without a location.
    """
    first = error.errors(include_url=False)[0]
    path: list[str | int] = list(prefix)
    value: Any = raw
    for part in prefix:
        value = value[part]
    for part in first["loc"]:  # pydantic adds the names of union members, which are not in the data
        inside = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if part in inside:
            path.append(part)
            value = value[part]
    if first["type"] == "extra_forbidden":
        where = tuple(str(part) for part in path)
        message = f"unknown parameter{did_you_mean(dotted(where).removeprefix('base.'), _names_beside(where))}"
    else:
        message = message_of(first)
    shown = tuple(path) if origin is None or len(path) > 1 else (*path, *name.split("."))
    return source.error(shown, message, origin)


_MESSAGES = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of parameters",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}


def message_of(error: Any) -> str:
    """Return what is allowed and what was given. An error that `_MESSAGES` lacks keeps the text of pydantic."""
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    template = _MESSAGES.get(error["type"], str(error["msg"]).replace("Input should be", "must be").replace("{", "{{"))
    bounds = {key: f"{value:g}" if isinstance(value, float) else value for key, value in error.get("ctx", {}).items()}
    return f"{template.format(**bounds)}, not {error['input']!r}"


def _names_beside(path: tuple[str, ...]) -> list[str]:
    """Return the candidates for the correct spelling of an unknown name at `path`."""
    if path[0] != "base":
        return [*Spec.model_fields, *(f"base.{name}" for name in Parameters.model_fields)]
    siblings = [name for name in PARAMETER_NAMES if name.split(".")[:-1] == list(path[1:-1])]
    return siblings + [name for name in PARAMETER_NAMES if name not in siblings]
