"""Liveness, in a separate phase: faults are frozen or healed, and a connected majority must elect a leader.

Liveness is judged only in this phase, because no protocol can guarantee a leader while faults change. The caller
ensures that the members of a majority run and reach each other in both directions. Raft does not guarantee a leader if
some node reaches a quorum but no majority is fully connected (constrained election). Without pre-vote, there is no
guarantee either if other nodes hear some node that hears none of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft_actor_node.core.node import RaftNode
from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.core.types import Role

LIVENESS_BOUND = 10
"""Time within which a connected majority must have a leader, in longest election timeouts."""


def patience_s(election_timeout_max_s: float, slowest_clock: float = 1.0) -> float:
    """Return how long to wait for a leader, in true time, if node clocks run at least at the rate `slowest_clock`."""
    return LIVENESS_BOUND * election_timeout_max_s / slowest_clock


def established_leader(nodes: Iterable[RaftNode]) -> RaftNode | None:
    """Return the leader that a quorum, itself included, follows in its term; None if there is none."""
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
