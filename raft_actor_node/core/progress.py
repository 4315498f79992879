"""A follower as seen by its leader (paper, Figure 2: nextIndex and matchIndex).

    REPLICATING  the leader sends batches without waiting for answers (pipelining), within a window
    PROBING      one empty AppendEntries at a time asks whether the logs agree just before next_index

A new leader is optimistic: it starts to replicate after its own last entry. A refusal switches to probing at the index
that the refusal names. An unanswered batch also switches to probing, after the last entry sent. If the follower has all
entries and only its disk is slow, the leader sends none again; otherwise the follower's refusal names the missing
entries. A successful probe switches back to replicating.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf


@dataclass(slots=True)
class FollowerProgress:
    """What the leader knows about a follower. Always next_index > match_index."""

    next_index: int
    last_contact: float
    """Time of the last reply of this term."""
    match_index: int = 0
    probing: bool = False
    probe_sequence: int = 0
    """Sequence of the first request of the present probe; answers to older requests do not end the probe."""
    acked_sequence: int = 0
    """Highest sequence of an answered request of this leadership."""
    inflight: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(last index, bytes, sequence) of each batch that the follower has not acknowledged as durable."""
    inflight_bytes: int = 0
    resend_at: float = inf
    """When to probe for the batches in flight, or to repeat the probe; inf: neither is needed."""

    def sent(self, last_index: int, size: int, sequence: int, resend_at: float) -> None:
        """Note that a batch ending at last_index was sent."""
        self.next_index = last_index + 1
        self.inflight.append((last_index, size, sequence))
        self.inflight_bytes += size
        self.resend_at = min(self.resend_at, resend_at)

    def matched(self, match_index: int, sequence: int, resend_at: float) -> None:
        """Note that request `sequence` succeeded: the follower holds everything up to match_index durably."""
        news = match_index > self.match_index
        self.match_index = max(self.match_index, match_index)
        if self.probing and sequence >= self.probe_sequence:
            self.probing, news = False, True
            if self.match_index < self.next_index - 1 and not self.inflight:
                # The follower holds more, but not durably, and owes no answer: the leader must probe again.
                self.inflight.append((self.next_index - 1, 0, 0))
        self.next_index = max(self.next_index, self.match_index + 1)
        while self.inflight and self.inflight[0][0] <= self.match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if self.probing:
            return
        if not self.inflight:
            self.resend_at = inf
        elif news or any(sequence == batch for _, _, batch in self.inflight):
            # The follower made progress, or a part of a batch arrived. The answer to a heartbeat shows neither: the
            # batches may be lost.
            self.resend_at = resend_at

    def ask_after(self, sequence: int) -> None:
        """Probe, with requests numbered from `sequence` on, whether all sent entries arrived."""
        if not self.probing:  # the answer to any repetition of a probe ends the probe
            self.probing, self.probe_sequence = True, sequence

    def search(self, next_index: int, sequence: int) -> None:
        """Search from next_index on, and discard the batches in flight."""
        self.probing, self.probe_sequence = True, sequence
        self.next_index = max(next_index, self.match_index + 1)
        self.resend_at = inf
        self.inflight.clear()
        self.inflight_bytes = 0
