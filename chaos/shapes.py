"""Arithmetic of link faults: which links a fault affects, and which links a partition cuts. Pure functions.

A partition is a tuple of groups: two members reach each other exactly when they share a group. Disjoint groups are an
ordinary split; overlapping groups make a bridge, a ring or a star. `CLIENTS` may be a member. Clients that are in no
group reach every node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from typing import Literal, NamedTuple

from raft_actor_node.core.quorum import largest_minority, quorum_size
from raft_actor_node.links import CLIENTS, LinkRule

Link = tuple[str, str]
"""A directed link: the sender's node id and the receiver's."""
Groups = tuple[tuple[str, ...], ...]
"""The groups of a partition."""
Direction = Literal["in", "out", "both"]
"""Messages to a node, from it, or both."""
Between = Literal["nodes", "clients", "all"]
"""Links between nodes, links between nodes and clients, or both."""


def touching(
    chosen: Iterable[str], nodes: Sequence[str], direction: Direction = "both", between: Between = "nodes"
) -> list[Link]:
    """Return the links into, out of, or in both directions of the chosen nodes, each once."""
    of = set(chosen)
    return [
        (a, b) for a, b in _links(nodes, between) if (direction != "out" and b in of) or (direction != "in" and a in of)
    ]


def separated(groups: Groups, nodes: Sequence[str]) -> list[Link]:
    """Return the links between members that share no group."""
    sees = {pair for group in groups for pair in permutations(group, 2)}
    with_clients = any(CLIENTS in group for group in groups)
    return [link for link in _links(nodes, "all" if with_clients else "nodes") if link not in sees]


def cut(links: Iterable[Link]) -> list[LinkRule]:
    """Return rules that cut these links."""
    return [LinkRule(from_id=a, to_id=b, cut=True) for a, b in links]


def compose(tables: Iterable[Sequence[LinkRule]]) -> list[LinkRule]:
    """Return one table in which the faults of all tables are in force.

    Several rules on one link all take effect: two losses of one half lose three quarters. Duplicate cuts are merged,
    because a link cannot be cut twice.
    """
    rules = [rule for table in tables for rule in table]
    return list(dict.fromkeys(r for r in rules if r.cut)) + [r for r in rules if not r.cut]


def _links(nodes: Sequence[str], between: Between) -> list[Link]:
    ends = nodes if between == "nodes" else (*nodes, CLIENTS)
    return [link for link in permutations(ends, 2) if between != "clients" or CLIENTS in link]


class Shape(NamedTuple):
    """A named partition: a function from a list of members to groups. The order of the list assigns the roles."""

    groups: Callable[[Sequence[str]], Groups]
    leader: Literal["first", "last"] | None
    """Where the leader must be in the list of members; None: anywhere."""
    min_nodes: int
    """The smallest cluster in which the shape cuts what its name promises."""
    two_sided: bool = False
    """Whether the groups are (minority, majority); for `halves` of an even cluster, two halves."""
    has_hub: bool = False
    """Whether one node, the hub, is in every group of two or more nodes.

    The nodes of different groups then communicate only through the hub.
    """
    behind_s: float = 0.0
    """How long the hub is cut off beforehand, unless the fault sets `behind`."""


def _halves(members: Sequence[str]) -> Groups:
    return _split(members, len(members) // 2)


def _minority_first(members: Sequence[str]) -> Groups:
    return _split(members, largest_minority(len(members)))


def _split(members: Sequence[str], size: int) -> Groups:
    return tuple(members[:size]), tuple(members[size:])


def _ring(members: Sequence[str]) -> Groups:
    # Each node reaches `reach` neighbours on either side. With them it forms a majority, a different one for every
    # node. Nodes that are at most `reach` apart share one of the n windows of reach + 1 nodes.
    n = len(members)
    reach = quorum_size(n) // 2
    return tuple(tuple(members[(start + i) % n] for i in range(reach + 1)) for start in range(n))


def _bridge(members: Sequence[str]) -> Groups:
    bridge, *others = members
    return tuple((bridge, *side) for side in _halves(others))


def _star(members: Sequence[str]) -> Groups:
    hub, *others = members
    return tuple((hub, other) for other in others)


def _chained(members: Sequence[str]) -> Groups:
    return tuple(members[:-1]), tuple(members[1:])


def _constrained(members: Sequence[str]) -> Groups:
    alone, *others = members
    return ((alone,), *_star(others))


SHAPES: dict[str, Shape] = {
    "leader-in-minority": Shape(_minority_first, "first", 3, two_sided=True),
    "leader-in-majority": Shape(_minority_first, "last", 3, two_sided=True),
    "majority-minority": Shape(_minority_first, None, 3, two_sided=True),
    "halves": Shape(_halves, None, 2, two_sided=True),
    "ring": Shape(_ring, None, 4),
    "bridge": Shape(_bridge, "last", 3, has_hub=True),
    "quorum-loss": Shape(_star, "last", 4, has_hub=True),
    "chained": Shape(_chained, "first", 3),
    "constrained-election": Shape(_constrained, "first", 4, has_hub=True, behind_s=1.0),
}
"""Partitions by name.

The last three are the partial connectivity cases of Ng, Haridi and Carbone (Omni-Paxos, EuroSys 2023, section 2). In
the first, only one follower, the hub, reaches a quorum, and all others reach only the hub. In the second, the leader
and one follower do not reach each other. In the third, the leader is isolated, and the only node that reaches a quorum
lacks committed entries.
"""


def hubs(groups: Groups) -> tuple[str, ...]:
    """Return the nodes in several groups, through which the other nodes communicate."""
    members = [node for group in groups for node in group]
    return tuple(dict.fromkeys(node for node in members if members.count(node) > 1 and node != CLIENTS))
