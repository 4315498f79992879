"""Messages between nodes (paper, Figure 2). proto/raft.proto documents every field.

A message names its sender and receiver. Requests carry a `sequence` that their replies echo. `fault` checks the rules
that every message obeys, in any state of its sender and receiver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raft_actor_node.core.types import NodeId


@dataclass(frozen=True, slots=True)
class RequestVote:
    """RequestVote RPC (section 5.2). In a pre-vote, `term` is the term that the candidate would have."""

    from_id: NodeId
    to_id: NodeId
    term: int
    last_log_index: int
    last_log_term: int
    pre_vote: bool
    sequence: int


@dataclass(frozen=True, slots=True)
class RequestVoteReply:
    """Answer to RequestVote. `term` is the voter's own term, `request_term` that of the request."""

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

    A refusal names the conflict: `conflict_term` (0: the log is too short) and the first index of that term. The leader
    can thus skip a term per round trip (end of section 5.3).
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

MOST = 2**63 - 1
"""Largest term, index and sequence. Small sums of such numbers still fit into the 64 bits of logs and messages."""


def fault(message: Message) -> str:
    """Describe in one line how a message breaks a rule; empty if a correct node may have sent it."""
    match message:
        case AppendEntries():
            return _append_fault(message)
        case RequestVote(_, _, term, index, index_term, _, sequence):
            # A candidate's term is above all terms of its log.
            if _fits(term, index, sequence) and _is_place(index, index_term) and index_term < term:
                return ""
            return f"RequestVote: term {term}, last entry {index} of term {index_term}"
        case RequestVoteReply(_, _, term, asked, granted, pre_vote, sequence):
            # A pre-vote is granted for a term above the voter's own, a vote for the voter's own term.
            right = not granted or (term < asked if pre_vote else term == asked)
            if _fits(term, asked, sequence) and asked >= 1 and right:
                return ""
            return f"RequestVoteReply: term {term}, request of term {asked}, pre-vote: {pre_vote}, granted: {granted}"
    return _append_reply_fault(message)


def _append_fault(request: AppendEntries) -> str:
    terms, prev, prev_term = request.entry_terms, request.prev_log_index, request.prev_log_term
    found = ""
    if len(terms) != len(request.entry_payloads):
        found = f"{len(terms)} terms and {len(request.entry_payloads)} payloads"
    elif not _fits(request.term, prev + len(terms), request.leader_commit, request.sequence):
        found = f"a number outside 63 bits: {request.term}, {prev}, {request.leader_commit}, {request.sequence}"
    elif not 1 <= request.term >= prev_term or not _is_place(prev, prev_term):
        found = f"term {request.term}, previous entry {prev} of term {prev_term}"
    elif list(terms) != sorted(terms):
        found = f"the terms of the entries from {prev + 1} on decrease"
    elif terms and not max(prev_term, 1) <= terms[0] <= terms[-1] <= request.term:
        found = f"entries of terms {terms[0]} to {terms[-1]} after term {prev_term}, in term {request.term}"
    return found and f"AppendEntries: {found}"


def _append_reply_fault(reply: AppendEntriesReply) -> str:
    rejected, conflict = reply.rejected_index, (reply.conflict_term, reply.conflict_index)
    rules = [
        _fits(reply.term, reply.match_index, rejected, reply.conflict_index, reply.sequence),
        1 <= reply.request_term <= reply.term,
    ]
    if reply.success:
        rules += [reply.term == reply.request_term, rejected == 0, conflict == (0, 0)]
    elif reply.term > reply.request_term:  # the request was stale, so the follower ignored its content
        rules += [reply.match_index == 0, conflict == (0, 0)]
    else:
        rules += [reply.match_index == 0, 1 <= reply.conflict_index <= rejected, reply.conflict_term <= reply.term]
    if all(rules):
        return ""
    return (
        f"AppendEntriesReply of term {reply.term} to term {reply.request_term}: success {reply.success}, "
        f"match {reply.match_index}, rejected {rejected}, conflict {reply.conflict_index} of term {reply.conflict_term}"
    )


def _fits(*numbers: int) -> bool:
    return min(numbers) >= 0 and max(numbers) <= MOST


def _is_place(index: int, term: int) -> bool:
    """Return whether a log can have an entry of this term at this index. Index 0, of term 0, precedes the first."""
    return (index == 0) == (term == 0)
