"""The story of a node, told by the node: one event per change that a reader or a checker cares about."""

from __future__ import annotations

from dataclasses import dataclass

from raft_actor_node.core.types import NodeId


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event. The driver adds number and time.

    kind: started | became_follower | became_pre_candidate | became_candidate | became_leader |
    vote_granted | leader_heard | log_truncated | commit
    """

    kind: str
    term: int
    index: int = 0
    peer_id: NodeId = ""
    detail: str = ""
