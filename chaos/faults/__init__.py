"""Faults as values: what goes wrong, where, when and for how long. This package does not act on clusters.

One grammar serves the `chaos:` value of a sweep, a schedule written by hand and the record of what ran:

    chaos:  none | ITEM | [ITEM, ...]           ITEM:  a fault, a monkey or a replay

`python -m chaos.faults` prints the whole grammar; each kind of fault adds its own line.

To add a kind, write its class in a file of this folder and add it to registry.py; base.py says what a class declares.
Planning, the monkey, verdicts and tables use only what the class declares.
"""

from __future__ import annotations

import functools
import operator
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema

from chaos.faults.base import SELECTORS, Effect, Fault, Item, Proof, format_moment, moment_s
from chaos.faults.disk import Disk
from chaos.faults.drawn import Monkey, Replay
from chaos.faults.link_fault import LinkFault
from chaos.faults.messages import Bandwidth, Delay, Drop, Duplicate, Isolate, MessageFault, OneWay
from chaos.faults.partition import Partition
from chaos.faults.process import Crash, Pause
from chaos.faults.registry import FAULTS, fault_kind
from raft_actor_node.text import did_you_mean

__all__ = [
    "FAULTS",
    "SELECTORS",
    "AnyFault",
    "AnyItem",
    "Bandwidth",
    "Crash",
    "Delay",
    "Disk",
    "Drop",
    "Duplicate",
    "Effect",
    "Fault",
    "Isolate",
    "Item",
    "LinkFault",
    "MessageFault",
    "Monkey",
    "OneWay",
    "Partition",
    "Pause",
    "Proof",
    "Replay",
    "fault_kind",
    "format_moment",
    "grammar",
    "moment_s",
]

DRAWN: dict[str, type[Item]] = {item.kind: item for item in (Monkey, Replay)}
"""Items that expand to many faults."""


def _items() -> dict[str, type[Item]]:
    return {**FAULTS, **DRAWN}


# ------------------------------------------------------------------------------ reading items


def _kind(value: Any) -> str | None:
    if isinstance(value, Item):
        return value.kind
    return next((key for key in value if key in _items()), None) if isinstance(value, dict) else None


def _one_item(value: Any) -> Any:
    if isinstance(value, Item):
        return value
    kinds = _items()
    allowed = ", ".join(kinds)
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a fault; write none or a mapping like {{crash: leader}} (kinds: {allowed})")
    named = [key for key in value if key in kinds]
    if not named:
        close = next((text for key in value if (text := did_you_mean(key, kinds))), "")
        raise ValueError(f"no kind of fault among {', '.join(map(str, value)) or 'no keys'}{close} (kinds: {allowed})")
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} in one mapping; write a list with one mapping for each fault")
    return value


@dataclass(frozen=True)
class _ByKind:
    """A pydantic annotation: read a mapping as the item that its key names.

    The kinds are those that are registered when pydantic builds the model that uses the annotation.
    """

    drawn: bool
    """Whether monkeys and replays are allowed too."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds: Mapping[str, type[Item]] = _items() if self.drawn else FAULTS
        tagged = functools.reduce(operator.or_, (Annotated[item, Tag(kind)] for kind, item in kinds.items()))
        told = Discriminator(_kind, custom_error_type="kind", custom_error_message="must be a single fault")
        return handler.generate_schema(Annotated[tagged, told, BeforeValidator(_one_item)])


AnyFault = Annotated[Fault, _ByKind(drawn=False)]
"""A fault of any kind, identified by its key."""
AnyItem = Annotated[Item, _ByKind(drawn=True)]
"""A fault, a monkey or a replay."""


# ------------------------------------------------------------------------------ the grammar

_LINKS = ("between", "direction", "messages")
_HEAD = "chaos:  none | ITEM | [ITEM, ...]           ITEM:  a fault, a monkey or a replay"
_TERMS = {
    "every fault": "at: TIME (default: 0s), *_after: TIME (default: until the end), every: TIME (default: once)",
    "TIME": "a duration such as 2s, or a share of the measuring phase such as 1/3",
    "NODES": f"{' | '.join(SELECTORS)}, a node id, or a list of ids",
    "LINKS": "between: nodes | clients | all (default: nodes), direction: in | out | both (default: both; in: to the "
    "fault's nodes, out: from them), messages: all | requests | replies (default: all)",
    "KIND": "one of the faults above",
    "every": "the length of an interval. The fault strikes once in each interval from `at` on, at a random moment, and "
    "ends within the interval; so it needs its *_after, which must not be longer than the interval",
}


def grammar() -> str:
    """Return the grammar of a `chaos:` value: a line for each kind, then the terms that the lines use."""
    rows = [("item", "what happens", "own options", "ends with"), *map(_row, _items().values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [_HEAD, "", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), ""]
    terms = {**_TERMS, **{word: text for item in _items().values() for word, text in item.terms.items()}}
    for word, text in terms.items():
        lines += textwrap.wrap(f"{word:<15}{text}", 120, subsequent_indent=" " * 15)
    return "\n".join(lines) + "\n"


def _row(item: type[Item]) -> tuple[str, ...]:
    end = item.end_key if issubclass(item, Fault) else ""
    shared = {item.kind, end, *(("at", "every") if issubclass(item, Fault) else ())}
    own = {name: field for name, field in item.model_fields.items() if name not in shared}
    links = {name for name in _LINKS if name in own and not own[name].is_required()}
    options = [name + (" (needed)" if field.is_required() else "") for name, field in own.items() if name not in links]
    return f"{item.kind}: {item.takes}", item.happens, ", ".join(options + (["LINKS"] if links else [])), end
