"""Observers of a simulation, called at the moment of each event.

If an observer raises InvariantViolated, the node concerned ends, and a violation is recorded. In `stepped`, `synced`,
`applied` and `answered` an observer may also crash that node (`cluster.nodes[node_id].crash(power=...)`). This places a
crash before a persist, between an fsync and the message that depends on it, or between an apply and its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raft_actor_node.core import Effects, Event, Message, Persist, RaftNode
from raft_actor_node.core.invariants import Snapshot
from raft_actor_node.errors import InvariantViolated
from raft_actor_node.kv.store import Result, Store

MOST_STEPS_AT_ONCE = 20_000
"""Limit of steps without progress of virtual time; more steps mean an endless loop."""


class Observer(Protocol):
    """Observes all nodes; `now` is the time of the simulation in seconds, not that of a node's own clock."""

    def started(self, node: RaftNode, now: float) -> None:
        """An incarnation of a node has recovered from its disk; it has not stepped yet."""

    def stepped(self, node: RaftNode, before: Snapshot, events: Sequence[Event], effects: Effects, now: float) -> None:
        """A node processed these events; none of the effects is performed yet."""

    def synced(self, node_id: str, persist: Persist, now: float) -> None:
        """The disk of a node reports this persist as durable."""

    def crashed(self, node_id: str, now: float) -> None:
        """An incarnation of a node ended in any way."""

    def applied(self, node_id: str, first_index: int, results: Sequence[Result], store: Store, now: float) -> None:
        """A node applied the entries from `first_index` on, with these results."""

    def answered(self, node_id: str, read_index: int, last_applied: int, now: float) -> None:
        """A node is about to answer reads with this read index."""

    def sent(self, message: Message, now: float) -> None:
        """A node sent a message; it may get lost."""

    def delivered(self, message: Message, now: float) -> None:
        """A message arrived at a running node."""


class Silent:
    """An observer that does nothing; a base class for observers of a few events."""

    def started(self, node: RaftNode, now: float) -> None:
        """As in Observer."""

    def stepped(self, node: RaftNode, before: Snapshot, events: Sequence[Event], effects: Effects, now: float) -> None:
        """As in Observer."""

    def synced(self, node_id: str, persist: Persist, now: float) -> None:
        """As in Observer."""

    def crashed(self, node_id: str, now: float) -> None:
        """As in Observer."""

    def applied(self, node_id: str, first_index: int, results: Sequence[Result], store: Store, now: float) -> None:
        """As in Observer."""

    def answered(self, node_id: str, read_index: int, last_applied: int, now: float) -> None:
        """As in Observer."""

    def sent(self, message: Message, now: float) -> None:
        """As in Observer."""

    def delivered(self, message: Message, now: float) -> None:
        """As in Observer."""


class Clockwork(Silent):
    """Ends a node that steps endlessly at the same virtual time; otherwise the simulation would never end."""

    def __init__(self) -> None:
        self._now, self._steps = 0.0, 0

    def stepped(self, node: RaftNode, before: Snapshot, events: Sequence[Event], effects: Effects, now: float) -> None:
        """Count the steps at the same virtual time. Raises InvariantViolated above MOST_STEPS_AT_ONCE."""
        self._steps = self._steps + 1 if now == self._now else 0
        self._now = now
        if self._steps > MOST_STEPS_AT_ONCE:
            raise InvariantViolated(f"{node.node_id} steps without end, at {now:.6f} s")


class Observers:
    """Several observers as one, called in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self, node: RaftNode, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.started(node, now)

    def stepped(self, node: RaftNode, before: Snapshot, events: Sequence[Event], effects: Effects, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.stepped(node, before, events, effects, now)

    def synced(self, node_id: str, persist: Persist, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.synced(node_id, persist, now)

    def crashed(self, node_id: str, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.crashed(node_id, now)

    def applied(self, node_id: str, first_index: int, results: Sequence[Result], store: Store, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.applied(node_id, first_index, results, store, now)

    def answered(self, node_id: str, read_index: int, last_applied: int, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.answered(node_id, read_index, last_applied, now)

    def sent(self, message: Message, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.sent(message, now)

    def delivered(self, message: Message, now: float) -> None:
        """As in Observer."""
        for each in self._observers:
            each.delivered(message, now)
