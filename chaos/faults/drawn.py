"""Items that expand to many faults: random faults, and the faults of a saved schedule."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from chaos.faults.base import Item
from chaos.faults.registry import FAULTS, fault_kind
from raft_actor_node.units import Duration


def _kinds(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{value!r} is not a list of kinds (allowed: {', '.join(FAULTS)})")
    for name in value:
        fault_kind(name)
    return value


Kinds = Annotated[
    tuple[str, ...],
    BeforeValidator(_kinds),
    WithJsonSchema({"type": "array", "items": {"type": "string", "enum": list(FAULTS)}, "minItems": 1}),
]


class Monkey(Item):
    """One random fault in every interval."""

    kind = "monkey"
    takes = "[KIND, ...]"
    happens = "one random fault of these kinds in every interval"

    monkey: Kinds
    """The kinds from which the monkey chooses; a kind listed twice is chosen twice as often."""
    every: Annotated[Duration, Field(gt=0)]
    """Length of an interval; a fault ends in the interval in which it begins."""
    seed: int | None = None
    """Seed of the monkey's choices; default: derived from the seed of the schedule."""

    def label(self) -> str:
        """Return the kinds from which the monkey chooses."""
        return f"monkey {'+'.join(self.monkey)}"


class Replay(Item):
    """The faults of a saved schedule, at their times."""

    kind = "replay"
    takes = "FILE"
    happens = "the faults of a saved schedule"

    replay: Annotated[str, Field(min_length=1)]
    """A file written by Schedule.save."""

    def label(self) -> str:
        """Return the name of the file."""
        return f"replay {PurePath(self.replay).name}"
