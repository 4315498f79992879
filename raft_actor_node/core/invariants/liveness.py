"""Liveness, for a phase of its own: faults are frozen or gone, and a connected majority must come to have a leader.

It is judged only there: while faults strike, no protocol can promise a leader. The caller sees to it that there is
a majority whose members run and see one another, both ways; where some node sees a quorum but no majority sees each
other, nothing is promised (constrained election), and neither is it, without pre-vote, beside a node that is heard
and hears nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft_actor_node.core.node import RaftNode
from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.core.types import Role

LIVENESS_BOUND = 10
"""Longest election timeouts within which a connected majority must have a leader."""


def patience_s(election_timeout_max_s: float, slowest_clock: float = 1.0) -> float:
    """How long to wait for a leader, in true time, when node clocks may run as slow as this."""
    return LIVENESS_BOUND * election_timeout_max_s / slowest_clock


def established_leader(nodes: Iterable[RaftNode]) -> RaftNode | None:
    """The node that leads and that a quorum, itself included, follows in its term; None when there is none."""
    running = list(nodes)
    for node in running:
        if node.role != Role.LEADER:
            continue
        following = sum(
            other.leader_id == node.node_id and other.current_term == node.current_term for other in running
        )
        if following >= quorum_size(len(node.peers) + 1):
            return node
    return None
