"""A Raft node: the only place where protocol state changes (paper, sections 5 and 8).

Theory of operation. `step(events, now)` takes everything that happened since the last step and returns the effects to
perform, in the order of effects.py. A step
  1. handles each event: messages may change term, role, log and commit index;
  2. then checks the time for due elections and heartbeats. It discounts pauses of this process, because a node that
     did not listen cannot know whether others were silent;
  3. if it leads, sends each follower the entries it lacks, in batches, and starts a heartbeat round for reads;
  4. hands new log entries and a new term or vote to the disk, if no write is in progress.

Durability. A message that promises a vote, an append success or a term waits in `_held` until the promised state is on
disk. A leader's own copy and a candidate's own vote also count only once they are on disk.

A disk that hangs. Heartbeats promise nothing new, so leaders and followers continue to send and answer them. With three
nodes or more, a leader commits what a quorum of followers holds, without its own copy. `unsynced_bytes` bounds what
waits for the disk: beyond it a leader refuses proposals, and a follower treats AppendEntries as heartbeats. With
`yield_after`, a leader whose write takes longer steps down, and no node stands for election while its write is that
late.

Roles (paper, Figure 4, and the pre-vote of the dissertation, section 9.6):

    FOLLOWER --timeout--> PRE_CANDIDATE --quorum would vote--> CANDIDATE --quorum voted--> LEADER
        ^                      | timeout: again                   | timeout: again            |
        '------ a leader of this term, or a higher term, is heard -+------ no quorum heard ----'
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from raft_actor_node.core import invariants
from raft_actor_node.core.effects import Accepted, Effects, HardState, Persist
from raft_actor_node.core.events import Event, Paused, Persisted, Propose, Reachable, Read, Receive
from raft_actor_node.core.invariants import require
from raft_actor_node.core.log import Log, entries_bytes
from raft_actor_node.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    RequestVote,
    RequestVoteReply,
)
from raft_actor_node.core.progress import FollowerProgress
from raft_actor_node.core.quorum import quorum_size, reached_by_quorum
from raft_actor_node.core.read_index import ReadQueue
from raft_actor_node.core.trace import TraceEvent
from raft_actor_node.core.types import NodeId, Role
from raft_actor_node.errors import InvariantViolated

HEARTBEATS_AFTER_PAUSE = 2
"""Heartbeat intervals within which a resumed node reads the messages of its pause and hears a live leader."""
NO_OP = b""
"""Payload of the entry with which a leader opens its term (section 8)."""
PERSIST_ENTRIES = 16384
"""Maximum number of entries in one Persist."""
DISK_IS_LATE = "own disk does not answer"
"""Reason that the trace gives when a node steps down because of yield_after."""


@dataclass(frozen=True, slots=True)
class RaftParameters:
    """Parameters of the protocol, times in seconds. raft_actor_node/config.py documents them and their defaults."""

    election_timeout_min: float
    election_timeout_max: float
    heartbeat_interval: float
    rpc_timeout: float
    pre_vote: bool = True
    check_quorum: bool = True
    max_batch_entries: int = 1024
    max_batch_bytes: int = 1 << 20
    max_inflight: int = 64
    max_inflight_bytes: int = 8 << 20
    max_persist_bytes: int = 4 << 20
    unsynced_bytes: int = 64 << 20
    yield_after: float = inf


@dataclass(slots=True)
class Counters:
    """Event counts since this object was created."""

    elections_started: int = 0
    elections_won: int = 0
    pre_votes_started: int = 0
    step_downs: int = 0
    leader_changes: int = 0
    entries_appended: int = 0
    entries_erased: int = 0
    replies_refused: int = 0
    """Replies to requests that this leader never sent."""


class RaftNode:
    """A node of a cluster with static membership. Not thread-safe; callers may read its attributes between steps."""

    def __init__(
        self,
        node_id: NodeId,
        members: Iterable[NodeId],
        parameters: RaftParameters,
        *,
        rng: random.Random,
        now: float,
        hard_state: HardState | None = None,
        log: Log | None = None,
        commit_index: int = 0,
    ) -> None:
        """Start, or restart from what the disk kept: `hard_state` and `log` are durable as a whole.

        `commit_index` may be any index known to be committed; 0 is always valid. Times are in seconds of any clock that
        never goes back.
        """
        self.node_id = node_id
        self.peers: tuple[NodeId, ...] = tuple(sorted(set(members) - {node_id}))
        self.parameters = parameters
        self.counters = Counters()
        self.log = log if log is not None else Log()
        hard_state = hard_state or HardState()
        self.current_term = hard_state.current_term
        self.voted_for = hard_state.voted_for
        self.role = Role.FOLLOWER
        self.leader_id: NodeId | None = None
        self.commit_index = commit_index
        self.durable_index = self.log.last_index
        self.unsynced_bytes = 0
        """Size of the entries above durable_index."""
        self.progress: dict[NodeId, FollowerProgress] = {}

        self._rng = rng
        self._made_at = self._now = now
        self._quorum = quorum_size(len(self.peers) + 1)
        self._durable_state = hard_state
        self._persisting: Persist | None = None
        self._persist_number = 0
        self._unstable_index = self.log.last_index + 1
        """First index not yet covered by a Persist."""
        self._disk_due = inf
        """When the Persist in progress becomes late; inf if there is none, or without yield_after."""
        self._held: list[tuple[int, Message]] = []
        """(index that must be durable first, message) of each message whose promise is not durable yet."""

        self._sequence = 0
        self._leader_heard_at = -inf
        self._deadline = 0.0
        """Time of the next election, or of a leader's next heartbeat."""
        self._votes: set[NodeId] = set()
        self._vote_resend_at: dict[NodeId, float] = {}
        self._term_start_index = 0
        """Index of the no-op of this node's leadership."""
        self._reads = ReadQueue()
        self._effects = Effects()
        self._untold: list[TraceEvent] = []
        """Trace events that wait, like promises, until their term and vote are durable."""
        self._told_commit = commit_index
        """Highest commit index already traced."""
        patience_s = invariants.QUORUM_PATIENCE * parameters.election_timeout_max if parameters.check_quorum else inf
        self._leadership = invariants.Leadership(patience_s)
        self._elected: NodeId | None = None
        """Leader of the current term once known, even if it is not heard now."""
        self._reset_election_timer()
        self._trace("started", index=self.log.last_index, peer=self.voted_for or "")

    # ------------------------------------------------------------------------------ entry points

    def step(self, events: Iterable[Event], now: float) -> Effects:
        """Handle all events in order, then the time; return the effects to perform.

        Raises InvariantViolated if a rule of Raft is broken; the node must not be used afterwards.
        """
        before = self.snapshot()
        self._now, self._told_commit = now, self.commit_index
        for event in events:
            match event:
                case Receive(message):
                    self._receive(message)
                case Propose():
                    self._propose(event)
                case Read(read_id):
                    self._read(read_id)
                case Persisted(number):
                    self._persisted(number)
                case Paused(for_s):
                    self._paused(for_s)
                case Reachable():
                    self._deadline += now - self._made_at  # the drawn timeout starts now
        self._tick()
        if self.role == Role.LEADER:
            self._lead()
        self._hand_to_disk()
        self._tell_commit()
        effects, self._effects = self._effects, Effects()
        after = self.snapshot()
        invariants.check(before, after)
        if self.role == Role.LEADER:
            self._leadership.check(before, after, self.progress, now)
        return effects

    def take_trace(self) -> list[TraceEvent]:
        """Remove and return the trace events since the last step.

        This records the start of a node even if it never steps.
        """
        trace, self._effects.trace = self._effects.trace, []
        return trace

    def next_deadline(self) -> float:
        """Return the time at which `step` must be called even without events; inf: only an event needs a step."""
        if self.role == Role.LEADER:
            return min(self._deadline, self._disk_due, *(p.resend_at for p in self.progress.values()))
        if self._stands():
            if not self._hard_state_is_durable():
                return inf
            return min(self._deadline, self._disk_due, *self._vote_resend_at.values())
        return self._deadline

    def snapshot(self) -> invariants.Snapshot:
        """Return the state that the invariants compare before and after a step."""
        return invariants.Snapshot(
            self.role,
            self.current_term,
            self.voted_for,
            self.leader_id,
            self.log.last_index,
            self.log.last_term,
            self.durable_index,
            self.commit_index,
            self._disk_is_late(),
        )

    # ------------------------------------------------------------------------------ events

    def _receive(self, message: Message) -> None:
        match message:
            case AppendEntriesReply():
                self._on_append_entries_reply(message)
            case AppendEntries():
                self._on_append_entries(message)
            case RequestVote():
                self._on_request_vote(message)
            case RequestVoteReply():
                self._on_request_vote_reply(message)

    def _propose(self, event: Propose) -> None:
        if self.role != Role.LEADER:
            self._effects.refused.append(event.proposal_id)
            return
        if not self._has_room(event.payloads):
            self._effects.overloaded.append(event.proposal_id)
            return
        first_index = self._append([self.current_term] * len(event.payloads), event.payloads)
        self._effects.accepted.append(Accepted(event.proposal_id, first_index, self.current_term))

    def _read(self, read_id: int) -> None:
        if self.role != Role.LEADER:
            self._effects.reads_refused.append(read_id)
            return
        # All entries committed in earlier terms precede the no-op of this term (section 8).
        self._reads.add(read_id, self._sequence, max(self.commit_index, self._term_start_index))

    def _persisted(self, number: int) -> None:
        done = self._persisting
        if done is None or done.number != number:
            return
        self._persisting, self._disk_due = None, inf
        if done.hard_state is not None:
            self._durable_state = done.hard_state
        # Entries that were replaced during the write are no longer in the log.
        written_to = done.first_index + len(done.terms) - 1
        durable_before = self.durable_index
        self.durable_index = max(self.durable_index, min(written_to, self._unstable_index - 1))
        self.unsynced_bytes -= entries_bytes(self.log.payloads(durable_before + 1, self.durable_index + 1))
        if self._hard_state_is_durable():
            self._effects.trace += self._untold
            self._untold.clear()
        self._release_held()
        if self.role == Role.CANDIDATE and self._hard_state_is_durable() and done.hard_state is not None:
            # The requests leave only now, so the election timeout starts now.
            self._reset_election_timer()
            self._vote_resend_at = dict.fromkeys(self._vote_resend_at, self._now + self.parameters.rpc_timeout)
            self._count_vote(self.node_id)
        if self.role == Role.LEADER:
            self._advance_commit()

    def _paused(self, for_s: float) -> None:
        """Postpone the deadlines that depend on the silence of peers by the time in which this node did not listen.

        Each is postponed at most until this node has had time to read its messages, so that a dead leader is replaced
        soon. Heartbeats are not postponed, because the peers wait for them.
        """
        parameters = self.parameters
        low, high = parameters.election_timeout_min, parameters.election_timeout_max
        latest = self._now + min(HEARTBEATS_AFTER_PAUSE * parameters.heartbeat_interval, low)

        def postponed(due: float) -> float:
            return max(due, min(due + for_s, latest))

        self._leader_heard_at = postponed(self._leader_heard_at + low) - low
        self._disk_due = postponed(self._disk_due)
        if self.role != Role.LEADER:
            # Random, as for elections: nodes that resume together must not stand for election together.
            spread = self._rng.uniform(0.0, high - low)
            self._deadline = max(self._deadline, min(self._deadline + for_s, latest + spread))
        for peer, resend_at in self._vote_resend_at.items():
            self._vote_resend_at[peer] = postponed(resend_at)
        for progress in self.progress.values():
            progress.last_contact = postponed(progress.last_contact + high) - high
            progress.resend_at = postponed(progress.resend_at)

    # ------------------------------------------------------------------------------ elections

    def _tick(self) -> None:
        now = self._now
        if self.role == Role.LEADER:
            if self.parameters.check_quorum and not self._hears_quorum():
                self._become_follower(self.current_term, None, "no quorum heard")
            elif self._disk_is_late():
                self._yield()
            return
        if self._stands() and not self._hard_state_is_durable():
            return  # do not start another election while the disk still writes the vote of this one
        if self._disk_is_late():
            self._yield()
        elif now >= self._deadline:
            if self.parameters.pre_vote:
                self._become_pre_candidate()
            else:
                self._become_candidate()
        elif self._vote_resend_at:
            for peer in self.peers:
                if self._vote_resend_at.get(peer, inf) <= now:
                    self._ask_vote(peer)

    def _yield(self) -> None:
        """Follow and do not stand for election while the disk is late: the peers can proceed without this node."""
        if self.role != Role.FOLLOWER:
            self._become_follower(self.current_term, None, DISK_IS_LATE)
        if self._now >= self._deadline:
            self._reset_election_timer()

    def _stands(self) -> bool:
        return self.role in (Role.CANDIDATE, Role.PRE_CANDIDATE)

    def _become_follower(self, term: int, leader: NodeId | None, why: str) -> None:
        """Enter FOLLOWER: at a higher term, or at the same term when a leader is heard or leadership is lost."""
        require(term >= self.current_term, f"{self.node_id}: term would decrease from {self.current_term} to {term}")
        self._tell_commit()
        was_leader, changed = self.role == Role.LEADER, term > self.current_term or self.role != Role.FOLLOWER
        if term > self.current_term:
            self.current_term, self.voted_for, self._elected = term, None, None
            # Held promises of an older term are useless to their receivers.
            self._held = [held for held in self._held if held[1].term >= term]
        self.role = Role.FOLLOWER
        self._votes.clear()
        self._vote_resend_at.clear()
        if was_leader:
            self.counters.step_downs += 1
            self._effects.leadership_lost = True
            self.progress.clear()
            self._effects.reads_refused += self._reads.refuse_all()
        if changed and (was_leader or leader is not None):
            self._reset_election_timer()
        if changed:
            self._trace("became_follower", peer=leader or "", detail=why)
        self.leader_id = leader
        if leader is not None and leader != self._elected:
            self._elected = leader
            self.counters.leader_changes += 1
            self._trace("leader_heard", peer=leader)

    def _become_pre_candidate(self) -> None:
        """Ask peers whether an election could be won, without changing term or vote (dissertation, section 9.6)."""
        self.role, self.leader_id = Role.PRE_CANDIDATE, None
        self.counters.pre_votes_started += 1
        self._trace("became_pre_candidate")
        self._start_ballot()
        self._count_vote(self.node_id)

    def _become_candidate(self) -> None:
        """Begin an election: raise the term, vote for itself, ask all peers (section 5.2)."""
        self.current_term += 1
        self.role, self.voted_for, self.leader_id, self._elected = Role.CANDIDATE, self.node_id, None, None
        self._held.clear()
        self.counters.elections_started += 1
        self._trace("became_candidate")
        # This node's own vote counts once it is on disk (`_persisted`); the requests are held until then too.
        self._start_ballot()

    def _start_ballot(self) -> None:
        self._votes.clear()
        self._vote_resend_at.clear()
        self._reset_election_timer()
        for peer in self.peers:
            self._ask_vote(peer)

    def _ask_vote(self, peer: NodeId) -> None:
        pre_vote = self.role == Role.PRE_CANDIDATE
        self._vote_resend_at[peer] = self._now + self.parameters.rpc_timeout
        self._sequence += 1
        self._send(
            RequestVote(
                self.node_id,
                peer,
                self.current_term + pre_vote,
                self.log.last_index,
                self.log.last_term,
                pre_vote,
                self._sequence,
            )
        )

    def _on_request_vote(self, request: RequestVote) -> None:
        granted = self._would_vote(request) if request.pre_vote else self._vote(request)
        self._send(
            RequestVoteReply(
                self.node_id,
                request.from_id,
                self.current_term,
                request.term,
                granted,
                request.pre_vote,
                request.sequence,
            )
        )

    def _would_vote(self, request: RequestVote) -> bool:
        return (
            request.term > self.current_term
            and not self._hears_leader()
            and self.log.up_to_date(request.last_log_index, request.last_log_term)
        )

    def _vote(self, request: RequestVote) -> bool:
        """Decide on a real vote: at most one per term, and only for an up-to-date log (sections 5.2, 5.4.1)."""
        if request.term > self.current_term:
            if self.parameters.check_quorum and self._hears_leader():
                # A node that was unreachable must not depose a leader that this node hears (dissertation, 4.2.3).
                return False
            self._become_follower(request.term, None, "higher term in RequestVote")
        if request.term < self.current_term or self.voted_for not in (None, request.from_id):
            return False
        if not self.log.up_to_date(request.last_log_index, request.last_log_term):
            return False
        if self.voted_for is None:
            self.voted_for = request.from_id
            self._trace("vote_granted", peer=request.from_id)
            # Reset only for a new vote. A candidate that receives no answers repeats its request for ever; a reset each
            # time would keep all peers from standing for election.
            self._reset_election_timer()
        return True

    def _hears_leader(self) -> bool:
        """Return whether a leader is live: this node, or a leader heard within the shortest election timeout."""
        if self.role == Role.LEADER:
            return True
        return self._now - self._leader_heard_at < self.parameters.election_timeout_min

    def _on_request_vote_reply(self, reply: RequestVoteReply) -> None:
        if reply.term > self.current_term:
            self._become_follower(reply.term, None, "higher term in RequestVoteReply")
            return
        asking = {Role.PRE_CANDIDATE: self.current_term + 1, Role.CANDIDATE: self.current_term}.get(self.role)
        if reply.request_term != asking or reply.pre_vote != (self.role == Role.PRE_CANDIDATE):
            return
        self._vote_resend_at.pop(reply.from_id, None)
        if reply.vote_granted:
            self._count_vote(reply.from_id)

    def _count_vote(self, voter: NodeId) -> None:
        self._votes.add(voter)
        if len(self._votes) < self._quorum or self._disk_is_late():
            return
        if self.role == Role.PRE_CANDIDATE:
            self._become_candidate()
        elif self.role == Role.CANDIDATE:
            self._become_leader()

    def _become_leader(self) -> None:
        """Enter LEADER, only from CANDIDATE and with the votes of a quorum (section 5.2)."""
        require(self.role == Role.CANDIDATE, f"{self.node_id}: {self.role.name} became leader")
        require(self._hard_state_is_durable(), f"{self.node_id}: leader before its own vote was durable")
        self.role, self.leader_id, self._elected = Role.LEADER, self.node_id, self.node_id
        self._votes.clear()
        self._vote_resend_at.clear()
        self.counters.elections_won += 1
        self.counters.leader_changes += 1
        self._trace("became_leader", index=self.log.last_index)
        self.progress = {peer: FollowerProgress(self.log.last_index + 1, self._now) for peer in self.peers}
        self._term_start_index = self._append([self.current_term], [NO_OP])
        self._deadline = self._now  # the first heartbeat is due at once

    def _hears_quorum(self) -> bool:
        """Return whether a quorum, this node included, has answered within the longest election timeout."""
        heard = reached_by_quorum([inf, *(p.last_contact for p in self.progress.values())])
        return self._now - heard <= self.parameters.election_timeout_max

    def _reset_election_timer(self) -> None:
        low, high = self.parameters.election_timeout_min, self.parameters.election_timeout_max
        self._deadline = self._now + self._rng.uniform(low, high)

    # ------------------------------------------------------------------------------ replication

    def _lead(self) -> None:
        """Send what is due: heartbeats, entries that followers lack, and a round for waiting reads."""
        now = self._now
        for peer, progress in self.progress.items():
            if progress.resend_at <= now:
                progress.ask_after(self._sequence + 1)
                self._send_append(peer, progress, empty=True)
            self._replicate(peer, progress)
        if now >= self._deadline:
            self._deadline = now + self.parameters.heartbeat_interval
            self._start_round()
        confirmed = self._confirmed_sequence()
        if self._reads.wants_round(confirmed):
            self._start_round()
            confirmed = self._confirmed_sequence()
        self._effects.reads += self._reads.ready(confirmed, self.commit_index)

    def _start_round(self) -> None:
        """Send an empty AppendEntries to every peer: a heartbeat (section 5.2) that also confirms reads."""
        self._reads.round_started(self._sequence + 1)
        for peer, progress in self.progress.items():
            self._send_append(peer, progress, empty=True)

    def _confirmed_sequence(self) -> float:
        return reached_by_quorum([inf, *(p.acked_sequence for p in self.progress.values())])

    def _replicate(self, peer: NodeId, progress: FollowerProgress) -> None:
        parameters = self.parameters
        while (
            not progress.probing
            and progress.next_index <= self.log.last_index
            and len(progress.inflight) < parameters.max_inflight
            and progress.inflight_bytes < parameters.max_inflight_bytes
        ):
            self._send_append(peer, progress, empty=False)

    def _send_append(self, peer: NodeId, progress: FollowerProgress, *, empty: bool) -> None:
        # An empty message points to where the logs are known to agree, or to the probed index. It is answered at once,
        # even while batches are in flight.
        first = progress.next_index if progress.probing or not empty else progress.match_index + 1
        terms: Sequence[int] = ()
        payloads: Sequence[bytes] = ()
        resend_at = self._now + self.parameters.rpc_timeout
        if not empty:
            end, size = self.log.batch_end(first, self.parameters.max_batch_entries, self.parameters.max_batch_bytes)
            terms, payloads = self.log.terms(first, end), self.log.payloads(first, end)
            progress.sent(end - 1, size, self._sequence + 1, resend_at)
        elif progress.probing:
            progress.resend_at = resend_at
        self._sequence += 1
        self._send(
            AppendEntries(
                self.node_id,
                peer,
                self.current_term,
                first - 1,
                self.log.term_at(first - 1),
                terms,
                payloads,
                self.commit_index,
                self._sequence,
            )
        )

    def _on_append_entries(self, request: AppendEntries) -> None:
        if request.term < self.current_term:
            self._refuse_append(request, 0, 0)
            return
        if request.term == self.current_term and self._elected not in (None, request.from_id):
            leaders = f"leaders {self._elected} and {request.from_id} in term {request.term}"
            raise InvariantViolated(f"{self.node_id}: {leaders} (election safety)")
        if request.term > self.current_term or self.role != Role.FOLLOWER or self.leader_id is None:
            self._become_follower(request.term, request.from_id, "AppendEntries of a leader")
        self._leader_heard_at = self._now
        self._reset_election_timer()

        prev, last = request.prev_log_index, self.log.last_index
        if prev > last:
            self._refuse_append(request, 0, last + 1)
        elif self.log.term_at(prev) != request.prev_log_term:
            require(prev > self.commit_index, f"{self.node_id}: conflict with a leader at committed index {prev}")
            conflict = self.log.term_at(prev)
            self._refuse_append(request, conflict, self.log.first_index_of(conflict))
        else:
            self._accept_append(request)

    def _accept_append(self, request: AppendEntries) -> None:
        prev, count = request.prev_log_index, len(request.entry_terms)
        verified = prev + count
        new = self.log.first_difference(prev + 1, request.entry_terms)
        payloads = request.entry_payloads[new - prev - 1 :]
        if new <= verified and not self._has_room(payloads):
            verified, count = new - 1, 0  # treated as a heartbeat: the leader will send these entries again
        elif new <= verified:
            if new <= self.log.last_index:
                self._erase_from(new)
            self._append(request.entry_terms[new - prev - 1 :], payloads)
        # Only up to what this message verified: later entries may come from another leader (Figure 2, receiver, 5).
        self.commit_index = max(self.commit_index, min(request.leader_commit, verified))
        # A heartbeat is answered at once with what is durable; entries are answered once they are durable.
        match_index = verified if count else min(verified, self.durable_index)
        self._send(
            AppendEntriesReply(
                self.node_id,
                request.from_id,
                self.current_term,
                request.term,
                True,
                match_index,
                0,
                0,
                0,
                request.sequence,
            ),
            match_index,
        )

    def _refuse_append(self, request: AppendEntries, conflict_term: int, conflict_index: int) -> None:
        self._send(
            AppendEntriesReply(
                self.node_id,
                request.from_id,
                self.current_term,
                request.term,
                False,
                0,
                request.prev_log_index,
                conflict_term,
                conflict_index,
                request.sequence,
            )
        )

    def _on_append_entries_reply(self, reply: AppendEntriesReply) -> None:
        if reply.term > self.current_term:
            self._become_follower(reply.term, None, "higher term in AppendEntriesReply")
            return
        if self.role != Role.LEADER or reply.request_term != self.current_term:
            return
        if reply.sequence > self._sequence or max(reply.match_index, reply.rejected_index) > self.log.last_index:
            self.counters.replies_refused += 1  # this node never sent such a request
            return
        progress = self.progress[reply.from_id]
        progress.last_contact = self._now
        progress.acked_sequence = max(progress.acked_sequence, reply.sequence)
        if reply.success:
            advanced = reply.match_index > progress.match_index
            progress.matched(reply.match_index, reply.sequence, self._now + self.parameters.rpc_timeout)
            if advanced:
                self._advance_commit()
        elif self._is_news(reply, progress):
            asked = progress.next_index if progress.probing else inf
            progress.search(min(self._back_off(reply), reply.rejected_index), self._sequence + 1)
            if progress.next_index < asked:
                self._send_append(reply.from_id, progress, empty=True)
            else:  # the follower lost what it promised, which no request can repair, so probe at a slow rate
                progress.resend_at = self._now + self.parameters.rpc_timeout

    @staticmethod
    def _is_news(refusal: AppendEntriesReply, progress: FollowerProgress) -> bool:
        """Return whether a refusal concerns the current probe or batch, and not an older request."""
        if progress.probing:
            return refusal.rejected_index == progress.next_index - 1
        return refusal.rejected_index > progress.match_index

    def _back_off(self, refusal: AppendEntriesReply) -> int:
        """Return the next index to probe, skipping a whole term at a time (end of section 5.3)."""
        last_of_term = self.log.last_index_of(refusal.conflict_term) if refusal.conflict_term else None
        return refusal.conflict_index if last_of_term is None else last_of_term + 1

    def _advance_commit(self) -> None:
        """Commit the entries that a quorum holds durably, if the last is of this term (section 5.4.2, Figure 8)."""
        index = int(reached_by_quorum([self.durable_index, *(p.match_index for p in self.progress.values())]))
        if index > self.commit_index and self.log.term_at(index) == self.current_term:
            self.commit_index = index

    # ------------------------------------------------------------------------------ log, disk, promises

    def _disk_is_late(self) -> bool:
        """Return whether a write of this node has been in progress for `yield_after`."""
        return self._now >= self._disk_due

    def _has_room(self, payloads: Sequence[bytes]) -> bool:
        """Return whether these entries fit into `unsynced_bytes`. They always do if no other entries wait."""
        waiting = self.unsynced_bytes
        return not waiting or waiting + entries_bytes(payloads) <= self.parameters.unsynced_bytes

    def _append(self, terms: Sequence[int], payloads: Sequence[bytes]) -> int:
        first_index = self.log.last_index + 1
        self.log.append(terms, payloads)
        self.unsynced_bytes += entries_bytes(payloads)
        self.counters.entries_appended += len(terms)
        return first_index

    def _erase_from(self, index: int) -> None:
        """Erase a suffix that conflicts with the leader's log (section 5.3)."""
        require(self.role != Role.LEADER, f"{self.node_id}: leader erases its log")
        require(index > self.commit_index, f"{self.node_id}: erases committed entry {index}")
        self.counters.entries_erased += self.log.last_index - index + 1
        self._trace("log_truncated", index=index)
        unsynced = max(index, self.durable_index + 1)
        self.unsynced_bytes -= entries_bytes(self.log.payloads(unsynced, self.log.last_index + 1))
        self.log.truncate(index)
        self.durable_index = min(self.durable_index, index - 1)
        self._unstable_index = min(self._unstable_index, index)

    def _hand_to_disk(self) -> None:
        """Make a Persist of the new state, up to the size of one unit, unless a write is in progress."""
        if self._persisting is not None:
            return
        state = HardState(self.current_term, self.voted_for)
        first = self._unstable_index
        end, _ = self.log.batch_end(first, PERSIST_ENTRIES, self.parameters.max_persist_bytes)
        if state == self._durable_state and first == end:
            return
        self._persist_number += 1
        self._persisting = Persist(
            self._persist_number,
            None if state == self._durable_state else state,
            first,
            self.log.terms(first, end),
            self.log.payloads(first, end),
            min(self.commit_index, end - 1),
        )
        self._unstable_index = end
        self._disk_due = self._now + self.parameters.yield_after
        self._effects.persist = self._persisting

    def _hard_state_is_durable(self) -> bool:
        durable = self._durable_state
        return durable.current_term == self.current_term and durable.voted_for == self.voted_for

    def _send(self, message: Message, durable_index: int = 0) -> None:
        """Send a message, or hold it until the term, vote and entries that it promises are durable."""
        if durable_index <= self.durable_index and self._hard_state_is_durable():
            self._effects.messages.append(message)
        else:
            if durable_index <= self.durable_index:  # it waits only for the term and the vote
                self._held = [held for held in self._held if not self._replaces(message, *held)]
            self._held.append((durable_index, message))

    def _replaces(self, message: Message, index: int, older: Message) -> bool:
        """Return whether a newer message to the same peer makes a held message redundant.

        If held messages were never replaced, heartbeats and repeated vote requests would pile up answers while a disk
        hangs.
        """
        if index > self.durable_index or message.to_id != older.to_id:
            return False
        match message, older:
            case AppendEntriesReply(), AppendEntriesReply():
                return (message.success, message.rejected_index) == (older.success, older.rejected_index)
            case RequestVoteReply(), RequestVoteReply():
                return (message.request_term, message.pre_vote) == (older.request_term, older.pre_vote)
        return False

    def _release_held(self) -> None:
        held, self._held = self._held, []
        for index, message in held:
            self._send(message, index)

    def _tell_commit(self) -> None:
        """Trace the commit index if it advanced.

        Call this before a term or a role ends, and at the end of a step. An event traced in the new term would wait
        until that term is durable, while the entries are applied and clients are answered.
        """
        if self.commit_index > self._told_commit:
            self._told_commit = self.commit_index
            self._trace("commit", index=self.commit_index)

    def _trace(self, kind: TraceKind, *, index: int = 0, peer: NodeId = "", detail: str = "") -> None:
        # The effects contain the event only once its term and vote are durable.
        told = self._effects.trace if self._hard_state_is_durable() else self._untold
        told.append(
            TraceEvent(kind, self.current_term, index, peer, detail, self.log.term_at(index), self.durable_index)
        )


TraceKind = Literal[
    "started",
    "became_follower",
    "became_pre_candidate",
    "became_candidate",
    "became_leader",
    "vote_granted",
    "leader_heard",
    "log_truncated",
    "commit",
]
