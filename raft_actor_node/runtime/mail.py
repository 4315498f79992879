"""Messages between peers where they leave and enter a node: here they pass the link faults.

What carries them from node to node is the business of a subclass: gRPC streams (transport.py), or a simulator.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from raft_actor_node.config import NodeConfig
from raft_actor_node.core import AppendEntries, Message, RequestVote
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.codec import encoded_bytes
from raft_actor_node.runtime.faults import LinkFaults, MessageKind
from raft_actor_node.runtime.samples import Samples

logger = logging.getLogger(__name__)

WARN_EVERY_S = 10.0
"""Shortest time between two warnings about the messages of one peer."""
_LONGEST_WARNING = 1000


@dataclass(slots=True)
class TransportCounters:
    """Messages between peers since the process started."""

    sent: int = 0
    received: int = 0
    refused: int = 0
    unsent: int = 0


class Mail(ABC):
    """The messages of one node."""

    def __init__(
        self, config: NodeConfig, faults: LinkFaults, deliver: Callable[[Message], None], clock: Clock
    ) -> None:
        """`deliver` is told each message that arrives."""
        self.members = tuple(config.members)
        """Node ids of all members of the cluster; a peer must have the same, in any order."""
        self.counters = TransportCounters()
        self.round_trips = Samples(clock.now_ns)
        self._faults = faults
        self._deliver = deliver
        self._clock = clock
        self._node_id = config.node_id
        self._warn_at: dict[str, float] = {}
        """When the next warning about a peer may be given; "" stands for all that are no peers."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send each message on its way, as far as the link faults let it."""
        for message in messages:
            if not self._faults.active:
                self._carry(message)
                continue
            kind: MessageKind = "requests" if isinstance(message, AppendEntries | RequestVote) else "replies"
            for delay_s in self._faults.leaving(message.to_id, kind, partial(encoded_bytes, message)):
                if delay_s:
                    self._clock.call_later(delay_s, self._carry, message)
                else:
                    self._carry(message)

    def arrived(self, message: Message, kind: MessageKind) -> None:
        """Hand a message over that came from a peer, if the link faults let it."""
        if not self._faults.active or self._faults.arriving(message.from_id, kind):
            self.counters.received += 1
            self._deliver(message)

    def other_members(self, peer: str, members: Sequence[str]) -> str:
        """Return why a peer that has these members must not be listened to; empty when they are those of this node."""
        if tuple(members) == self.members or set(members) == set(self.members):
            return ""
        named = f"{peer} has {sorted(members)}" if members else f"{peer} names none (an older version)"
        return f"members: {named}, {self._node_id} has {sorted(self.members)}; all nodes must have the same"

    def refuse(self, peer: str, count: int, why: str) -> None:
        """Count messages that change nothing here, not even the term, and warn."""
        self.counters.refused += count
        self.warn(peer, f"refused {count} messages of {peer!r}: {why}")

    def warn(self, peer: str, what: str) -> None:
        """Log a warning about a peer; at most one per peer in WARN_EVERY_S, whatever it does."""
        about = peer if peer in self.members else ""
        now = self._clock.now()
        if now >= self._warn_at.get(about, now):
            self._warn_at[about] = now + WARN_EVERY_S
            logger.warning("%s: %.*s", self._node_id, _LONGEST_WARNING, what)

    @abstractmethod
    def _carry(self, message: Message) -> None:
        """Send a message; it may get lost."""
