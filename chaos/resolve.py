"""From faults that name nodes by their part to faults that name them by id. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import TypeVar

from chaos.faults import SELECTORS, Fault, LinkFault, MessageFault, Partition, format_moment
from chaos.links import SHAPES, Groups
from raft_actor_node.core.quorum import largest_minority, quorum_size
from raft_actor_node.links import CLIENTS
from raft_actor_node.text import did_you_mean

F = TypeVar("F", bound=Fault)


def needs_leader(fault: Fault) -> bool:
    """Whether the leader must be known before the fault can be resolved."""
    return isinstance(fault.where, str) and names_leader(fault.where)


def names_leader(where: str) -> bool:
    """Whether a selector, or the shape of a partition, says where the leader is, or that it is not there."""
    return SHAPES[where].leader is not None if where in SHAPES else where in ("leader", "follower", "followers")


def refusal(fault: Fault, nodes: Sequence[str]) -> str:
    """Why the fault cannot happen in a cluster of these nodes, in one line that names the field; or nothing."""
    n, field, where = len(nodes), fault.nodes_key, fault.where
    if isinstance(where, str):
        needed = SHAPES[where].min_nodes if isinstance(fault, Partition) else SELECTORS[where]
        if n < needed:
            return f"{field}: {where} needs at least {needed} nodes, the cluster has {n}"
    unknown = [node for node in fault.ids if node not in nodes]
    if unknown:
        hint = did_you_mean(unknown[0], (*nodes, *(() if isinstance(fault, Partition) else SELECTORS)))
        return f"{field}: the cluster has no node {unknown[0]!r}{hint} (nodes: {', '.join(nodes)})"
    if isinstance(fault, Partition) and isinstance(where, tuple) and len(fault.ids) < n:
        return f"{field}: {', '.join(node for node in nodes if node not in fault.ids)} in no group"
    if isinstance(fault, Partition) and isinstance(fault.lasts, float) and 0 < fault.lasts <= fault.behind_s:
        lasts, behind = format_moment(fault.lasts), format_moment(fault.behind_s)
        return f"{field}: behind: {behind} leaves nothing of heal_after, {lasts}"
    if isinstance(fault, LinkFault) and n < 2 and not (isinstance(fault, MessageFault) and fault.between != "nodes"):
        return f"{fault.kind}: a single node has no links to other nodes"
    return ""


def resolve(fault: F, nodes: Sequence[str], leader: str | None, rng: Random) -> F:
    """The fault with node ids in place of selectors and groups in place of a shape.

    `leader` may be None unless needs_leader(fault). What was resolved before stays as it is.
    """
    where = fault.where
    if isinstance(where, tuple):
        return fault
    if isinstance(fault, Partition):
        groups = _groups(fault, nodes, leader, rng)
        return fault.model_copy(update={"partition": groups, "clients": None, "behind": fault.behind_s or None})
    return fault.on(_select(where, nodes, leader, rng))


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


def _groups(fault: Partition, nodes: Sequence[str], leader: str | None, rng: Random) -> Groups:
    shape = SHAPES[str(fault.partition)]
    members = rng.sample(nodes, len(nodes))
    if leader is not None and shape.leader:
        members.remove(leader)
        members.insert(0 if shape.leader == "first" else len(members), leader)
    groups = list(shape.groups(members))
    if fault.clients:
        side = 0 if fault.clients == "minority" else 1
        groups[side] = (*groups[side], CLIENTS)
    return tuple(groups)
