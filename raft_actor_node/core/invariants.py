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
    require(after.current_term >= before.current_term, f"term decreased: {before} -> {after}")
    require(after.commit_index >= before.commit_index, f"commit_index decreased: {before} -> {after}")
    require(after.commit_index <= after.last_index, f"commit_index beyond the log: {after}")
    require(after.durable_index <= after.last_index, f"durable_index beyond the log: {after}")
    require(after.last_term <= after.current_term, f"log of a later term than the node's: {after}")
    if after.current_term == before.current_term:
        same_vote = before.voted_for is None or after.voted_for == before.voted_for
        require(same_vote, f"vote changed within a term (election safety): {before} -> {after}")
        stays = before.role != Role.LEADER or after.role in (Role.LEADER, Role.FOLLOWER)
        require(stays, f"leader became candidate in its own term: {before} -> {after}")
        append_only = not (before.role == after.role == Role.LEADER) or after.last_index >= before.last_index
        require(append_only, f"leader erased entries (leader append-only): {before} -> {after}")
