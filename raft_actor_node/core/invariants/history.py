"""Invariants of real nodes, checked on the trace events of all incarnations of all nodes.

A node writes a trace event before the effects of the event leave the node, and the event survives a SIGKILL. So no vote
and no leadership is missing from a trace. Traces contain no logs. Instead, the index and the term of an entry identify
the entry and, by log matching, the whole log up to that entry.

Events are the lines of trace files (core/trace.py). An event without a number, or of an unknown kind, is skipped: a
foreign program may write anything. After a missing number or a damaged event, rules that need all events are suspended
until the role of the node is known again, and the summary counts the gap. Rules that need the terms of entries skip
events without `log_term`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raft_actor_node.core.invariants.rules import Rule
from raft_actor_node.core.trace import TraceRecord

MOST_FINDINGS = 100
"""Maximum number of violations kept, because one bug breaks a rule again and again."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A violation of a rule in a history."""

    rule: Rule
    node_id: str
    time_ns: int
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.node_id}: {self.detail}"


@dataclass(slots=True)
class _Node:
    """One node, as far as its trace was read."""

    node_id: str
    number: int = 0
    term: int = 0
    role: str = ""
    """The last kind `became_...` of this incarnation; empty while unknown."""
    commit_index: int = 0
    """The last commit index of this incarnation; 0 while unknown."""
    committed: int = 0
    """The highest commit index of all incarnations."""
    durable_index: int = 0
    """Highest index on its disk, according to its trace; 0 while unknown."""
    lives: int = 0
    gaps: int = 0
    votes: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Summary:
    """How much a history contains."""

    events: int = 0
    lives: Mapping[str, int] = field(default_factory=dict)
    """Node -> number of incarnations that traced anything."""
    gaps: Mapping[str, int] = field(default_factory=dict)
    """Node -> number of gaps: places with missing or malformed events. Nodes without a gap are left out."""
    committed: Mapping[str, int] = field(default_factory=dict)
    """Node -> highest index that it traced as committed."""
    leaders: int = 0
    commits: int = 0
    """Number of different indexes traced as committed."""


class EventHistory:
    """Collects events, each node's in its order; `broken` lists the violations."""

    def __init__(self) -> None:
        self._found: list[Broken] = []
        self._nodes: dict[str, _Node] = {}
        self._leaders: dict[int, str] = {}
        self._elected: set[int] = set()
        self._elections: list[tuple[int, int, int, str, int]] = []
        """(term, last index, last term, node, time) of leaders."""
        self._erased: list[tuple[int, int, int, str, int]] = []
        """(term, index, term of the entry, node, time) of truncations."""
        self._committed: dict[int, int] = {}
        """Index -> term of the committed entry."""
        self._reached: dict[int, int] = {}
        """Term in which a node traced a commit -> highest committed index."""
        self._events = 0

    def take(self, events: Iterable[TraceRecord]) -> None:
        """Take in more events."""
        handlers = {
            "started": self._started,
            "became_follower": self._became,
            "became_pre_candidate": self._became,
            "became_candidate": self._became_candidate,
            "became_leader": self._became_leader,
            "vote_granted": self._vote_granted,
            "leader_heard": self._leader_heard,
            "log_truncated": self._log_truncated,
            "commit": self._commit,
        }
        nodes, count = self._nodes, 0
        for event in events:
            number = event.number
            if number is None:
                continue
            node = nodes.get(event.node)
            if node is None:
                node = nodes[event.node] = _Node(event.node)
            if number == 1 or number <= node.number or not node.number:
                self._new_life(node)
                if number != 1:
                    self._gap(node)
            elif number != node.number + 1:
                self._gap(node)
            node.number = number
            handler = handlers.get(event.kind)
            if handler is None:
                continue
            if event.damaged:
                self._gap(node)
                continue
            count += 1
            term, index = event.term, event.index
            if term < node.term:
                self._break(Rule.TERM, event, f"term went from {node.term} back to {term}")
            handler(node, term, index, event)
            node.term = term
        self._events += count

    def summary(self) -> Summary:
        """Return how much was taken in."""
        lives = {name: node.lives for name, node in sorted(self._nodes.items())}
        gaps = {name: node.gaps for name, node in sorted(self._nodes.items()) if node.gaps}
        committed = {name: node.committed for name, node in sorted(self._nodes.items())}
        return Summary(self._events, lives, gaps, committed, len(self._elections), len(self._committed))

    def broken(self) -> list[Broken]:
        """Return every violation, the earliest first; at most MOST_FINDINGS."""
        found = [*self._found, *self._committed_in_order(), *self._completeness(), *self._erased_though_committed()]
        return sorted(found, key=lambda each: each.time_ns)[:MOST_FINDINGS]

    # ------------------------------------------------------------------------------ event by event

    @staticmethod
    def _new_life(node: _Node) -> None:
        node.role, node.commit_index = "", 0
        node.lives += 1

    @staticmethod
    def _gap(node: _Node) -> None:
        """Handle missing events, which may include the end of this incarnation and the beginning of another."""
        node.role, node.commit_index, node.durable_index = "", 0, 0
        node.gaps += 1

    def _started(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        node.role = "became_follower"
        vote = event.peer
        # An untraced truncation may have lowered durable_index, but only if its term or an earlier vote is not traced
        # either.
        told = term <= node.term and (not vote or node.votes.get(term) == vote)
        if told and index < node.durable_index:
            text = f"starts with a log that ends at {index}, but traced that {node.durable_index} is on its disk"
            self._break(Rule.DISK, event, text)
        node.durable_index = index
        if vote:
            self._vote(node, term, vote, event)
        elif event.log_term is not None and term in node.votes:
            self._break(Rule.ONE_VOTE, event, f"starts without its vote for {node.votes[term]} in term {term}")

    def _became(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        kind = event.kind
        if kind == "became_pre_candidate" and term != node.term and node.role:
            self._break(Rule.PRE_VOTE, event, f"a pre-vote changed the term from {node.term} to {term}")
        node.role = kind

    def _became_candidate(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        if node.role == "became_leader":
            self._break(Rule.ROLES, event, f"a leader stands for election in term {term}")
        if term == node.term and node.number > 1:
            self._break(Rule.ROLES, event, f"stands in term {term}, but was in that term before")
        self._vote(node, term, node.node_id, event)
        node.role = "became_candidate"

    def _vote_granted(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        self._vote(node, term, event.peer, event)

    def _vote(self, node: _Node, term: int, candidate: str, event: TraceRecord) -> None:
        first = node.votes.setdefault(term, candidate)
        if first != candidate:
            self._break(Rule.ONE_VOTE, event, f"voted for {first} and for {candidate} in term {term}")

    def _became_leader(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        if node.role not in ("became_candidate", "") or (node.role and term != node.term):
            self._break(Rule.ROLES, event, f"leads term {term}, but was not a candidate in it")
        if self._led_by(term, node.node_id, event) and term in self._elected:
            self._break(Rule.ELECTION_SAFETY, event, f"became leader of term {term} twice")
        self._elected.add(term)
        node.role = "became_leader"
        log_term = -1 if event.log_term is None else event.log_term
        self._elections.append((term, index, log_term, node.node_id, event.time_ns))

    def _leader_heard(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        self._led_by(term, event.peer, event)

    def _led_by(self, term: int, leader: str, event: TraceRecord) -> bool:
        first = self._leaders.setdefault(term, leader)
        if first != leader:
            self._break(Rule.ELECTION_SAFETY, event, f"two leaders in term {term}: {first} and {leader}")
        return first == leader

    def _log_truncated(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        if node.role == "became_leader":
            self._break(Rule.APPEND_ONLY, event, f"the leader of term {term} erased entries from {index} on")
        if index <= node.commit_index:
            text = f"erased entries from {index} on, but traced that {node.commit_index} is committed"
            self._break(Rule.STATE_MACHINE_SAFETY, event, text)
        node.durable_index = min(node.durable_index, index - 1)
        if event.log_term is not None:
            self._erased.append((term, index, event.log_term, node.node_id, event.time_ns))

    def _commit(self, node: _Node, term: int, index: int, event: TraceRecord) -> None:
        if index <= node.commit_index:
            self._break(Rule.COMMIT_INDEX, event, f"from {node.commit_index} to {index} within one incarnation")
        node.commit_index = index
        node.committed = max(node.committed, index)
        if event.durable_index is not None:
            node.durable_index = max(node.durable_index, event.durable_index)
        if index > self._reached.get(term, 0):
            self._reached[term] = index
        log_term = event.log_term
        if log_term is None:
            return
        first = self._committed.setdefault(index, log_term)
        if first != log_term:
            text = f"committed an entry of term {log_term} at {index}; another node committed one of term {first} there"
            self._break(Rule.STATE_MACHINE_SAFETY, event, text)
        if log_term != term and node.role == "became_leader":
            text = f"the leader of term {term} commits {index}, of term {log_term} (Figure 8)"
            self._break(Rule.OWN_TERM, event, text)

    def _break(self, rule: Rule, event: TraceRecord, detail: str) -> None:
        if len(self._found) < MOST_FINDINGS:
            self._found.append(Broken(rule, event.node, event.time_ns, detail))

    # ------------------------------------------------------------------------------ over all events

    def _committed_in_order(self) -> Iterable[Broken]:
        """Check that terms never decrease along the committed entries, as they never do along a log."""
        before, term_before = 0, 0
        for index in sorted(self._committed):
            term = self._committed[index]
            if term < term_before:
                text = f"committed entry {before} has term {term_before}, but the later entry {index} has term {term}"
                yield Broken(Rule.STATE_MACHINE_SAFETY, "", 0, text)
                return
            before, term_before = index, term

    def _completeness(self) -> Iterable[Broken]:
        """Check that the leader of a term holds everything that was committed in older terms."""
        terms = sorted(self._reached)
        at, index = 0, 0
        for term, last_index, last_term, node_id, time_ns in sorted(self._elections):
            while at < len(terms) and terms[at] < term:
                index = max(index, self._reached[terms[at]])
                at += 1
            short = last_index < index
            if last_term >= 0 and (short or last_term < self._committed.get(index, 0)):
                text = f"leads term {term} with a log that ends at {last_index} of term {last_term}, although"
                text += f" entry {index} of term {self._committed.get(index, 0)} was committed in an older term"
                yield Broken(Rule.LEADER_COMPLETENESS, node_id, time_ns, text)

    def _erased_though_committed(self) -> Iterable[Broken]:
        """Check that no node erases an entry that was committed in the same or an older term."""
        indexes = sorted(self._committed)
        terms = sorted(self._reached)
        at, reached = 0, 0
        for term, index, log_term, node_id, time_ns in sorted(self._erased):
            while at < len(terms) and terms[at] <= term:
                reached = max(reached, self._reached[terms[at]])
                at += 1
            position = bisect_left(indexes, index)
            if index > reached or position == len(indexes):
                continue
            # Entries between two traced commits of the same term have that term.
            above = self._committed[indexes[position]]
            exact = indexes[position] == index
            below = above if exact else self._committed[indexes[position - 1]] if position else -1
            if below == above == log_term:
                text = f"erased entry {index} of term {log_term} in term {term}, after it was committed"
                yield Broken(Rule.STATE_MACHINE_SAFETY, node_id, time_ns, text)


def check_history(events: Iterable[TraceRecord]) -> list[Broken]:
    """Return the violations in these events of any number of nodes, each node's in its order."""
    history = EventHistory()
    history.take(events)
    return history.broken()
