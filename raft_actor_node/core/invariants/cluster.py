"""Invariants of a whole cluster, checked after every step of every node.

`ClusterInvariants` observes from outside: the state of each node after a step, the messages that leave, and what its
disk certainly held at that moment. It checks what must never happen, not what a role should do. It does not rely on the
core's bookkeeping where it can observe: votes come from messages that left, durability from completed writes.

Costs. All checks are incremental. A log is compared only when it changed, and an entry is examined once per node that
takes it. Logs are compared by (index, term) pairs, so no check rereads a whole log. If each pair always has the same
payload and the same preceding term, two logs that share a pair are equal up to it (log matching, by induction).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NoReturn, Protocol

from raft_actor_node.core.effects import Effects, HardState, Persist, ReadReady
from raft_actor_node.core.events import Event, Paused, Propose, Read, Receive
from raft_actor_node.core.invariants.local import QUORUM_PATIENCE, Snapshot
from raft_actor_node.core.invariants.rules import Rule
from raft_actor_node.core.messages import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raft_actor_node.core.quorum import quorum_size, reached_by_quorum
from raft_actor_node.core.types import NodeId, Role
from raft_actor_node.errors import InvariantViolated

if TYPE_CHECKING:
    from raft_actor_node.core.node import RaftNode

HASHED_EVERY = 64
"""Entries between two comparisons of whole states, because a state hash takes time proportional to the state."""


class State(Protocol):
    """A replica of the state machine."""

    @property
    def last_applied(self) -> int: ...
    def get(self, key: bytes) -> bytes | None: ...
    def state_hash(self) -> bytes: ...


class StateModel(Protocol):
    """An independent implementation of the state machine."""

    def apply(self, index: int, payload: bytes) -> object:
        """Return the correct result of the entry at `index`. Called once per entry, in order."""

    def mismatch(self, state: State) -> str:
        """Describe how a replica that applied as much as the model differs from it; empty if equal."""


@dataclass(slots=True)
class _Disk:
    """What the disk of a node certainly holds."""

    current_term: int
    voted_for: NodeId | None
    terms: array[int]
    writing: Persist | None = None
    """The write in progress; after a crash, it may or may not be on disk."""


@dataclass(slots=True)
class _Life:
    """An incarnation of a node, as observed so far."""

    node: RaftNode
    terms: array[int]
    """Terms of its log."""
    appended: int
    commit_index: int = 0
    applied: int = 0
    sequence: int = 0
    """Highest sequence of a request that this node sent."""
    reads: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """By read, at its arrival: commit index, sequence, and highest index acknowledged to a client."""
    accepted: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(first index, end, term) of proposals accepted from clients."""
    verified: tuple[int, int] = (0, 0)
    """(term, index): messages from the leader of this term showed that its log and this log agree up to this index."""
    pre_votes: dict[int, set[NodeId]] = field(default_factory=dict)
    """Nodes that would vote for this node, by term."""
    leads: int = 0
    """The term that this node leads, or led last."""
    # The following attributes belong to this leadership, by peer.
    heard: dict[NodeId, float] = field(default_factory=dict)
    """Time of the last answer."""
    acked: dict[NodeId, int] = field(default_factory=dict)
    """Highest sequence of an answered request."""
    promised: dict[NodeId, int] = field(default_factory=dict)
    """Highest index reported durable."""
    match: dict[NodeId, int] = field(default_factory=dict)
    """Last match index of the leader's own bookkeeping."""


class ClusterInvariants:
    """The observer of a cluster. The caller reports everything its nodes do, in order, from their first start on.

    Every method may raise InvariantViolated, which names the rule, the node and the time. `now` is the true time in
    seconds. A node's clock may run slower, down to the rate `slowest_clock`.
    """

    def __init__(self, *, slowest_clock: float = 1.0, model: StateModel | None = None) -> None:
        self.leaders: dict[int, NodeId] = {}
        """Leaders by term, over all nodes and incarnations."""
        self.committed_terms = array("Q")
        self.committed_payloads: list[bytes] = []
        """Payloads of all committed entries, from index 1 on; their terms are in `committed_terms`."""
        self.acknowledged = 0
        """Highest index acknowledged to a client."""
        self.reads_checked = 0
        self.violation: InvariantViolated | None = None
        """The first violation raised, in case a caller caught it."""
        self._slowest_clock = slowest_clock
        self._model = model
        self._now = 0.0
        self._quorum = 0
        self._members: tuple[NodeId, ...] = ()
        self._disks: dict[NodeId, _Disk] = {}
        self._lives: dict[NodeId, _Life] = {}
        self._leading: dict[int, _Life] = {}
        """Running leaders that have not learned of a later term, by term."""
        self._votes: dict[tuple[NodeId, int], NodeId] = {}
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        """Payload, and term of the preceding entry, by (index, term)."""
        self._committed_in = array("Q")
        """Term of the leader that committed each entry."""
        self._results: list[object] = []
        self._state_hashes: dict[int, bytes] = {}

    # ------------------------------------------------------------------------------ what happened

    def started(self, node: RaftNode, now: float) -> None:
        """Check a node that starts with what its disk kept."""
        self._now = now
        node_id, log = node.node_id, node.log
        self._members = (node_id, *node.peers)
        self._quorum = quorum_size(len(self._members))
        terms = log.terms(1, log.last_index + 1)
        known = self._disks.get(node_id)
        if known is not None:
            self._check_recovered(node, known, terms)
        else:
            self._disks[node_id] = _Disk(node.current_term, node.voted_for, array("Q"))
        disk = self._disks[node_id]
        self._set_hard_state(node_id, disk, HardState(node.current_term, node.voted_for))
        self._replace_on_disk(node_id, disk, 1, terms)
        disk.writing = None
        life = self._lives[node_id] = _Life(node, array("Q"), node.counters.entries_appended)
        self._check_log(life, append_only=False)
        if known is None and node.commit_index > len(self.committed_terms):
            self._adopt_committed(node)  # the disks were written before this observer existed
        elif node.commit_index > len(self.committed_terms):
            text = f"starts with commit_index {node.commit_index}, which no leader committed"
            self._fail(Rule.DURABLE_QUORUM, node_id, text)
        self._check_known_committed(life, 0, node.commit_index)
        life.commit_index = node.commit_index

    def stepped(self, node: RaftNode, before: Snapshot, events: Sequence[Event], effects: Effects, now: float) -> None:
        """Check a step: the node handled these events, and no effect has been performed yet."""
        self._now = now
        life = self._lives[node.node_id]
        term = node.current_term
        self._take_in(life, before, events)
        if term != before.current_term or node.voted_for != before.voted_for:
            self._check_ballot(node, life, before, events)
        if node.log.last_index != len(life.terms) or node.counters.entries_appended != life.appended:
            led_on = before.role == Role.LEADER == node.role and before.current_term == term
            self._check_log(life, append_only=led_on)
        self._check_passing_leader(life, effects)
        if node.role == Role.LEADER:
            self._check_leader(life)
        elif life.leads and self._leading.get(life.leads) is life and term > life.leads:
            del self._leading[life.leads]
        if node.commit_index != life.commit_index:
            self._check_commit(life, before)
        if effects.persist is not None:
            self._check_persist(node, effects.persist)
        for message in effects.messages:
            self._check_promise(life, message)
        for ready in effects.reads:
            self._check_read(life, ready)
        for read_id in effects.reads_refused:
            life.reads.pop(read_id, None)
        if effects.accepted:
            counts = {event.proposal_id: len(event.payloads) for event in events if isinstance(event, Propose)}
            for accepted in effects.accepted:
                end = accepted.first_index + counts[accepted.proposal_id]
                life.accepted.append((accepted.first_index, end, accepted.term))

    def synced(self, node_id: NodeId, persist: Persist, now: float) -> None:
        """Note that the disk completed a write."""
        self._now = now
        disk = self._disks[node_id]
        disk.writing = None
        if persist.hard_state is not None:
            self._set_hard_state(node_id, disk, persist.hard_state)
        if len(persist.terms):
            self._replace_on_disk(node_id, disk, persist.first_index, persist.terms)

    def crashed(self, node_id: NodeId, now: float) -> None:
        """Note that a node ended; its write in progress may or may not be on disk."""
        self._now = now
        life = self._lives.pop(node_id, None)
        if life is not None and self._leading.get(life.leads) is life:
            del self._leading[life.leads]

    def applied(self, node_id: NodeId, first_index: int, results: Sequence[object], store: State, now: float) -> None:
        """Check applied entries from `first_index` on. The clients that wait for them count as answered from now on."""
        self._now = now
        life = self._lives[node_id]
        lo, hi = first_index - 1, first_index - 1 + len(results)
        if hi > life.node.commit_index or store.last_applied > life.node.commit_index:
            text = f"applied entry {max(hi, store.last_applied)}, but its commit_index is {life.node.commit_index}"
            self._fail(Rule.LAST_APPLIED, node_id, text)
        if lo != life.applied or hi != store.last_applied:
            text = f"applied {first_index} to {hi} after {life.applied}; its store has applied {store.last_applied}"
            self._fail(Rule.STATE_MACHINE_SAFETY, node_id, text)
        life.applied = hi
        self._check_results(node_id, lo, hi, results, store)
        self._compare_state(node_id, store, due=False)
        accepted = life.accepted
        while accepted and accepted[0][0] <= hi:
            first, end, term = accepted.popleft()
            ours = self.committed_terms[first - 1 : min(end - 1, hi)].count(term)  # a prefix, by log matching
            if ours:
                self.acknowledged = max(self.acknowledged, first + ours - 1)
            if first + ours > hi and first + ours < end:
                accepted.appendleft((first + ours, end, term))

    def answered(self, node_id: NodeId, read_index: int, last_applied: int, now: float) -> None:
        """Check a read that is answered from a state which has applied `last_applied`."""
        self._now = now
        if last_applied < read_index:
            text = f"answered a read of index {read_index} from a state that had applied {last_applied}"
            self._fail(Rule.READ, node_id, text)

    def sent(self, message: Message, now: float) -> None:
        """Do nothing: the step that sent the message was checked."""

    def delivered(self, message: Message, now: float) -> None:
        """Do nothing: the message is among the events of a step."""

    def compare_states(self, states: Mapping[NodeId, State], now: float) -> None:
        """Compare the states of replicas that applied the same prefix. Expensive; for the end of a run."""
        self._now = now
        for node_id, state in states.items():
            self._compare_state(node_id, state, due=True)

    # ------------------------------------------------------------------------------ terms, votes, leaders

    def _take_in(self, life: _Life, before: Snapshot, events: Sequence[Event]) -> None:
        """Note what the node received: answers in this leadership, pre-votes, reads."""
        for event in events:
            if isinstance(event, Receive):
                message = event.message
                if isinstance(message, AppendEntriesReply):
                    if message.request_term == life.leads and message.term <= life.leads:
                        peer = message.from_id
                        life.heard[peer] = self._now
                        life.acked[peer] = max(life.acked.get(peer, 0), message.sequence)
                        if message.success:
                            life.promised[peer] = max(life.promised.get(peer, 0), message.match_index)
                elif isinstance(message, AppendEntries):
                    self._note_verified(life, message)
                elif isinstance(message, RequestVoteReply) and message.pre_vote and message.vote_granted:
                    life.pre_votes.setdefault(message.request_term, {life.node.node_id}).add(message.from_id)
            elif isinstance(event, Read):
                life.reads[event.read_id] = (before.commit_index, life.sequence, self.acknowledged)
            elif isinstance(event, Paused):  # time in which the node did not listen does not count
                missed_s = event.for_s / self._slowest_clock
                life.heard = {peer: min(heard_s + missed_s, self._now) for peer, heard_s in life.heard.items()}

    @staticmethod
    def _note_verified(life: _Life, message: AppendEntries) -> None:
        term, index = life.verified
        if message.term < term:
            return
        end = message.prev_log_index + len(message.entry_terms)
        last_term = message.entry_terms[-1] if message.entry_terms else message.prev_log_term
        if not life.node.log.matches(end, last_term):
            end = 0
        life.verified = message.term, max(end, index if message.term == term else 0)

    def _check_ballot(self, node: RaftNode, life: _Life, before: Snapshot, events: Sequence[Event]) -> None:
        """Check that messages or a won pre-vote justify a new term and a new vote."""
        term, vote, node_id = node.current_term, node.voted_for, node.node_id
        if term < before.current_term:
            self._fail(Rule.TERM, node_id, f"from {before.current_term} to {term}")
        if term == before.current_term and before.voted_for is not None:
            self._fail(Rule.ONE_VOTE, node_id, f"vote of term {term} changed from {before.voted_for} to {vote}")
        messages = [event.message for event in events if isinstance(event, Receive)]
        told = max((m.term for m in messages if not (isinstance(m, RequestVote) and m.pre_vote)), default=0)
        told = max(told, before.current_term)
        if vote == node_id:
            if term > told + 1:
                self._fail(Rule.PRE_VOTE, node_id, f"stands in term {term}, though no message had a term above {told}")
            if node.parameters.pre_vote and len(life.pre_votes.get(term, (node_id,))) < self._quorum:
                self._fail(Rule.PRE_VOTE, node_id, f"stands in term {term} without the pre-votes of a quorum")
            life.pre_votes.clear()
            return
        if term > told:
            self._fail(Rule.PRE_VOTE, node_id, f"is in term {term}, though no message had a term above {told}")
        if vote is None:
            return
        asked = [m for m in messages if isinstance(m, RequestVote) and m.from_id == vote and m.term == term]
        if not any(not m.pre_vote for m in asked):
            rule = Rule.PRE_VOTE if asked else Rule.ONE_VOTE
            self._fail(rule, node_id, f"voted for {vote} in term {term} without a request for a vote")
        ends = max((m.last_log_term, m.last_log_index) for m in asked)
        # Entries that arrived before the vote request may have changed the node's log.
        earlier = messages[: len(messages) - messages[::-1].index(asked[-1])]
        changed = any(isinstance(m, AppendEntries) and len(m.entry_terms) for m in earlier)
        if ends < (before.last_term, before.last_index) and not changed:
            own = before.last_term, before.last_index
            text = f"voted for {vote}, whose log ends at (term, index) {ends}; its own log ends at {own}"
            self._fail(Rule.ELECTION_RESTRICTION, node_id, text)

    def _vote(self, node_id: NodeId, term: int, candidate: NodeId) -> None:
        """Note a vote seen on disk or in a message. A node may vote once per term, over all incarnations."""
        first = self._votes.setdefault((node_id, term), candidate)
        if first != candidate:
            self._fail(Rule.ONE_VOTE, node_id, f"voted for {first} and for {candidate} in term {term}")

    def _check_leader(self, life: _Life) -> None:
        node = life.node
        node_id, term = node.node_id, node.current_term
        if life.leads != term:
            self._check_elected(life, term)
        seen, promised = life.match, life.promised
        for peer, progress in node.progress.items():
            match = progress.match_index
            if match != seen.get(peer, 0):
                if match < seen.get(peer, 0):
                    self._fail(Rule.MATCH_INDEX, node_id, f"of {peer} went from {seen[peer]} back to {match}")
                if match > promised.get(peer, 0):
                    text = f"counts {peer} up to {match}, but {peer} promised only {promised.get(peer, 0)}"
                    self._fail(Rule.DURABLE_QUORUM, node_id, text)
                seen[peer] = match
            if progress.next_index <= match:
                self._fail(Rule.NEXT_INDEX, node_id, f"{progress.next_index} for {peer}, match_index {match}")
        if node.parameters.check_quorum:
            silent_s = self._now - reached_by_quorum([inf, *life.heard.values()])
            if silent_s * self._slowest_clock > QUORUM_PATIENCE * node.parameters.election_timeout_max:
                self._fail(Rule.CHECK_QUORUM, node_id, f"leads term {term}, but heard no quorum for {silent_s:.3f} s")

    def _check_passing_leader(self, life: _Life, effects: Effects) -> None:
        """Check a leader that was elected and stepped down within one step: only its trace shows it."""
        for event in effects.trace:
            if event.kind == "became_leader" and event.term != life.leads:
                self._check_elected(life, event.term)

    def _check_elected(self, life: _Life, term: int) -> None:
        """Check a new leader: the only one of its term, with a quorum of votes and all entries committed before."""
        node = life.node
        node_id = node.node_id
        if term in self.leaders:
            self._fail(Rule.ELECTION_SAFETY, node_id, f"leads term {term}, but {self.leaders[term]} led it")
        self.leaders[term] = node_id
        voters = [voter for voter in self._members if self._votes.get((voter, term)) == node_id]
        if len(voters) < self._quorum:
            text = f"leads term {term} with the votes of {', '.join(voters) or 'no node'}"
            self._fail(Rule.ELECTION_SAFETY, node_id, text)
        end = bisect_left(self._committed_in, term)  # what was committed in older terms
        if node.log.terms(1, end + 1) != self.committed_terms[:end]:
            text = f"leads term {term}, but lacks some of the {end} entries committed before"
            self._fail(Rule.LEADER_COMPLETENESS, node_id, text)
        life.leads = term
        life.heard = dict.fromkeys(node.peers, self._now)
        life.acked, life.promised, life.match = {}, {}, {}
        self._leading[term] = life

    # ------------------------------------------------------------------------------ logs and disks

    def _check_log(self, life: _Life, *, append_only: bool) -> None:
        """Check the new entries of a log.

        Log matching, by induction: all logs with an entry of (index, term) have the same payload there, and the same
        preceding term.
        """
        node, log, old = life.node, life.node.log, life.terms
        last, same = log.last_index, len(old)
        life.appended = node.counters.entries_appended
        if last < same or log.terms(1, same + 1) != old:
            now = log.terms(1, last + 1)
            same = next((k for k, (a, b) in enumerate(zip(now, old, strict=False)) if a != b), min(last, same))
            if append_only:
                self._fail(Rule.APPEND_ONLY, node.node_id, f"entry {same + 1} replaced by the leader")
            if same < life.commit_index:
                self._fail(Rule.STATE_MACHINE_SAFETY, node.node_id, f"erased committed entry {same + 1}")
            del old[same:]
        previous = old[same - 1] if same else 0
        new = log.terms(same + 1, last + 1)
        for index, term, payload in zip(range(same + 1, last + 1), new, log.payloads(same + 1, last + 1), strict=True):
            entry = (payload, previous)
            known = self._entries.setdefault((index, term), entry)
            if known is not entry and known != entry:
                text = f"entry {index} of term {term} is {entry} here, {known} elsewhere (payload, term before)"
                self._fail(Rule.LOG_MATCHING, node.node_id, text)
            if term < previous:
                self._fail(Rule.LOG_MATCHING, node.node_id, f"entry {index} of term {term} follows term {previous}")
            previous = term
        if previous > node.current_term:
            self._fail(Rule.TERM, node.node_id, f"log of term {previous} in term {node.current_term}")
        old.extend(new)

    def _check_persist(self, node: RaftNode, persist: Persist) -> None:
        """Check that the node hands its own entries to the disk, without a gap."""
        disk, first = self._disks[node.node_id], persist.first_index
        if disk.writing is not None:
            self._fail(Rule.DISK, node.node_id, "two writes in progress")
        if first > len(disk.terms) + 1:
            self._fail(Rule.DISK, node.node_id, f"writes from {first} on, but the disk ends at {len(disk.terms)}")
        end = first + len(persist.terms) if persist.terms else node.log.last_index + 1
        if list(persist.terms) != list(node.log.terms(first, end)):
            self._fail(Rule.DISK, node.node_id, f"writes entries from {first} on that differ from its log")
        disk.writing = persist

    def _set_hard_state(self, node_id: NodeId, disk: _Disk, state: HardState) -> None:
        if state.current_term < disk.current_term:
            self._fail(Rule.TERM, node_id, f"from {disk.current_term} back to {state.current_term} on disk")
        disk.current_term, disk.voted_for = state.current_term, state.voted_for
        if state.voted_for is not None:
            self._vote(node_id, state.current_term, state.voted_for)

    def _replace_on_disk(self, node_id: NodeId, disk: _Disk, first_index: int, terms: Sequence[int]) -> None:
        """Note that entries from `first_index` on are durable, and check that committed entries stay on a quorum.

        A node outside that quorum may lose a committed entry that it does not know to be committed: delayed entries of
        a leader of an older term may replace it.
        """
        if first_index == 1 and disk.terms == terms:
            return
        kept, end = first_index - 1, min(len(disk.terms), len(self.committed_terms))
        for index in range(kept + 1, end + 1):
            at = index - first_index
            held = disk.terms[index - 1] == self.committed_terms[index - 1]
            if held and (at >= len(terms) or terms[at] != self.committed_terms[index - 1]):
                life = self._lives.get(node_id)
                known = life is not None and life.commit_index >= index
                if known or len(self._holders(index, self.committed_terms[index - 1])) <= self._quorum:
                    self._fail(Rule.DURABLE_QUORUM, node_id, f"committed entry {index} is no longer on its disk")
        if kept and terms:
            # With this, a pair (index, term) on a disk also identifies all entries before it.
            _, previous = self._entries.get((first_index, terms[0]), (b"", disk.terms[kept - 1]))
            if previous != disk.terms[kept - 1]:
                text = f"entry {kept} on its disk has term {disk.terms[kept - 1]}; elsewhere it has {previous}"
                self._fail(Rule.LOG_MATCHING, node_id, text)
        del disk.terms[kept:]
        disk.terms.extend(terms)

    def _check_recovered(self, node: RaftNode, disk: _Disk, terms: array[int]) -> None:
        """Check that a node starts with everything durable, and with its write in progress as a whole or not at all."""
        node_id, writing = node.node_id, disk.writing
        state = HardState(node.current_term, node.voted_for)
        synced = HardState(disk.current_term, disk.voted_for)
        written = synced if writing is None or writing.hard_state is None else writing.hard_state
        if state not in (synced, written):
            rule = Rule.TERM if state.current_term < synced.current_term else Rule.ONE_VOTE
            if state.current_term == synced.current_term and state.voted_for is None:
                rule = Rule.DISK
            self._fail(rule, node_id, f"starts with {state}, but its disk held {synced}")
        if terms == disk.terms:
            return
        kept = len(disk.terms) if writing is None or not writing.terms else writing.first_index - 1
        if terms[:kept] != disk.terms[:kept]:
            text = f"starts with {len(terms)} entries, which are not the {len(disk.terms)} that were synced"
            self._fail(Rule.DISK, node_id, text)
        whole = writing is not None and list(terms[kept:]) == list(writing.terms)
        if not whole or state != written:
            self._fail(Rule.DISK, node_id, f"starts with part of a write: entries {kept + 1} to {len(terms)}")

    # ------------------------------------------------------------------------------ what is committed

    def _check_commit(self, life: _Life, before: Snapshot) -> None:
        node, log, known = life.node, life.node.log, len(self.committed_terms)
        node_id, lo, hi = node.node_id, life.commit_index, node.commit_index
        if hi < lo:
            self._fail(Rule.COMMIT_INDEX, node_id, f"from {lo} back to {hi}")
        if hi > log.last_index:
            self._fail(Rule.COMMIT_INDEX, node_id, f"{hi} is beyond the log, which ends at {log.last_index}")
        led = before.current_term if before.role == Role.LEADER else 0
        # A leader that stepped down within the step may have learned of older commits from its successor.
        by_counting = hi > known or (node.role == Role.LEADER and node.current_term == led)
        if led and by_counting and log.term_at(hi) != led:
            text = f"the leader of term {led} commits {hi}, of term {log.term_at(hi)} (Figure 8)"
            self._fail(Rule.OWN_TERM, node_id, text)
        if not led and before.current_term == node.current_term and hi > life.verified[1]:
            text = f"commit_index {hi}, though messages of its leader verified its log up to {life.verified[1]} only"
            self._fail(Rule.STATE_MACHINE_SAFETY, node_id, text)
        self._check_known_committed(life, lo, min(hi, known))
        if hi > known:
            self._check_first_commit(life, hi, led)
        life.commit_index = hi

    def _check_known_committed(self, life: _Life, lo: int, hi: int) -> None:
        """Check that the entries in (lo, hi] are those that were committed there."""
        log = life.node.log
        if (
            log.terms(lo + 1, hi + 1) != self.committed_terms[lo:hi]
            or log.payloads(lo + 1, hi + 1) != self.committed_payloads[lo:hi]
        ):
            text = f"commits entries {lo + 1} to {hi}, which differ from those committed there before"
            self._fail(Rule.STATE_MACHINE_SAFETY, life.node.node_id, text)

    def _check_first_commit(self, life: _Life, hi: int, led: int) -> None:
        """Check entries committed for the first time in the cluster: by a leader, and durable on a quorum."""
        log, node_id, known = life.node.log, life.node.node_id, len(self.committed_terms)
        if not led:
            self._fail(Rule.STATE_MACHINE_SAFETY, node_id, f"commit_index {hi}, which no leader committed")
        term = log.term_at(hi)
        holders = self._holders(hi, term)
        if len(holders) < self._quorum:
            text = f"commits {hi} of term {term}, durable on {', '.join(sorted(holders)) or 'no node'} only"
            self._fail(Rule.DURABLE_QUORUM, node_id, text)
        for later, other in self._leading.items():
            if later > led and not other.node.log.matches(hi, term):
                text = f"leads term {later} without entry {hi}, committed by {node_id} in term {led}"
                self._fail(Rule.LEADER_COMPLETENESS, other.node.node_id, text)
        self.committed_terms.extend(log.terms(known + 1, hi + 1))
        self.committed_payloads += log.payloads(known + 1, hi + 1)
        self._committed_in.extend([led] * (hi - known))

    def _holders(self, index: int, term: int) -> list[NodeId]:
        """Return the nodes whose disks hold this entry."""
        return [i for i, disk in self._disks.items() if len(disk.terms) >= index and disk.terms[index - 1] == term]

    def _adopt_committed(self, node: RaftNode) -> None:
        known, hi = len(self.committed_terms), node.commit_index
        self.committed_terms.extend(node.log.terms(known + 1, hi + 1))
        self.committed_payloads += node.log.payloads(known + 1, hi + 1)
        self._committed_in.extend(node.log.terms(known + 1, hi + 1))

    def _check_results(self, node_id: NodeId, lo: int, hi: int, results: Sequence[object], store: State) -> None:
        """Check that every node gives the same results, and with a model the correct results."""
        known, model = self._results, self._model
        news = range(max(len(known), lo), hi)
        if model is None:
            known += [results[at - lo] for at in news]
        else:
            known += [model.apply(at + 1, self.committed_payloads[at]) for at in news]
        if list(results) != known[lo:hi]:
            at = next(at for at in range(lo, hi) if results[at - lo] != known[at])
            rule = self._rule_of([at])
            self._fail(rule, node_id, f"entry {at + 1} gave {results[at - lo]} instead of {known[at]}")
        if model is not None and news and (difference := model.mismatch(store)):
            self._fail(self._rule_of(range(lo, hi)), node_id, f"after entry {hi}: {difference}")

    def _rule_of(self, positions: Sequence[int]) -> Rule:
        """Return the rule that a wrong effect of these entries breaks: ONCE if one of them repeats a command."""
        earlier = self.committed_payloads
        again = any(earlier[at] and earlier.index(earlier[at]) < at for at in positions)
        return Rule.ONCE if again else Rule.STATE_MACHINE_SAFETY

    def _compare_state(self, node_id: NodeId, state: State, *, due: bool) -> None:
        index = state.last_applied
        known = self._state_hashes.get(index)
        if known is None:
            last = next(reversed(self._state_hashes), 0)
            if due or index >= last + HASHED_EVERY:
                self._state_hashes[index] = state.state_hash()
        elif known != state.state_hash():
            self._fail(Rule.SAME_STATE, node_id, f"its state after entry {index} differs from that of another node")

    # ------------------------------------------------------------------------------ promises and reads

    def _check_promise(self, life: _Life, message: Message) -> None:
        """Check a message that leaves: its term, vote and entries are on disk, and the entries match the leader's."""
        node_id = life.node.node_id
        disk = self._disks[node_id]
        term = message.term
        if isinstance(message, AppendEntries):
            life.sequence = max(life.sequence, message.sequence)
            if self.leaders.get(term) != node_id:
                self._fail(Rule.ELECTION_SAFETY, node_id, f"sends entries in term {term}, which it does not lead")
        elif isinstance(message, RequestVote):
            life.sequence = max(life.sequence, message.sequence)
            term -= message.pre_vote
            if not message.pre_vote:
                self._check_vote_left(node_id, disk, term, node_id)
        elif isinstance(message, AppendEntriesReply):
            if message.success and message.match_index:
                self._check_append_promise(life, disk, message)
        elif message.vote_granted and not message.pre_vote:
            self._check_vote_left(node_id, disk, message.request_term, message.to_id)
        if disk.current_term < term:
            self._fail(Rule.PROMISE, node_id, f"sends term {term}, but its disk holds {disk.current_term}: {message}")

    def _check_vote_left(self, node_id: NodeId, disk: _Disk, term: int, candidate: NodeId) -> None:
        if (disk.current_term, disk.voted_for) != (term, candidate):
            text = f"votes for {candidate} in term {term}; on disk: for {disk.voted_for} in {disk.current_term}"
            self._fail(Rule.PROMISE, node_id, text)
        self._vote(node_id, term, candidate)

    def _check_append_promise(self, life: _Life, disk: _Disk, reply: AppendEntriesReply) -> None:
        node, index = life.node, reply.match_index
        if len(disk.terms) < index or (
            node.current_term == reply.term and disk.terms[index - 1] != node.log.term_at(index)
        ):
            text = f"promises {index} entries, but its disk holds {len(disk.terms)}, or other ones: {reply}"
            self._fail(Rule.PROMISE, node.node_id, text)
        leader = self._leading.get(reply.request_term)
        if leader is not None and not leader.node.log.matches(index, disk.terms[index - 1]):
            text = f"claims to match {reply.to_id} at {index}, but {reply.to_id} has another entry or none there"
            self._fail(Rule.LOG_MATCHING, node.node_id, text)

    def _check_read(self, life: _Life, ready: ReadReady) -> None:
        """Check a read that may be answered: its leader is confirmed, and it sees all that was acknowledged before."""
        node, index = life.node, ready.index
        arrival = life.reads.pop(ready.read_id, None)
        if arrival is None:
            self._fail(Rule.READ, node.node_id, f"read {ready.read_id} never arrived, or was answered already")
        commit_index, sequence, acknowledged = arrival
        if index < max(commit_index, acknowledged):
            text = f"index {index}, but {commit_index} was committed and {acknowledged} acknowledged when it arrived"
            self._fail(Rule.READ, node.node_id, text)
        if node.role != Role.LEADER or index > node.commit_index:
            text = f"index {index} of a {node.role.name} whose commit_index is {node.commit_index}"
            self._fail(Rule.READ, node.node_id, text)
        if node.log.term_at(index) != node.current_term:
            text = f"index {index} is of term {node.log.term_at(index)}; none of term {node.current_term} is committed"
            self._fail(Rule.READ, node.node_id, text)
        if reached_by_quorum([inf, *(life.acked.get(peer, 0) for peer in node.peers)]) <= sequence:
            self._fail(Rule.READ, node.node_id, f"read {ready.read_id}: no quorum answered a request sent later")
        self.acknowledged = max(self.acknowledged, index)  # later reads must not fall behind it
        self.reads_checked += 1

    def _fail(self, rule: Rule, node_id: NodeId, text: str) -> NoReturn:
        message = f"{rule}: {node_id} at {self._now:.6f} s: {text}"
        broken = InvariantViolated(message, rule=rule, node_id=node_id, time_s=self._now)
        self.violation = self.violation or broken
        raise broken
