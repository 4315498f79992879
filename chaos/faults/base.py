"""What all items of a `chaos:` value share, and what each kind of fault must declare."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from raft_actor_node.config import NODE_ID_PATTERN, Section
from raft_actor_node.core.quorum import largest_minority, quorum_size
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.text import did_you_mean
from raft_actor_node.units import format_duration, parse_duration

SELECTORS: dict[str, int] = {
    "leader": 1,
    "follower": 2,
    "followers": 2,
    "one": 1,
    "minority": 3,
    "majority": 1,
    "all": 1,
}
"""The selectors of nodes, and the smallest cluster in which each selects a node."""

# ------------------------------------------------------------------------------ times and nodes as they are written


def _moment(value: Any) -> float | Fraction:
    if isinstance(value, Fraction) and 0 <= value <= 1:
        return value
    share = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", value) if isinstance(value, str) else None
    if share is None:
        try:
            return parse_duration(value)
        except ValueError:
            message = f"{value!r} is neither a duration, such as 2s, nor a share of the phase, such as 1/3"
            raise ValueError(message) from None
    if not int(share[1]) <= int(share[2]) != 0:
        raise ValueError(f"{value!r} is not a share of the measuring phase; a share is between 0/1 and 1/1")
    return Fraction(int(share[1]), int(share[2]))


def format_moment(moment: float | Fraction) -> str:
    """Return a TIME of the grammar as text."""
    if isinstance(moment, Fraction):
        return f"{moment.numerator}/{moment.denominator}"
    return format_duration(moment)


def moment_s(moment: float | Fraction, phase_s: float) -> float:
    """Return a TIME of the grammar in seconds, in a measuring phase of `phase_s` seconds."""
    return float(moment) * phase_s if isinstance(moment, Fraction) else moment


def node_ids(value: Any) -> tuple[str, ...]:
    """Return a list of different node ids as a tuple. Raises ValueError."""
    if not isinstance(value, (list, tuple)) or not value or len(set(map(str, value))) != len(value):
        raise ValueError(f"{value!r} is not a list of different node ids")
    for item in value:
        if not isinstance(item, str) or not re.fullmatch(NODE_ID_PATTERN, item):
            raise ValueError(f"{item!r} is not a node id")
    return tuple(value)


def _nodes(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value if value in SELECTORS else node_ids([value])
    if isinstance(value, (list, tuple)):
        return node_ids(value)
    raise ValueError(f"{value!r} names no nodes; allowed: {', '.join(SELECTORS)}, a node id or a list of node ids")


def as_lists(value: Any) -> Any:
    """Return nested tuples as nested lists, as in JSON and YAML."""
    return [as_lists(part) for part in value] if isinstance(value, tuple) else value


IDS_SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
"""JSON schema of a list of node ids."""
Moment = Annotated[
    float | Fraction,
    PlainValidator(_moment),
    PlainSerializer(format_moment, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2s", "1/3"]}),
]
"""A TIME of the grammar."""
Nodes = Annotated[
    str | tuple[str, ...],
    PlainValidator(_nodes),
    PlainSerializer(as_lists),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": list(SELECTORS)}, IDS_SCHEMA]}),
]
"""NODES of the grammar: a selector, or node ids."""


def drawn_nodes(nodes: Sequence[str], rng: Random) -> str:
    """Return a random selector that this cluster is large enough for."""
    return rng.choice([part for part in ("leader", "one", "minority") if SELECTORS[part] <= len(nodes)])


# ------------------------------------------------------------------------------ items


class Item(Section):
    """Base of the items of a `chaos:` value. An item is serialised as the user writes it, without defaults."""

    kind: ClassVar[str]
    """The key of the item in a `chaos:` value."""
    takes: ClassVar[str]
    """The value of that key, as a term of the grammar such as NODES."""
    happens: ClassVar[str]
    """What happens, in a few words; `grammar()` shows it."""
    terms: ClassVar[Mapping[str, str]] = {}
    """Terms of the grammar that only this item uses, and their meaning."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        allowed = cls.model_fields
        unknown = [key for key in data if key not in allowed] if isinstance(data, dict) else []
        if unknown:
            hint = did_you_mean(unknown[0], allowed)
            raise ValueError(f"unknown key {unknown[0]!r}{hint} (allowed: {', '.join(allowed)})")
        return data

    @model_serializer(mode="wrap")
    def _short(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = write(self)
        fields = type(self).model_fields
        changed = {key: value for key, value in values.items() if getattr(self, key) != fields[key].default}
        return {self.kind: values[self.kind]} | changed

    @property
    def written(self) -> dict[str, Any]:
        """The mapping that a spec holds, of JSON types only."""
        return self.model_dump(mode="json")

    @abstractmethod
    def label(self) -> str:
        """Return a short name for tables, without times."""


# ------------------------------------------------------------------------------ faults

Often = Literal["always", "sometimes", "never"]
Strike = Literal["crash", "pause"]
"""A call of a Target that takes processes down."""
Undo = Literal["restart", "resume"]
"""A call of a Target that brings processes back."""
Table = Literal["links", "inside"]
"""A table of faults that a Target replaces as a whole: of links, or inside nodes."""


Need = Literal["crashes", "pauses", "link_faults", "node_faults"]
"""A capability of a target; orchestration/targets.py says which target has it."""


class Proof(NamedTuple):
    """A counter of a node's status that grows when a fault strikes."""

    counter: str
    """The key of the counter in Status.touched."""
    subject: str
    """What is counted, such as `message` or `fsync`."""
    touched: str
    """What the fault did to each of them, such as `dropped` or `delayed`."""

    @property
    def status_field(self) -> str:
        """The field of the counter in Counters of inspection.proto."""
        return f"messages_{self.counter}" if self.subject == "message" else self.counter


@dataclass(frozen=True)
class Effect:
    """What a fault does to a cluster while it is in force, in terms of the calls of a Target."""

    links: Sequence[LinkRule] | None = None
    """The fault's part of the table of link faults. None: the fault affects no links."""
    inside: Mapping[str, NodeFaults] | None = None
    """The fault's part of the table of faults inside nodes. None: the fault is not inside nodes."""
    strike: Strike | None = None
    """The call on the processes of the fault's nodes when the fault strikes."""
    undo: Undo | None = None
    """The call that brings these processes back. Until then they are, or may be, down or stopped."""

    def __post_init__(self) -> None:
        if self.links is None and self.inside is None and self.strike is None:
            raise ValueError("a fault without an effect")

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables to which the fault contributes."""
        parts: dict[Table, object] = {"links": self.links, "inside": self.inside}
        return tuple(table for table, part in parts.items() if part is not None)


_DECLARED = ("takes", "happens", "end_key", "nodes_key", "needs", "proof", "ends_leadership", "silences", "begins_life")
"""The class attributes that every kind declares."""


class Fault(Item):
    """Base of the faults.

    A kind is a subclass with its own `kind`. It must declare the class attributes below and implement the abstract
    methods; otherwise Python refuses the class. No other code in this project distinguishes kinds.
    """

    end_key: ClassVar[str]
    """The field with the time after which the fault is healed."""
    nodes_key: ClassVar[str]
    """The field that says where the fault strikes."""
    needs: ClassVar[Need]
    """The capability that a target needs."""
    proof: ClassVar[tuple[Proof, ...]]
    """Counters that grow when a fault of this kind strikes. If empty, the call on the target is the proof."""
    ends_leadership: ClassVar[Often]
    """Whether a leader that the fault strikes loses its leadership."""
    silences: ClassVar[bool]
    """Whether the fault's nodes neither receive nor send anything while the fault lasts."""
    begins_life: ClassVar[Often]
    """Whether healing the fault begins a new incarnation of its nodes."""

    at: Moment = 0.0
    """When the fault strikes; with `every`, when the first interval begins."""
    every: Moment | None = None
    """Length of the intervals; the fault strikes once in each, at a random moment."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            missing = [name for name in _DECLARED if not hasattr(cls, name)] + sorted(cls.__abstractmethods__)
            if missing:
                raise TypeError(f"{cls.__name__}: a kind of fault must declare {', '.join(missing)}")

    @abstractmethod
    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        """Return what the fault does in a cluster of these nodes. The fault must be resolved.

        `preparing`: return what it does during its first `prepares_s` seconds.
        """

    @property
    @abstractmethod
    def disables(self) -> bool:
        """Whether the fault's nodes cannot be part of a quorum while the fault lasts."""

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """Exit code with which the fault's nodes may exit while it lasts; None: it makes no node exit.

        Such an exit proves that the fault struck.
        """

    @classmethod
    @abstractmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Return a random fault of this kind for a cluster of these nodes, without times."""

    @abstractmethod
    def describe(self) -> str:
        """Return in a few words where the fault strikes, and how."""

    def label(self) -> str:
        """Return its kind and its description."""
        return f"{self.kind} {self.describe()}"

    @model_validator(mode="after")
    def _ends_before_it_returns(self) -> Fault:
        if self.every is not None and not self.every > 0:
            raise ValueError("every: must be above 0s")
        if self.every is not None and self.lasts is None:
            raise ValueError(f"{self.end_key}: needed with every")
        return self

    @property
    def lasts(self) -> float | Fraction | None:
        """How long the fault lasts; None: until the end."""
        value: float | Fraction | None = getattr(self, self.end_key)
        return value

    @property
    def where(self) -> str | tuple[Any, ...]:
        """Where the fault strikes: the value of the field `nodes_key`, NODES or a SHAPE of the grammar."""
        value: str | tuple[Any, ...] = getattr(self, self.nodes_key)
        return value

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the fault's nodes; empty before the fault is resolved."""
        return self.where if isinstance(self.where, tuple) else ()

    @property
    def prepares_s(self) -> float:
        """Seconds from the injection until the whole fault is in force; 0 for faults of one stage."""
        return 0.0

    @property
    def counters(self) -> tuple[Proof, ...]:
        """The counters in `proof` that grow because of this fault."""
        return self.proof

    @classmethod
    def suspends(cls) -> bool:
        """Return whether faults of this kind stop processes that later continue with their memory intact."""
        return cls.silences and cls.begins_life == "never"

    def timed(self, at_s: float, lasts_s: float | None) -> Self:
        """Return the same fault, once, at a fixed time."""
        return self.model_copy(update={"at": at_s, "every": None, self.end_key: lasts_s})

    def placed(self, where: tuple[Any, ...]) -> Self:
        """Return the same fault in a fixed place."""
        return self.model_copy(update={self.nodes_key: where})

    # ------------------------------------------------------------------------------ where it strikes

    @classmethod
    def seeks_leader(cls, where: str) -> bool:
        """Return whether a selector of this kind depends on which node leads."""
        return where in ("leader", "follower", "followers")

    @property
    def needs_leader(self) -> bool:
        """Whether the leader must be known before the fault can be resolved."""
        return isinstance(self.where, str) and self.seeks_leader(self.where)

    @classmethod
    def found_leader(cls, aim: str, where: Sequence[Any], leader: str) -> bool:
        """Return whether a fault aimed at the selector `aim` has the right place relative to the leader.

        `where` is the resolved place. For example, a fault aimed at `follower` must not include the leader.
        """
        return (leader in where) == (aim == "leader")

    def refusal(self, nodes: Sequence[str]) -> str:
        """Return in one line why this fault cannot be injected in a cluster of these nodes; empty if it can.

        The line begins with the name of the field.
        """
        where = self.where
        if isinstance(where, str) and len(nodes) < SELECTORS[where]:
            return f"{self.nodes_key}: {where} needs at least {SELECTORS[where]} nodes, the cluster has {len(nodes)}"
        return self.unknown_node(nodes, SELECTORS)

    def unknown_node(self, nodes: Sequence[str], selectors: Collection[str] = ()) -> str:
        """Return in one line which of the fault's nodes the cluster does not have; empty if it has all of them."""
        unknown = [node for node in self.ids if node not in nodes]
        if not unknown:
            return ""
        hint = did_you_mean(unknown[0], (*nodes, *selectors))
        return f"{self.nodes_key}: the cluster has no node {unknown[0]!r}{hint} (nodes: {', '.join(nodes)})"

    def resolved(self, nodes: Sequence[str], leader: str | None, rng: Random) -> Self:
        """Return the fault with node ids instead of a selector; a resolved fault is returned as it is.

        `leader` may be None unless the fault needs the leader.
        """
        where = self.where
        return self.placed(_select(where, nodes, leader, rng)) if isinstance(where, str) else self

    def where_in_words(self) -> str:
        """Return the selector or the node ids."""
        return self.where if isinstance(self.where, str) else ",".join(self.where)


def _select(selector: str, nodes: Sequence[str], leader: str | None, rng: Random) -> tuple[str, ...]:
    others = [node for node in nodes if node != leader]
    choose: dict[str, Callable[[], Collection[str | None]]] = {
        "leader": lambda: [leader],
        "follower": lambda: [rng.choice(others)],
        "followers": lambda: others,
        "one": lambda: [rng.choice(nodes)],
        "minority": lambda: rng.sample(nodes, largest_minority(len(nodes))),
        "majority": lambda: rng.sample(nodes, quorum_size(len(nodes))),
        "all": lambda: nodes,
    }
    chosen = choose[selector]()
    return tuple(node for node in nodes if node in chosen)
