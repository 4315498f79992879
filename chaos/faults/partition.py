"""Partitions: nodes are divided into groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from chaos.faults.base import IDS_SCHEMA, Effect, as_lists, format_moment, node_ids
from chaos.faults.link_fault import CUT, LinkFault
from chaos.shapes import SHAPES, Groups, cut, hubs, separated, touching
from raft_actor_node.links import CLIENTS, LinkRule
from raft_actor_node.text import did_you_mean
from raft_actor_node.units import Duration


def _shape(value: Any) -> str | Groups:
    if isinstance(value, (list, tuple)) and value:
        return tuple(node_ids(group) for group in value)
    if isinstance(value, str) and value in SHAPES:
        return value
    shapes = ", ".join(SHAPES)
    hint = did_you_mean(value, SHAPES)
    raise ValueError(f"{value!r} is not a partition{hint} (allowed: {shapes}, or a list of groups)")


Split = Annotated[
    str | Groups,
    PlainValidator(_shape),
    PlainSerializer(as_lists),
    WithJsonSchema({"anyOf": [{"enum": list(SHAPES)}, {"type": "array", "items": IDS_SCHEMA, "minItems": 1}]}),
]
"""A SHAPE of the grammar."""


class Partition(LinkFault):
    """Divide the nodes into groups."""

    kind = nodes_key = "partition"
    takes = "SHAPE"
    happens = "nodes that share no group cannot reach each other"
    terms: ClassVar = {
        "SHAPE": f"{' | '.join(SHAPES)}, or groups: [[n1, n2, clients], [n3, n4]]",
        "clients": "minority | majority: the side of a named split that clients can reach; default: both",
        "behind": "a duration for which the node that connects the groups is isolated before the groups are separated, "
        "so that it misses entries if there is load; only with bridge, quorum-loss, constrained-election, or groups "
        "that overlap; default: 1s with constrained-election, else 0s",
    }
    proof = CUT
    ends_leadership = "sometimes"
    disables: ClassVar[bool] = False

    partition: Split
    clients: Literal["minority", "majority"] | None = None
    """The only side that clients can reach; default: they reach every node."""
    behind: Annotated[Duration, Field(gt=0, le=3600)] | None = None
    """How long the node that connects the groups is isolated beforehand; default: the `behind_s` of the shape."""

    @model_validator(mode="after")
    def _sides(self) -> Partition:
        shape = SHAPES[self.partition] if isinstance(self.partition, str) else None
        if self.clients and not (shape is not None and shape.two_sided):
            splits = ", ".join(name for name, shape in SHAPES.items() if shape.two_sided)
            raise ValueError(f"clients: only with {splits}; in a list of groups, write clients as a member of a group")
        if self.behind and not (hubs(self.partition) if isinstance(self.partition, tuple) else shape and shape.has_hub):
            names = ", ".join(name for name, shape in SHAPES.items() if shape.has_hub)
            raise ValueError(f"behind: only with {names}, or groups that overlap")
        return self

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Draw a shape without preparation, because preparation may last longer than an interval."""
        shapes = [name for name, shape in SHAPES.items() if shape.min_nodes <= len(nodes) and not shape.behind_s]
        return cls(partition=rng.choice(shapes or ["halves"]))

    def describe(self) -> str:
        """Return the shape or the groups."""
        behind = f" behind {format_moment(self.behind)}" if self.behind else ""
        if isinstance(self.partition, str):
            return self.partition + (f" clients in {self.clients}" if self.clients else "") + behind
        return " | ".join(",".join(group) for group in self.partition) + behind

    @property
    def prepares_s(self) -> float:
        """How long the node that connects the groups is isolated before the groups are separated."""
        if self.behind is not None or not isinstance(self.partition, str):
            return self.behind or 0.0
        return SHAPES[self.partition].behind_s

    @property
    def ids(self) -> tuple[str, ...]:
        """The nodes of all groups; empty before it is resolved."""
        groups = self.partition if isinstance(self.partition, tuple) else ()
        return tuple(dict.fromkeys(node for group in groups for node in group if node != CLIENTS))

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        """Isolate the node that connects the groups, then separate the groups."""
        return Effect(links=self.rules_before(nodes) if preparing else self.rules(nodes))

    def rules(self, nodes: Sequence[str]) -> list[LinkRule]:
        """Return rules that cut the links between the groups."""
        assert isinstance(self.partition, tuple), "a shape must be resolved before it has rules"
        return cut(separated(self.partition, nodes))

    def rules_before(self, nodes: Sequence[str]) -> list[LinkRule]:
        """Return the rules during preparation: the node that connects the groups is isolated."""
        assert isinstance(self.partition, tuple), "a shape must be resolved before it has rules"
        return cut(touching(hubs(self.partition), nodes))

    # ------------------------------------------------------------------------------ where it strikes

    @classmethod
    def seeks_leader(cls, where: str) -> bool:
        """Return whether a shape says where the leader is."""
        return SHAPES[where].leader is not None

    @classmethod
    def found_leader(cls, aim: str, where: Sequence[Any], leader: str) -> bool:
        """Return whether the leader is in groups of the sizes that the shape prescribes for it."""
        groups = [[node for node in group if node != CLIENTS] for group in where]
        members = sorted({node for group in groups for node in group})
        shape = SHAPES[aim]
        place = 0 if shape.leader == "first" else -1
        return _sizes(groups, leader) == _sizes(shape.groups(members), members[place])

    def misplaced(self, nodes: Sequence[str]) -> str:
        """Return what is wrong with the shape or the groups; empty if nothing is."""
        n, where = len(nodes), self.partition
        if isinstance(where, str) and n < SHAPES[where].min_nodes:
            return f"partition: {where} needs at least {SHAPES[where].min_nodes} nodes, the cluster has {n}"
        if unknown := self.unknown_node(nodes):
            return unknown
        if isinstance(where, tuple) and len(self.ids) < n:
            return f"partition: no group contains {', '.join(node for node in nodes if node not in self.ids)}"
        if isinstance(self.lasts, float) and 0 < self.lasts <= self.prepares_s:
            lasts, behind = format_moment(self.lasts), format_moment(self.prepares_s)
            return f"partition: behind: {behind} must be shorter than heal_after, {lasts}"
        return ""

    def resolved(self, nodes: Sequence[str], leader: str | None, rng: Random) -> Self:
        """Return the fault with groups instead of a shape."""
        if isinstance(self.partition, tuple):
            return self
        groups = self._groups(SHAPES[self.partition].leader, nodes, leader, rng)
        return self.model_copy(update={"partition": groups, "clients": None, "behind": self.prepares_s or None})

    def _groups(
        self, place: Literal["first", "last"] | None, nodes: Sequence[str], leader: str | None, rng: Random
    ) -> Groups:
        members = rng.sample(nodes, len(nodes))
        if leader is not None and place:
            members.remove(leader)
            members.insert(0 if place == "first" else len(members), leader)
        groups = list(SHAPES[str(self.partition)].groups(members))
        if self.clients:
            side = 0 if self.clients == "minority" else 1
            groups[side] = (*groups[side], CLIENTS)
        return tuple(groups)


def _sizes(groups: Iterable[Sequence[str]], node: str) -> list[int]:
    """Return the sizes of the groups that a node is in: its role in a partition, independent of node names."""
    return sorted(len(group) for group in groups if node in group)
