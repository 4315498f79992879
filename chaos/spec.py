"""The `chaos:` value of a sweep: parse, validate, write back and label it. Its grammar: chaos/faults/."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    RootModel,
    ValidationError,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from chaos.faults import AnyItem
from raft_actor_node.errors import ConfigError
from raft_actor_node.units import WRITTEN


class BadChaos(ConfigError, ValueError):
    """An invalid `chaos:` value or schedule. It is also a ValueError, so that pydantic validators may raise it."""


def _as_list(value: Any) -> Any:
    if value is None or value == "none":
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


class ChaosSpec(RootModel[tuple[AnyItem, ...]]):
    """The faults of the measuring phase, possibly none. The truth value of a spec without faults is False."""

    model_config = ConfigDict(frozen=True)

    root: Annotated[tuple[AnyItem, ...], BeforeValidator(_as_list)] = ()

    def __bool__(self) -> bool:
        return bool(self.root)

    @property
    def written(self) -> str | dict[str, Any] | list[dict[str, Any]]:
        """The shortest value that gives this spec: `none`, a mapping, or a list of mappings, of JSON types only."""
        items = [item.written for item in self.root]
        return "none" if not items else items[0] if len(items) == 1 else items

    @model_serializer(mode="plain")
    def _as_written(self) -> Any:
        return self.written

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler.resolve_ref_schema(handler(core))
        many.update({"anyOf": [{"enum": ["none", None]}, many["items"], {"type": "array", "items": many.pop("items")}]})
        del many["type"], many["default"]
        return many


def parse_chaos(value: Any) -> ChaosSpec:
    """Parse a `chaos:` value. Raises BadChaos with one line that names the field and what is allowed."""
    if isinstance(value, ChaosSpec):
        return value
    try:
        return ChaosSpec.model_validate(value, context=WRITTEN)
    except ValidationError as error:
        raise BadChaos(one_line(error, show_position=isinstance(value, (list, tuple)))) from None


def one_line(error: ValidationError, *, show_position: bool) -> str:
    """Return the first error of a validation in one line.

    `show_position`: whether to name positions in lists, because the input was a list.
    """
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if show_position or not isinstance(part, int)]
    # The path contains the kind twice when the kind's own value is wrong: as the model's tag and as its field.
    where = ".".join(part for i, part in enumerate(path) if part not in path[:i])
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("value_error", "missing") else f", not {first['input']!r}"
    return f"{where}: {message}{given}" if where else f"{message}{given}"


def label(spec: ChaosSpec) -> str:
    """Return a short name for tables, without times: `none`, `crash leader`, `monkey crash+pause`."""
    return " + ".join(item.label() for item in spec.root) or "none"
