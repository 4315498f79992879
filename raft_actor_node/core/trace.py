"""Trace events: one per change of a node that a reader or a checker needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from raft_actor_node.core.types import NodeId


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event. The driver adds number and time.

    kind: started | became_follower | became_pre_candidate | became_candidate | became_leader |
        vote_granted | leader_heard | log_truncated | commit

    With these fields checkers need no log. `started`: the end of the log and the vote found on disk (peer_id).
    `became_leader`: the end of the log before the no-op. `commit`: the last entry committed. `log_truncated`: the first
    entry erased.
    """

    kind: str
    term: int
    index: int = 0
    peer_id: NodeId = ""
    detail: str = ""
    log_term: int = 0
    """Term of the entry at `index`."""
    durable_index: int = 0
    """Highest index on disk at that moment. A later incarnation finds as much, unless a log_truncated lies between."""


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """A trace event read back from a file (trace_lines.py), with its node, number and time."""

    node: str
    number: int | None
    """Number of the event within one incarnation, from 1; None: missing in the line."""
    time_ns: int
    """Time in nanoseconds, on the reader's clock; 0: missing in the line."""
    kind: str
    """As in TraceEvent, or any other word of a foreign program. Empty: missing in the line."""
    term: int
    index: int = 0
    log_term: int | None = None
    """None: missing in the line."""
    durable_index: int | None = None
    """None: missing in the line."""
    peer: str = ""
    detail: str = ""
    damaged: bool = False
    """Whether a field has the wrong type, or term or index is missing."""

    def as_json(self) -> dict[str, int | str]:
        """Return the fields of a line, without those that were missing."""
        fields: dict[str, int | str | None] = {
            "node": self.node,
            "number": self.number,
            "time_ns": self.time_ns,
            "kind": self.kind,
            "term": self.term,
            "index": self.index,
            "log_term": self.log_term,
            "durable_index": self.durable_index,
            "peer": self.peer,
            "detail": self.detail,
        }
        return {name: value for name, value in fields.items() if value is not None}
