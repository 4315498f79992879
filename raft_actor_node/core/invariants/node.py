"""What must hold of one node, checked by the node itself after every step (paper, Figure 3).

A broken invariant is a bug in this program or in a peer: the node stops at once, loudly, also under
`python -O`. What needs several nodes, or several lives of one, is in cluster.py and history.py.
"""

from __future__ import annotations

from typing import NamedTuple

from raft_actor_node.core.types import NodeId, Role
from raft_actor_node.errors import InvariantViolated


class Snapshot(NamedTuple):
    """The numbers that the checks compare, cheap to take."""

    role: Role
    current_term: int
    voted_for: NodeId | None
    leader_id: NodeId | None
    last_index: int
    last_term: int
    durable_index: int
    commit_index: int


def require(condition: bool, rule: str) -> None:
    """Raise InvariantViolated with the rule's name unless the condition holds."""
    if not condition:
        raise InvariantViolated(rule)


def check(before: Snapshot, after: Snapshot) -> None:
    """Check one state, and a pair of states with one step between them. Raises InvariantViolated."""
    rule = _broken(before, after)
    if rule:
        raise InvariantViolated(f"{rule}: {before} -> {after}")


def _broken(before: Snapshot, after: Snapshot) -> str:
    """The first rule that does not hold; empty when all do."""
    same_term = after.current_term == before.current_term
    led = same_term and before.role == Role.LEADER
    rule = ""
    if after.current_term < before.current_term:
        rule = "term decreased"
    elif after.commit_index < before.commit_index:
        rule = "commit_index decreased"
    elif after.commit_index > after.last_index:
        rule = "commit_index beyond the log"
    elif after.durable_index > after.last_index:
        rule = "durable_index beyond the log"
    elif after.last_term > after.current_term:
        rule = "log of a later term than the node's"
    elif same_term and before.voted_for is not None and after.voted_for != before.voted_for:
        rule = "vote changed within a term (election safety)"
    elif led and after.role not in (Role.LEADER, Role.FOLLOWER):
        rule = "leader became candidate in its own term"
    elif led and after.role == Role.LEADER and after.last_index < before.last_index:
        rule = "leader erased entries (leader append-only)"
    return rule
