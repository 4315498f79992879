"""One follower as its leader sees it (paper, Figure 2: nextIndex and matchIndex).

    REPLICATING  batches follow each other without waiting (pipelining), within a window
    PROBING      one empty AppendEntries at a time asks whether the logs agree just before next_index

A new leader is an optimist and starts replicating behind its own last entry. A refusal turns to probing at
the place that it names. A batch that is not answered in time turns to probing as well, behind the last entry
sent: is it all there, and only the disk is slow, nothing is sent again; is something missing, the refusal
says what. Success of a probe turns back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf


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
    inflight: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(last index, bytes, sequence) of each batch that the follower has not answered as durable."""
    inflight_bytes: int = 0
    resend_at: float = inf
    """When what is under way must be asked after; inf when nothing is."""

    def sent(self, last_index: int, size: int, sequence: int, resend_at: float) -> None:
        """A batch that ends at last_index is under way."""
        self.next_index = last_index + 1
        self.inflight.append((last_index, size, sequence))
        self.inflight_bytes += size
        self.resend_at = min(self.resend_at, resend_at)

    def matched(self, match_index: int, sequence: int, resend_at: float) -> None:
        """The request `sequence` succeeded; the follower holds everything up to match_index, durably."""
        news = match_index > self.match_index
        self.match_index = max(self.match_index, match_index)
        if self.probing and sequence >= self.probe_sequence:
            self.probing, news = False, True
            if self.match_index < self.next_index - 1 and not self.inflight:
                # It holds that much, but not durably, and owes this leader no answer: it must be asked again.
                self.inflight.append((self.next_index - 1, 0, 0))
        self.next_index = max(self.next_index, self.match_index + 1)
        while self.inflight and self.inflight[0][0] <= self.match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if self.probing:
            return
        if not self.inflight:
            self.resend_at = inf
        elif news or any(sequence == batch for _, _, batch in self.inflight):
            # The follower holds more than before, or a part of a batch arrived. An answered heartbeat says nothing
            # about a batch that may be lost.
            self.resend_at = resend_at

    def ask_after(self, sequence: int) -> None:
        """Ask, with requests numbered from `sequence` on, whether all that was sent arrived."""
        if not self.probing:  # a repeated question is answered by the first answer as well as by the last
            self.probing, self.probe_sequence = True, sequence

    def search(self, next_index: int, sequence: int) -> None:
        """Search from next_index on; whatever was under way beyond it is of no use."""
        self.probing, self.probe_sequence = True, sequence
        self.next_index = max(next_index, self.match_index + 1)
        self.resend_at = inf
        self.inflight.clear()
        self.inflight_bytes = 0
