"""Linearizable reads without log entries (paper, section 8; dissertation, section 6.4).

A leader may answer a read once
 1. a quorum has answered a request that the leader sent *after* the read arrived. The leader still led then, so its log
    held everything acknowledged before; and
 2. the state has applied the read index: the commit index at arrival, but at least the no-op that opened the leader's
    term. Until that no-op is committed, a leader does not know what is committed.
"""

from __future__ import annotations

from collections import deque

from raft_actor_node.core.effects import ReadReady


class ReadQueue:
    """Queue of reads that wait for confirmation, oldest first; sequences and indexes never decrease along it."""

    __slots__ = ("_round", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._round = 0

    def add(self, read_id: int, sequence: int, read_index: int) -> None:
        """Add a read that arrived when `sequence` was the last request number in use."""
        self._waiting.append((read_id, sequence, read_index))

    def round_started(self, sequence: int) -> None:
        """Note that requests to all peers go out, the first of them numbered `sequence`."""
        self._round = sequence

    def wants_round(self, confirmed: float) -> bool:
        """Return whether to start a heartbeat round: no round covers the last read, and no round is in progress.

        With one round at a time, reads that arrive during a round share the next one.
        """
        return bool(self._waiting) and self._waiting[-1][1] >= self._round and confirmed >= self._round

    def ready(self, confirmed: float, commit_index: int) -> list[ReadReady]:
        """Remove and return the reads that may be answered. `confirmed` is the highest sequence a quorum answered."""
        done = []
        while self._waiting and self._waiting[0][1] < confirmed and self._waiting[0][2] <= commit_index:
            read_id, _, index = self._waiting.popleft()
            done.append(ReadReady(read_id, index))
        return done

    def refuse_all(self) -> list[int]:
        """Remove all reads and return their ids: leadership is lost."""
        ids = [read_id for read_id, _, _ in self._waiting]
        self._waiting.clear()
        self._round = 0
        return ids
