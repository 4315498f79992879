"""One follower as its leader sees it (paper, Figure 2: nextIndex and matchIndex).

    PROBING      the point where the logs agree is being searched: one empty AppendEntries at a time
    REPLICATING  it is known: batches follow each other without waiting (pipelining), within a window

A new leader is an optimist and starts replicating behind its own last entry; a refusal, or a request that
is not answered in time, turns to probing; any success turns back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

MAX_BACKOFF = 6
"""Resending waits at most 2 ** MAX_BACKOFF rpc timeouts: a follower may just be slow to write."""


@dataclass(slots=True)
class Progress:
    """What the leader knows of one follower. next_index > match_index always."""

    next_index: int
    last_contact: float
    """Time of the last reply of this term."""
    match_index: int = 0
    probing: bool = False
    probe_sequence: int = 0
    """Sequence of the first request of this search step: older answers do not end it."""
    acked_sequence: int = 0
    """Highest sequence of a request of this leadership that was answered."""
    inflight: deque[tuple[int, int]] = field(default_factory=deque)
    """(last index, bytes) of each unanswered batch."""
    inflight_bytes: int = 0
    resend_at: float = inf
    """When what is under way counts as lost; inf when nothing is."""
    backoff: int = 0
    """How often in a row something was sent again without progress."""

    def sent(self, last_index: int, size: int, resend_at: float) -> None:
        """A batch that ends at last_index is under way."""
        self.next_index = last_index + 1
        self.inflight.append((last_index, size))
        self.inflight_bytes += size
        self.resend_at = min(self.resend_at, resend_at)

    def matched(self, match_index: int, sequence: int, resend_at: float) -> None:
        """The request `sequence` succeeded; the follower holds everything up to match_index, durably."""
        advanced = match_index > self.match_index
        if advanced:
            self.match_index = match_index
            self.backoff = 0
        if self.probing and sequence >= self.probe_sequence:
            self.probing = False
            # What it may hold beyond that, not yet durable, is sent again: an answer may have been lost.
            self.next_index = self.match_index + 1
        self.next_index = max(self.next_index, self.match_index + 1)
        if self.probing:
            return
        while self.inflight and self.inflight[0][0] <= self.match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if not self.inflight:
            self.resend_at = inf
        elif advanced:  # an answered heartbeat says nothing about a batch that may be lost
            self.resend_at = resend_at

    def probe(self, next_index: int, sequence: int) -> None:
        """Search from next_index on, with requests numbered from `sequence` on."""
        self.probing = True
        self.probe_sequence = sequence
        self.next_index = max(next_index, self.match_index + 1)
        self.resend_at = inf
        self.inflight.clear()
        self.inflight_bytes = 0
