"""What must hold of one node, checked after every step (paper, Figure 3; shared words: behaviour of a node).

A broken invariant is a bug in this program or in a peer: the node stops at once, loudly, also under
`python -O`. Checks that need several nodes or a whole history live with the tests and the simulator.
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
    rules = (
        (after.current_term >= before.current_term, "term decreased"),
        (after.commit_index >= before.commit_index, "commit_index decreased"),
        (after.commit_index <= after.last_index, "commit_index beyond the log"),
        (after.durable_index <= after.last_index, "durable_index beyond the log"),
        (after.last_term <= after.current_term, "log of a later term than the node's"),
        (
            not same_term or before.voted_for is None or after.voted_for == before.voted_for,
            "vote changed within a term (election safety)",
        ),
        (
            not same_term or before.role != Role.LEADER or after.role in (Role.LEADER, Role.FOLLOWER),
            "leader became candidate in its own term",
        ),
        (
            not same_term or not before.role == after.role == Role.LEADER or after.last_index >= before.last_index,
            "leader erased entries (leader append-only)",
        ),
    )
    return next((rule for holds, rule in rules if not holds), "")
