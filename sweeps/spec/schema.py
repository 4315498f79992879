"""The JSON schema of a spec, for editors."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

from raft_actor_node import config as node_config
from sweeps.spec.parameters import PARAMETER_NAMES, Spec


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a spec. It lists every axis by its dotted name."""
    schema = Spec.model_json_schema()
    definitions = schema["$defs"]
    _describe(definitions)

    def of(name: str) -> Any:
        properties = definitions["Parameters"]["properties"]
        for part in name.split("."):
            found = properties[part]
            reference = found.get("$ref") or next((option["$ref"] for option in found.get("allOf", [])), None)
            properties = definitions[reference.rsplit("/", 1)[-1]].get("properties", {}) if reference else {}
        return {key: value for key, value in found.items() if key != "default"}

    axes = {name: {"type": "array", "minItems": 1, "items": of(name)} for name in PARAMETER_NAMES}
    schema["properties"]["axes"] |= {"properties": axes, "additionalProperties": False}
    schema["properties"]["exclude"]["items"] = {
        "type": "object",
        "minProperties": 1,
        "properties": {name: of(name) for name in PARAMETER_NAMES},
        "additionalProperties": False,
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Sweep"}


def _describe(definitions: Mapping[str, Any]) -> None:
    """Add the attribute docstrings of the node's configuration as descriptions.

    They are read from the source, because a node skips these docstrings to start faster.
    """
    for section in ast.parse(inspect.getsource(node_config)).body:
        if not isinstance(section, ast.ClassDef) or section.name not in definitions:
            continue
        properties = definitions[section.name]["properties"]
        for each, after in itertools.pairwise(section.body):
            match each, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    if name in properties:
                        properties[name].setdefault("description", inspect.cleandoc(text))
