"""Made-up trace records and statuses for the tests of checks."""

from __future__ import annotations

from typing import Any

from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.trace_lines import read_record

SECOND = 10**9
NODES = ("n1", "n2", "n3")


def event(node: str, number: int, kind: str, term: int, time_ns: int = 0, **more: Any) -> TraceRecord:
    fields = {"number": number, "time_ns": time_ns, "kind": kind, "term": term, "index": 0, "log_term": 0, "peer": ""}
    return read_record(node, {**fields, **more})


LED = [
    event("n1", 1, "started", 0),
    event("n2", 1, "started", 0),
    event("n1", 2, "became_candidate", 1, 10),
    event("n2", 2, "vote_granted", 1, 11, peer="n1"),
    event("n1", 3, "became_leader", 1, 12),
    event("n1", 4, "commit", 1, 13, index=1, log_term=1),
]
