"""What nodes say to each other (paper, Figure 2). proto/raft.proto documents every field.

A message knows both its ends. Requests carry a `sequence` that their replies echo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raft_actor_node.core.types import NodeId


@dataclass(frozen=True, slots=True)
class RequestVote:
    """RequestVote RPC (section 5.2). In a pre-vote, `term` is the one the candidate would have."""

    from_id: NodeId
    to_id: NodeId
    term: int
    last_log_index: int
    last_log_term: int
    pre_vote: bool
    sequence: int


@dataclass(frozen=True, slots=True)
class RequestVoteReply:
    """Answer to RequestVote; `term` is the voter's own, `request_term` that of the request."""

    from_id: NodeId
    to_id: NodeId
    term: int
    request_term: int
    vote_granted: bool
    pre_vote: bool
    sequence: int


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """AppendEntries RPC (section 5.3); without entries it is a heartbeat or a probe.

    `entry_terms` and `entry_payloads` are parallel: a batch costs no object per entry.
    """

    from_id: NodeId
    to_id: NodeId
    term: int
    prev_log_index: int
    prev_log_term: int
    entry_terms: Sequence[int]
    entry_payloads: Sequence[bytes]
    leader_commit: int
    sequence: int


@dataclass(frozen=True, slots=True)
class AppendEntriesReply:
    """Answer to AppendEntries. `match_index` counts durable entries only.

    A refusal names the conflict: `conflict_term` (0: the log is too short) and the first index of that
    term, so that the leader skips a term per round trip (end of section 5.3).
    """

    from_id: NodeId
    to_id: NodeId
    term: int
    request_term: int
    success: bool
    match_index: int
    rejected_index: int
    conflict_term: int
    conflict_index: int
    sequence: int


Request = RequestVote | AppendEntries
Reply = RequestVoteReply | AppendEntriesReply
Message = Request | Reply
