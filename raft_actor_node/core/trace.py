"""The story of a node, told by the node: one event per change that a reader or a checker cares about."""

from __future__ import annotations

from dataclasses import dataclass

from raft_actor_node.core.types import NodeId


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event. The driver adds number and time.

    kind: started | became_follower | became_pre_candidate | became_candidate | became_leader |
    vote_granted | leader_heard | log_truncated | commit

    With what these tell, checkers need no log: `started` its end and the vote that was found (peer_id),
    `became_leader` its end before the no-op, `commit` the last entry committed, `log_truncated` the first erased.
    """

    kind: str
    term: int
    index: int = 0
    peer_id: NodeId = ""
    detail: str = ""
    log_term: int = 0
    """Term of the entry at `index`."""
    durable_index: int = 0
    """Up to where the log is on disk at that moment: a later life must find as much, or tell why not."""
