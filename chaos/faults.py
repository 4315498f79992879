"""Faults as values: what goes wrong, where, when and for how long. Nothing here acts.

One grammar serves the `chaos:` value of a sweep, a schedule written by hand and the record of what ran:

    chaos:  none | ITEM | [ITEM, ...]           ITEM:  a fault, a monkey or a replay

    item                   what happens                                         own options          ends with
    ---------------------  ---------------------------------------------------  -------------------  -------------
    crash: NODES           SIGKILL                                                                   restart_after
    pause: NODES           SIGSTOP                                                                   resume_after
    partition: SHAPE       nodes that share no group do not see each other      clients, behind      heal_after
    isolate: NODES         each of them sees nobody                             LINKS                heal_after
    one_way: NODES         each hears nobody (in), or nobody hears it (out)     LINKS; direction in  heal_after
                                                                                or out must be said
    drop: PROBABILITY      messages are lost                                    nodes, LINKS         heal_after
    delay: DURATION        messages are late; reordered with jitter or tail     jitter, tail, nodes, heal_after
                                                                                LINKS
    bandwidth: SIZE        bytes per second; heartbeats and entries share them  nodes, LINKS         heal_after
    duplicate: PROBABILITY messages arrive twice                                late, nodes, LINKS   heal_after
    monkey: [KIND, ...]    one random fault of these kinds in every interval    every, seed
    replay: FILE           the faults of a saved schedule

    every fault            at: TIME (0s), *_after: TIME (until the end), every: TIME (once)
    LINKS                  between: nodes | clients | all (nodes), direction: in | out | both (both),
                           messages: all | requests | replies (all); `direction` is seen from the fault's nodes
    NODES                  leader | follower | followers | one | minority | majority | all, a node id, or a list of ids
    SHAPE                  leader-in-minority | leader-in-majority | majority-minority | halves | ring | bridge |
                           quorum-loss | chained | constrained-election, or groups: [[n1, n2, clients], [n3, n4]]
    clients                minority | majority: the side of a named split that clients see; default: both
    behind                 a duration: for so long the node that connects the groups (of a bridge, quorum-loss,
                           constrained-election, or groups that overlap) is cut off first, and misses entries
                           if there is load; default: 1s with constrained-election, else 0s
    SIZE                   bytes per second (64KiB) of each direction of each link; a message counts with its encoded
                           bytes, without what frames it. Between nodes heartbeats, replies and entries share them
                           evenly; nothing is lost, it waits at the sender. On a link with a client messages pass one
                           after the other, and one that would wait for more than 1 s is lost
    late                   a duration: the copy arrives up to so much later, as an old message, perhaps in a later
                           term; between nodes only, for a copy that comes late could take effect after a client
                           was refused
    TIME                   a duration (2s) or a share of the measuring phase (1/3)
    KIND                   one of the faults above

With `every`, the fault strikes once in each interval from `at` on, at a random moment that leaves room for
it to end within the interval; it then needs its *_after, which must not be longer than the interval.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    Tag,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from chaos.links import SHAPES, Between, Direction, Groups, cut, hubs, separated, touching
from raft_actor_node.config import NODE_ID_PATTERN, Section
from raft_actor_node.links import CLIENTS, LinkRule, Probability
from raft_actor_node.text import did_you_mean
from raft_actor_node.units import Duration, Size, format_duration, parse_duration

Kind = Literal["crash", "pause", "partition", "isolate", "one_way", "drop", "delay", "bandwidth", "duplicate"]
"""What can go wrong."""
SELECTORS: dict[str, int] = {
    "leader": 1,
    "follower": 2,
    "followers": 2,
    "one": 1,
    "minority": 3,
    "majority": 1,
    "all": 1,
}
"""The ways to name nodes by their part, and the smallest cluster in which somebody has it."""


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
        raise ValueError(f"{value!r} is no share of the measuring phase; it lies between 0/1 and 1/1")
    return Fraction(int(share[1]), int(share[2]))


def format_moment(moment: float | Fraction) -> str:
    """A TIME of the grammar as one writes it."""
    if isinstance(moment, Fraction):
        return f"{moment.numerator}/{moment.denominator}"
    return format_duration(moment)


def moment_s(moment: float | Fraction, phase_s: float) -> float:
    """A TIME of the grammar in seconds, in a measuring phase of `phase_s` seconds."""
    return float(moment) * phase_s if isinstance(moment, Fraction) else moment


def _ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or len(set(map(str, value))) != len(value):
        raise ValueError(f"{value!r} is not a list of different node ids")
    for item in value:
        if not isinstance(item, str) or not re.fullmatch(NODE_ID_PATTERN, item):
            raise ValueError(f"{item!r} is not a node id")
    return tuple(value)


def _nodes(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value if value in SELECTORS else _ids([value])
    if isinstance(value, (list, tuple)):
        return _ids(value)
    raise ValueError(f"{value!r} names no nodes; allowed: {', '.join(SELECTORS)}, a node id or a list of node ids")


def _shape(value: Any) -> str | Groups:
    if isinstance(value, (list, tuple)) and value:
        return tuple(_ids(group) for group in value)
    if isinstance(value, str) and value in SHAPES:
        return value
    shapes = ", ".join(SHAPES)
    raise ValueError(f"{value!r} is no partition{did_you_mean(value, SHAPES)} (allowed: {shapes}, or a list of groups)")


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value


_IDS_SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
Moment = Annotated[
    float | Fraction,
    PlainValidator(_moment),
    PlainSerializer(format_moment, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2s", "1/3"]}),
]
Nodes = Annotated[
    str | tuple[str, ...],
    PlainValidator(_nodes),
    PlainSerializer(_lists),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": list(SELECTORS)}, _IDS_SCHEMA]}),
]
Split = Annotated[
    str | Groups,
    PlainValidator(_shape),
    PlainSerializer(_lists),
    WithJsonSchema({"anyOf": [{"enum": list(SHAPES)}, {"type": "array", "items": _IDS_SCHEMA, "minItems": 1}]}),
]


class Item(Section):
    """Base of what a `chaos:` value is made of; written back as it is read, without what is default."""

    kind: ClassVar[str]

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
        """The mapping one would write, JSON types only."""
        return self.model_dump(mode="json")


class Fault(Item):
    """Base of the faults: when it strikes."""

    end_key: ClassVar[str]
    nodes_key: ClassVar[str]

    at: Moment = 0.0
    """When it strikes; with `every`, when the first interval begins."""
    every: Moment | None = None
    """Length of the intervals in each of which it strikes once, at a random moment."""

    @model_validator(mode="after")
    def _ends_before_it_returns(self) -> Fault:
        if self.every is not None and not self.every > 0:
            raise ValueError("every: must be above 0s")
        if self.every is not None and self.lasts is None:
            raise ValueError(f"{self.end_key}: needed with every")
        return self

    @property
    def lasts(self) -> float | Fraction | None:
        """How long it lasts; None: until the end."""
        value: float | Fraction | None = getattr(self, self.end_key)
        return value

    @property
    def where(self) -> str | tuple[Any, ...]:
        """The NODES or the SHAPE that say where it strikes."""
        value: str | tuple[Any, ...] = getattr(self, self.nodes_key)
        return value

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the nodes it is about; none before it is resolved."""
        return self.where if isinstance(self.where, tuple) else ()

    def timed(self, at_s: float, lasts_s: float | None) -> Self:
        """The same fault, once, at a certain time."""
        return self.model_copy(update={"at": at_s, "every": None, self.end_key: lasts_s})

    def on(self, where: tuple[Any, ...]) -> Self:
        """The same fault in a certain place."""
        return self.model_copy(update={self.nodes_key: where})


class Crash(Fault):
    """Kill processes, so that all they kept in memory is gone."""

    kind = nodes_key = "crash"
    end_key = "restart_after"

    crash: Nodes
    restart_after: Moment | None = None


class Pause(Fault):
    """Stop processes that, when they go on, do not know that time has passed."""

    kind = nodes_key = "pause"
    end_key = "resume_after"

    pause: Nodes
    resume_after: Moment | None = None


class LinkFault(Fault):
    """Base of the faults of links."""

    end_key = "heal_after"

    heal_after: Moment | None = None

    @abstractmethod
    def rules(self, nodes: Sequence[str]) -> list[LinkRule]:
        """The link rules of this fault in a cluster of these nodes; it must be resolved."""


class Partition(LinkFault):
    """Divide the nodes into groups."""

    kind = nodes_key = "partition"

    partition: Split
    clients: Literal["minority", "majority"] | None = None
    """The only side that clients see; default: they see every node."""
    behind: Annotated[Duration, Field(gt=0, le=3600)] | None = None
    """For so long whoever connects the groups is cut off before; default: as its shape wants it."""

    @model_validator(mode="after")
    def _sides(self) -> Partition:
        shape = SHAPES[self.partition] if isinstance(self.partition, str) else None
        if self.clients and not (shape is not None and shape.two_sided):
            splits = ", ".join(name for name, shape in SHAPES.items() if shape.two_sided)
            raise ValueError(f"clients: only with {splits}; in a list of groups, clients is a member")
        if self.behind and not (hubs(self.partition) if isinstance(self.partition, tuple) else shape and shape.has_hub):
            names = ", ".join(name for name, shape in SHAPES.items() if shape.has_hub)
            raise ValueError(f"behind: only with {names}, or groups that overlap")
        return self

    @property
    def behind_s(self) -> float:
        """How long whoever connects the groups is cut off before they are."""
        if self.behind is not None or not isinstance(self.partition, str):
            return self.behind or 0.0
        return SHAPES[self.partition].behind_s

    @property
    def ids(self) -> tuple[str, ...]:
        """The nodes of all groups; none before it is resolved."""
        groups = self.partition if isinstance(self.partition, tuple) else ()
        return tuple(dict.fromkeys(node for group in groups for node in group if node != CLIENTS))

    def rules(self, nodes: Sequence[str]) -> list[LinkRule]:
        """The links between the groups, cut."""
        assert isinstance(self.partition, tuple), "a shape must be resolved before it has rules"
        return cut(separated(self.partition, nodes))

    def rules_before(self, nodes: Sequence[str]) -> list[LinkRule]:
        """The rules for the first `behind_s` seconds: who connects the groups sees nobody, all others all."""
        assert isinstance(self.partition, tuple), "a shape must be resolved before it has rules"
        return cut(touching(hubs(self.partition), nodes))


class MessageFault(LinkFault):
    """Base of what happens to the messages of some nodes."""

    between: Between = "nodes"
    """Links between nodes, between nodes and clients, or both."""
    direction: Direction = "both"
    """Messages to the nodes, from them, or both."""
    messages: Literal["all", "requests", "replies"] = "all"
    """Of calls in either direction, only the requests or only the replies."""

    def effect(self) -> dict[str, Any]:
        """What happens to a message, as fields of a LinkRule."""
        return {"cut": True}

    def rules(self, nodes: Sequence[str]) -> list[LinkRule]:
        """A rule for each link of the fault's nodes."""
        effect = self.effect()
        return [
            LinkRule(from_id=a, to_id=b, messages=self.messages, **effect)
            for a, b in touching(self.ids, nodes, self.direction, self.between)
        ]


class Isolate(MessageFault):
    """Cut each of the nodes off from all others."""

    kind = nodes_key = "isolate"

    isolate: Nodes


class OneWay(MessageFault):
    """Cut one direction: the nodes hear nobody (in), or nobody hears them (out)."""

    kind = nodes_key = "one_way"

    one_way: Nodes
    direction: Literal["in", "out"] = Field()


class _OnNodes(MessageFault):
    nodes_key = "nodes"

    nodes: Nodes = "all"
    """Whose messages."""


class Drop(_OnNodes):
    """Lose messages."""

    kind = "drop"

    drop: Probability

    def effect(self) -> dict[str, Any]:
        """Loss, decided for each message alone."""
        return {"drop": self.drop}


class Delay(_OnNodes):
    """Hold messages back."""

    kind = "delay"

    delay: Annotated[Duration, Field(le=3600)]
    jitter: Annotated[Duration, Field(le=3600)] = 0.0
    """Uniform additional delay between none and this; it reorders messages."""
    tail: Annotated[Duration, Field(le=360)] = 0.0
    """Heavy tail: one message in a hundred is later by more than this, one in a thousand by ten times as much."""

    def effect(self) -> dict[str, Any]:
        """Constant delay, jitter and tail."""
        parts = {"delay": self.delay, "jitter": self.jitter, "tail": self.tail}
        return {f"{name}_ms": round(seconds * 1e3, 6) for name, seconds in parts.items()}


class Bandwidth(_OnNodes):
    """Let messages through one after the other."""

    kind = "bandwidth"

    bandwidth: Annotated[Size, Field(ge=1, le=2**39)]
    """Bytes per second, of each link in each direction."""

    def effect(self) -> dict[str, Any]:
        """What a link lets through, and how fast."""
        return {"bytes_per_s": self.bandwidth}


class Duplicate(_OnNodes):
    """Deliver messages twice."""

    kind = "duplicate"

    duplicate: Probability
    late: Annotated[Duration, Field(le=3600)] = 0.0
    """Uniform additional delay of the copy between none and this."""

    @model_validator(mode="after")
    def _late_between_nodes(self) -> Duplicate:
        if self.late and self.between != "nodes":
            raise ValueError(f"late: only with between: nodes, not {self.between}; clients would be told untruths")
        return self

    def effect(self) -> dict[str, Any]:
        """Duplication, decided for each message alone, and how late the copy is."""
        return {"duplicate": self.duplicate, "late_ms": round(self.late * 1e3, 6)}


def _kinds(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{value!r} is not a list of kinds (allowed: {', '.join(FAULTS)})")
    for kind in value:
        if str(kind) not in FAULTS:
            raise ValueError(f"{kind!r} is no kind of fault{did_you_mean(kind, FAULTS)} (allowed: {', '.join(FAULTS)})")
    return value


class Monkey(Item):
    """One random fault in every interval."""

    kind = "monkey"

    monkey: Annotated[tuple[Kind, ...], BeforeValidator(_kinds)]
    """The kinds it chooses from; a kind that is named twice is chosen twice as often."""
    every: Annotated[Duration, Field(gt=0)]
    """Length of an interval; what begins in it ends in it."""
    seed: int | None = None
    """Seed of its choices; default: from the seed of the schedule."""


class Replay(Item):
    """The faults of a saved schedule, at their times."""

    kind = "replay"

    replay: Annotated[str, Field(min_length=1)]
    """A file written by Schedule.save."""


FAULTS: dict[str, type[Fault]] = {
    fault.kind: fault for fault in (Crash, Pause, Partition, Isolate, OneWay, Drop, Delay, Bandwidth, Duplicate)
}
"""Every fault by its kind."""


def _kind(value: Any) -> str | None:
    if isinstance(value, Item):
        return value.kind
    return next((key for key in value if key in _KINDS), None) if isinstance(value, dict) else None


def _one_item(value: Any) -> Any:
    if isinstance(value, Item):
        return value
    allowed = ", ".join(_KINDS)
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no fault; write none or a mapping, as {{crash: leader}} (kinds: {allowed})")
    named = [key for key in value if key in _KINDS]
    if not named:
        close = next((text for key in value if (text := did_you_mean(key, _KINDS))), "")
        raise ValueError(f"no kind of fault among {', '.join(map(str, value)) or 'no keys'}{close} (kinds: {allowed})")
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} in one mapping; write a list of one mapping each")
    return value


_KINDS = (*FAULTS, "monkey", "replay")
_Faults = (
    Annotated[Crash, Tag("crash")]
    | Annotated[Pause, Tag("pause")]
    | Annotated[Partition, Tag("partition")]
    | Annotated[Isolate, Tag("isolate")]
    | Annotated[OneWay, Tag("one_way")]
    | Annotated[Drop, Tag("drop")]
    | Annotated[Delay, Tag("delay")]
    | Annotated[Bandwidth, Tag("bandwidth")]
    | Annotated[Duplicate, Tag("duplicate")]
)
_BY_KIND = Discriminator(_kind, custom_error_type="kind", custom_error_message="must be a single fault")
AnyFault = Annotated[_Faults, _BY_KIND, BeforeValidator(_one_item)]
"""A fault of any kind, told by its key."""
AnyItem = Annotated[
    _Faults | Annotated[Monkey, Tag("monkey")] | Annotated[Replay, Tag("replay")], _BY_KIND, BeforeValidator(_one_item)
]
"""A fault, a monkey or a replay."""
