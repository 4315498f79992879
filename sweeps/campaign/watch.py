"""Observers of a running seed: Coverage counts the situations it reached, Moments lets a script wait for a moment.

The simulation calls them synchronously (see `Observer` in orchestration/sim_cluster). They do not change its state.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from orchestration.sim_cluster.observer import Silent
from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Effects,
    Event,
    Message,
    Persist,
    RaftNode,
    Read,
    RequestVote,
    RequestVoteReply,
    Role,
)
from raft_actor_node.core.invariants import Snapshot
from raft_actor_node.core.node import DISK_IS_LATE
from raft_actor_node.core.quorum import reached_by_quorum
from raft_actor_node.kv.store import Result, Store

Point = Literal[
    "append",
    "candidate",
    "vote",
    "synced entries",
    "synced vote",
    "granted",
    "acknowledged",
    "elected",
    "replicate",
    "commit",
    "followed",
    "erased",
    "applied",
]
"""A named moment of a node:

    append          it handed entries to its disk, which has not finished
    candidate       it handed its own vote to the disk
    vote            it handed a vote for another node to the disk
    synced entries  its disk has just finished entries; the node is not notified yet
    synced vote     its disk has just finished a term or a vote; the node is not notified yet
    granted         it has just sent a vote
    acknowledged    it has just sent the success of an append
    elected         it has just become leader
    replicate       it has just sent entries
    commit          it leads, and its commit index has just grown
    followed        it follows, and its commit index has just grown
    erased          it has just erased a suffix of its log
    applied         it has just applied entries
"""
POINTS: tuple[Point, ...] = get_args(Point)


class Coverage(Silent):
    """Counts situations in which implementations of Raft are known to fail.

    leader changes                  a leader was elected, except the first leader
    suffixes erased                 a follower erased entries that conflict with its leader's
    old-term majorities             see holds_old_term_on_majority
    retries answered                a leader answered a retry from the session table
    reads refused                   a former leader refused reads that it had accepted and could no longer confirm
    pre-votes refused
    votes asked again               a node voted in an earlier incarnation, and then received the request of another
                                    candidate in the same term
    contested terms                 a second candidate ran in a term
    longer logs refused             a candidate's log was longer than the voter's, but its last term was older
    shorter logs refused            a candidate's log was shorter than the voter's, with the same last term
    reads at deposed leaders        a leader received reads while another node already led
    reads before an own commit      a leader received reads before it had committed an entry of its own term
    commits before an own fsync     a leader committed entries that were not durable on its own disk yet
    leaders yielded                 a leader stepped down because its own disk did not answer (raft.yield_after)
    suffixes erased while written   a node erased entries while its disk was still writing entries
    answers of earlier terms        a leader received responses to requests of an earlier term
    lives                           starts of nodes
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._nodes: dict[str, RaftNode] = {}
        self._voted_before: dict[str, int] = {}
        """Term of the vote that a node found on its disk when it started."""
        self._duplicates: dict[str, int] = {}
        self._old_terms: set[tuple[str, int, int]] = set()
        self._last_leader_term = 0
        self._candidate_terms: set[int] = set()
        self._writing: dict[str, Persist] = {}
        self._erased: dict[str, int] = {}

    def started(self, node: RaftNode, now: float) -> None:
        """Count the start, and record the vote of an earlier incarnation."""
        self.counts["lives"] += 1
        self._writing.pop(node.node_id, None)
        self._erased[node.node_id] = 0
        self._nodes[node.node_id] = node
        self._duplicates[node.node_id] = 0
        self._voted_before.pop(node.node_id, None)
        if node.voted_for is not None:
            self._voted_before[node.node_id] = node.current_term

    def stepped(self, node: RaftNode, before: Snapshot, events: Sequence[Event], effects: Effects, now: float) -> None:
        """Count the situations that the step reached."""
        for event in effects.trace:
            if event.kind == "became_leader":
                self.counts["leader changes"] += self._last_leader_term > 0
                self._last_leader_term = max(self._last_leader_term, event.term)
            elif event.kind == "became_candidate":
                self.counts["contested terms"] += event.term in self._candidate_terms
                self._candidate_terms.add(event.term)
            elif event.kind == "became_follower" and event.detail == DISK_IS_LATE:
                self.counts["leaders yielded"] += before.role == Role.LEADER
            elif event.kind == "log_truncated":
                self.counts["suffixes erased"] += 1
        if effects.reads_refused and before.role == Role.LEADER:
            self.counts["reads refused"] += len(effects.reads_refused)
        if node.counters.entries_erased > self._erased[node.node_id]:
            self._erased[node.node_id] = node.counters.entries_erased
            self.counts["suffixes erased while written"] += node.node_id in self._writing
        if effects.persist is not None and effects.persist.terms:
            self._writing[node.node_id] = effects.persist
        if node.role == Role.LEADER:
            self._lead(node, before, events)

    def _lead(self, node: RaftNode, before: Snapshot, events: Sequence[Event]) -> None:
        if any(isinstance(event, Read) for event in events):
            self.counts["reads at deposed leaders"] += node.current_term < self._last_leader_term
            self.counts["reads before an own commit"] += node.log.term_at(node.commit_index) < node.current_term
        if node.commit_index > max(before.commit_index, node.durable_index):
            self.counts["commits before an own fsync"] += 1
        if holds_old_term_on_majority(node):
            where = (node.node_id, node.current_term, node.commit_index)
            self.counts["old-term majorities"] += where not in self._old_terms
            self._old_terms.add(where)

    def applied(self, node_id: str, first_index: int, results: Sequence[Result], store: Store, now: float) -> None:
        """Count the retries that a leader answered from the session table."""
        duplicates = store.duplicates_answered
        if duplicates > self._duplicates[node_id] and self._nodes[node_id].role == Role.LEADER:
            self.counts["retries answered"] += duplicates - self._duplicates[node_id]
        self._duplicates[node_id] = duplicates

    def synced(self, node_id: str, persist: Persist, now: float) -> None:
        """Record that the disk has finished its write."""
        self._writing.pop(node_id, None)

    def sent(self, message: Message, now: float) -> None:
        """Count refused pre-votes."""
        if isinstance(message, RequestVoteReply) and message.pre_vote and not message.vote_granted:
            self.counts["pre-votes refused"] += 1

    def delivered(self, message: Message, now: float) -> None:
        """Count vote requests and late responses of interest."""
        node = self._nodes[message.to_id]
        if isinstance(message, RequestVote) and message.term >= node.current_term and not message.pre_vote:
            if self._voted_before.get(node.node_id) == message.term == node.current_term:
                self.counts["votes asked again"] += message.from_id != node.voted_for
            longer, later = message.last_log_index - node.log.last_index, message.last_log_term - node.log.last_term
            self.counts["longer logs refused"] += longer > 0 > later
            self.counts["shorter logs refused"] += longer < 0 == later
        elif isinstance(message, AppendEntriesReply) and node.role == Role.LEADER:
            self.counts["answers of earlier terms"] += message.request_term < node.current_term


def holds_old_term_on_majority(leader: RaftNode) -> bool:
    """Return whether a majority durably holds uncommitted entries of older terms, but none of the leader's own term.

    Such an entry must not be committed by counting copies (paper, section 5.4.2 and Figure 8).
    """
    log, next_index = leader.log, leader.commit_index + 1
    if next_index > log.last_index or log.term_at(next_index) == leader.current_term:
        return False
    held = int(reached_by_quorum([leader.durable_index, *(p.match_index for p in leader.progress.values())]))
    return held >= next_index and log.term_at(held) < leader.current_term


class Moments(Silent):
    """Lets a script wait for a moment, and continue at the same virtual instant."""

    def __init__(self) -> None:
        self._conditions: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._points: dict[asyncio.Future[str], tuple[frozenset[Point], Callable[[str], bool]]] = {}

    async def until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition holds; return False if it does not hold in time.

        The condition is evaluated after each step of each node. It must be cheap and without side effects.
        """
        if condition():
            return True
        return await self._wait(self._conditions, condition, timeout) is not _LATE

    async def reach(
        self, points: Sequence[Point], timeout: float | None, of: Callable[[str], bool] = lambda node_id: True
    ) -> str | None:
        """Wait until a node for which `of` holds reaches one of these points; return it, or None after the timeout."""
        node_id = await self._wait(self._points, (frozenset(points), of), timeout)
        return None if node_id is _LATE else node_id

    async def _wait(self, queue: dict[asyncio.Future[Any], Any], wanted: Any, timeout: float | None) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        queue[future] = wanted
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return _LATE
        finally:
            queue.pop(future, None)

    def _look(self) -> None:
        for future, condition in list(self._conditions.items()):
            if not future.done() and condition():
                future.set_result(None)

    def _reached(self, point: Point, node_id: str) -> None:
        for future, (points, of) in list(self._points.items()):
            if point in points and not future.done() and of(node_id):
                future.set_result(node_id)

    def stepped(self, node: RaftNode, before: Snapshot, events: Sequence[Event], effects: Effects, now: float) -> None:
        """Check which points the step reached."""
        if self._conditions:
            self._look()
        if not self._points:
            return
        persist, name = effects.persist, node.node_id
        if persist is not None:
            if persist.terms:
                self._reached("append", name)
            if persist.hard_state is not None and persist.hard_state.voted_for is not None:
                self._reached("candidate" if persist.hard_state.voted_for == name else "vote", name)
        if node.role == Role.LEADER and before.role != Role.LEADER:
            self._reached("elected", name)
        if node.commit_index > before.commit_index:
            self._reached("commit" if node.role == Role.LEADER else "followed", name)
        if any(event.kind == "log_truncated" for event in effects.trace):
            self._reached("erased", name)

    def synced(self, node_id: str, persist: Persist, now: float) -> None:
        """Check the points of a disk that has finished a write."""
        if self._conditions:
            self._look()
        if self._points:
            if persist.terms:
                self._reached("synced entries", node_id)
            if persist.hard_state is not None:
                self._reached("synced vote", node_id)

    def crashed(self, node_id: str, now: float) -> None:
        """Evaluate the conditions after a node has ended."""
        if self._conditions:
            self._look()

    def applied(self, node_id: str, first_index: int, results: Sequence[Result], store: Store, now: float) -> None:
        """Check the point of applied entries."""
        if self._points:
            self._reached("applied", node_id)

    def sent(self, message: Message, now: float) -> None:
        """Check the points of a message that leaves."""
        if not self._points:
            return
        if isinstance(message, RequestVoteReply):
            if message.vote_granted and not message.pre_vote:
                self._reached("granted", message.from_id)
        elif isinstance(message, AppendEntriesReply):
            if message.success and message.match_index:
                self._reached("acknowledged", message.from_id)
        elif isinstance(message, AppendEntries) and message.entry_terms:
            self._reached("replicate", message.from_id)


_LATE = object()
