"""Send and receive the messages between peers, and apply link faults to them.

A subclass carries the messages from node to node: over gRPC streams (transport.py), or in a simulator.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from raft_actor_node.config import NodeConfig
from raft_actor_node.core import AppendEntries, Message, RequestVote
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.codec import Fragment
from raft_actor_node.runtime.faults import Flow, LinkFaults, MessageKind
from raft_actor_node.runtime.outbox import CONTACT_S, Assembler, TransportCounters
from raft_actor_node.runtime.samples import Samples

logger = logging.getLogger(__name__)

WARN_EVERY_S = 10.0
"""Minimum time between two warnings about the messages of one peer."""
_LONGEST_WARNING = 1000


class Mail(ABC):
    """The messages that a node sends and receives."""

    def __init__(
        self, config: NodeConfig, faults: LinkFaults, deliver: Callable[[Message], None], clock: Clock
    ) -> None:
        """`deliver` is called with each message that arrives."""
        self.members = tuple(config.members)
        """Node ids of all members of the cluster. A peer must have the same members, in any order."""
        self.counters = TransportCounters()
        self.round_trips = Samples(clock.now_ns)
        self._faults = faults
        self._deliver = deliver
        self._clock = clock
        self._node_id = config.node_id
        self._warn_at: dict[str, float] = {}
        """Earliest time of the next warning, by peer. All senders that are not members share the key ""."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages, subject to link faults."""
        for message in messages:
            if not self._faults.active:
                self._carry(message)
                continue
            kind: MessageKind = "replies" if flow_of(message) == "replies" else "requests"
            for delay_s in self._faults.leaving(message.to_id, kind):
                if delay_s:
                    self._clock.call_later(delay_s, self._carry, message)
                else:
                    self._carry(message)

    def arrived_in_part(self, fragment: Fragment, assembler: Assembler) -> None:
        """Receive a part of a peer's AppendEntries, subject to link faults; deliver the message once complete.

        Until then, deliver a heartbeat instead, at most once per CONTACT_S: the same AppendEntries without entries. The
        reply shows the leader that its entries are arriving. A part that does not continue the message in `assembler`
        is refused.
        """
        peer = fragment.head.from_id
        if self._faults.active and not self._faults.arriving(peer, "requests"):
            assembler.lose(fragment)  # TCP would not deliver the next part without this one
            return
        if assembler.is_lost(fragment):
            return
        try:
            message = assembler.add(fragment)
        except ValueError as error:
            self.refuse(peer, 1, str(error))
            return
        now = self._clock.now()
        if message is None and now - assembler.heard_at < CONTACT_S:
            return
        assembler.heard_at = now
        self.counters.received += 1
        self._deliver(message or fragment.head)

    def arrived(self, message: Message, kind: MessageKind) -> None:
        """Deliver a message from a peer, subject to link faults."""
        if not self._faults.active or self._faults.arriving(message.from_id, kind):
            self.counters.received += 1
            self._deliver(message)

    def other_members(self, peer: str, members: Sequence[str]) -> str:
        """Return why a peer with these members must be refused; empty if this node has the same members."""
        if tuple(members) == self.members or set(members) == set(self.members):
            return ""
        named = f"{peer} has {sorted(members)}" if members else f"{peer} sent none (older version)"
        return f"members: {named}, {self._node_id} has {sorted(self.members)}; all nodes must have the same members"

    def refuse(self, peer: str, count: int, why: str) -> None:
        """Count refused messages and log a warning. A refused message changes no state, not even the term."""
        self.counters.refused += count
        self.warn(peer, f"refused {count} messages from {peer!r}: {why}")

    def warn(self, peer: str, what: str) -> None:
        """Log a warning about a peer, at most once per peer in WARN_EVERY_S. All non-members count as one peer."""
        about = peer if peer in self.members else ""
        now = self._clock.now()
        if now >= self._warn_at.get(about, now):
            self._warn_at[about] = now + WARN_EVERY_S
            logger.warning("%s: %.*s", self._node_id, _LONGEST_WARNING, what)

    @abstractmethod
    def _carry(self, message: Message) -> None:
        """Send a message; it may be lost."""


def flow_of(message: Message) -> Flow:
    """Return the flow that a message belongs to."""
    if isinstance(message, AppendEntries):
        return "entries" if message.entry_payloads else "requests"
    return "requests" if isinstance(message, RequestVote) else "replies"
