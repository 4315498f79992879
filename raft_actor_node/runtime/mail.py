"""Messages between peers where they leave and enter a node: here they pass the link faults.

What carries them from node to node is the business of a subclass: gRPC streams (transport.py), or a simulator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from raft_actor_node.core import AppendEntries, Message, RequestVote
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.codec import encoded_bytes
from raft_actor_node.runtime.faults import LinkFaults, MessageKind
from raft_actor_node.runtime.samples import Samples


@dataclass(slots=True)
class TransportCounters:
    """Messages between peers since the process started."""

    sent: int = 0
    received: int = 0
    refused: int = 0
    unsent: int = 0


class Mail(ABC):
    """The messages of one node."""

    def __init__(self, faults: LinkFaults, deliver: Callable[[Message], None], clock: Clock) -> None:
        """`deliver` is told each message that arrives."""
        self.counters = TransportCounters()
        self.round_trips = Samples(clock.now_ns)
        self._faults = faults
        self._deliver = deliver
        self._clock = clock

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

    @abstractmethod
    def _carry(self, message: Message) -> None:
        """Send a message; it may get lost."""
