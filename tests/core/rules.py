"""The rules of Raft that need more than one node, or more than one life of it (paper, Figure 3).

`Rules` watches a world from outside: what each node holds after each step, what leaves it, and what its disk
held at that moment. It knows no role's duties, only what must never be seen.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from raft_actor_node.core import (
    AppendEntriesReply,
    Effects,
    HardState,
    Message,
    Persist,
    RaftNode,
    RequestVote,
    RequestVoteReply,
    Role,
)


@dataclass
class Disk:
    """What one node's disk holds for certain; `write` is the moment at which an fsync returns."""

    hard_state: HardState = field(default_factory=HardState)
    terms: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    commit_index: int = 0

    def write(self, persist: Persist, *, entries: bool = True) -> None:
        """The hard state, then the entries as one unit (or not, when the power fails in between)."""
        self.hard_state = persist.hard_state or self.hard_state
        if not entries:
            return
        assert persist.first_index <= len(self.terms) + 1, "a Persist leaves a gap in the log"
        if persist.terms:
            self.terms[persist.first_index - 1 :] = persist.terms
            self.payloads[persist.first_index - 1 :] = persist.payloads
        self.commit_index = max(self.commit_index, min(persist.commit_index, len(self.terms)))


class Rules:
    """Everything seen so far, by all nodes in all their lives, and the checks against it."""

    def __init__(self, disks: Mapping[str, Disk]) -> None:
        self.disks = disks
        self.leaders: dict[int, str] = {}  # by term
        self.votes: dict[tuple[str, int], str] = {}  # by voter and term
        self.entries: dict[tuple[int, int], tuple[bytes, int]] = {}  # (index, term): payload, term before it
        self.committed: list[tuple[int, bytes]] = []
        self.committed_in: list[int] = []  # term of the leader that committed the entry
        self.acknowledged = 0  # highest index of which a client has an answer
        self.reads: dict[int, int | None] = {}  # answers: index, or None when refused
        self._read_floor: dict[int, int] = {}
        self._accepted: dict[str, dict[int, int]] = {}
        self._terms: dict[str, array[int]] = {}
        self._applied: dict[str, int] = {}

    def started(self, node: RaftNode) -> None:
        """A node begins a life with what its disk kept."""
        self._accepted[node.node_id], self._applied[node.node_id] = {}, 0
        self._terms[node.node_id] = array("Q")
        self._check_log(node, None)

    def read_asked(self, read_id: int) -> None:
        """A client asks: the answer must know everything that was acknowledged before."""
        self._read_floor[read_id] = self.acknowledged

    def stepped(self, node: RaftNode, effects: Effects, led: int | None) -> None:
        """A node made a step; before it, it led the term `led`."""
        for event in effects.trace:
            if event.kind == "became_leader":
                self._check_leader(node, event.term)
        assert node.role != Role.LEADER or self.leaders[node.current_term] == node.node_id
        self._check_log(node, led)
        for accepted in effects.accepted:
            behind = node.log.last_index + 1
            self._accepted[node.node_id].update(dict.fromkeys(range(accepted.first_index, behind), accepted.term))
        self._check_commit(node)
        for ready in effects.reads:
            assert ready.index >= self._read_floor[ready.read_id], f"stale read: {ready}"
            assert ready.index <= node.commit_index, f"read of what is not committed: {ready}"
            self.acknowledged = max(self.acknowledged, ready.index)  # later reads must not fall behind it
            self.reads[ready.read_id] = ready.index
        self.reads.update(dict.fromkeys(effects.reads_refused))

    def _check_leader(self, node: RaftNode, term: int) -> None:
        first = self.leaders.setdefault(term, node.node_id)
        assert first == node.node_id, f"election safety: {first} and {node.node_id} lead term {term}"
        end = bisect_left(self.committed_in, term)  # what was committed in older terms
        held = list(zip(node.log.terms(1, end + 1), node.log.payloads(1, end + 1), strict=True))
        assert held == self.committed[:end], f"leader completeness: {node.node_id} in term {term}"

    def _check_log(self, node: RaftNode, led: int | None) -> None:
        """Log matching, by induction: who has (index, term) has the same payload and the same term before it."""
        log, old = node.log, self._terms[node.node_id]
        terms = log.terms(1, log.last_index + 1)
        if terms == old:
            return
        shorter = min(len(terms), len(old))
        same = next((k for k in range(shorter) if terms[k] != old[k]), shorter)
        if node.role == Role.LEADER and node.current_term == led:
            assert same == len(old), f"leader append-only: entry {same + 1} replaced"
        for index in range(same + 1, len(terms) + 1):
            entry = (log.payloads(index, index + 1)[0], log.term_at(index - 1))
            known = self.entries.setdefault((index, terms[index - 1]), entry)
            assert known == entry, f"log matching at {index}: {entry} and {known}"
        self._terms[node.node_id] = terms

    def _check_commit(self, node: RaftNode) -> None:
        i, log, commit = node.node_id, node.log, node.commit_index
        for index in range(len(self.committed) + 1, commit + 1):  # committed for the first time, anywhere
            term, payload = log.term_at(index), log.payloads(index, index + 1)[0]
            copies = sum(len(d.terms) >= index and d.terms[index - 1] == term for d in self.disks.values())
            assert copies > len(self.disks) // 2, f"commit of {index} with {copies} durable copies"
            self.committed.append((term, payload))
            self.committed_in.append(node.current_term)
        done = self._applied[i]
        assert commit >= done, f"commit_index went back from {done} to {commit}"
        new = list(zip(log.terms(done + 1, commit + 1), log.payloads(done + 1, commit + 1), strict=True))
        assert new == self.committed[done:commit], f"state machine safety: {new} applied behind {done}"
        for index in range(done + 1, commit + 1):
            if self._accepted[i].get(index) == log.term_at(index):
                self.acknowledged = max(self.acknowledged, index)
        self._applied[i] = commit

    def left(self, message: Message, node: RaftNode) -> None:
        """A message leaves: term, vote and entries in it are on disk. One vote per term, also across lives."""
        i, disk = message.from_id, self.disks[message.from_id]
        stored, vote = disk.hard_state, None
        match message:
            case RequestVote(pre_vote=False):
                vote = (message.term, i)
            case RequestVoteReply(pre_vote=False, vote_granted=True):
                vote = (message.request_term, message.to_id)
            case AppendEntriesReply(success=True, match_index=index) if index:
                assert len(disk.terms) >= index, f"entries promised before fsync: {message}"
                if node.current_term == message.term:
                    same = disk.terms[index - 1] == node.log.term_at(index)
                    assert same, f"entries promised, others on disk: {message}"
        if not (isinstance(message, RequestVote) and message.pre_vote):
            assert stored.current_term >= message.term, f"term shown before fsync: {message}"
        if vote:
            assert vote == (stored.current_term, stored.voted_for), f"vote shown before fsync: {message}"
            assert self.votes.setdefault((i, vote[0]), vote[1]) == vote[1], f"two votes in a term: {message}"
