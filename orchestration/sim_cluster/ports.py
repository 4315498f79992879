"""The reachable processes of a simulated world: where they listen, and which hosts have no power.

This decouples the network, client links and nodes: a node opens and closes its port, and a message looks up the
receiver when it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.unary import CallEnd
from raft_actor_node.core import Message
from raft_actor_node.pb import kv_pb2


class ClientEnd(Protocol):
    """The client's end of its connection to a process."""

    def answer(self, life: Listener, answers: list[kv_pb2.OperationResult]) -> None:
        """Send answers of a process to the client."""

    def lost(self, life: Listener) -> None:
        """The process at the other end has ended; the client learns it after the network's delay."""


class Listener(Protocol):
    """A running process, as the network sees it."""

    @property
    def process(self) -> Process:
        """The process that handles everything that arrives, immediately or when it is resumed."""

    def receive(self, message: Message, members: Sequence[str]) -> None:
        """Process a message of a peer that has these members."""

    def attach(self, link: ClientEnd) -> None:
        """Register the connection of a client."""

    def detach(self, link: ClientEnd) -> None:
        """Remove a connection that its client has closed."""

    def take(self, batch: kv_pb2.OperationBatch, link: ClientEnd) -> None:
        """Process a batch of operations from a client's stream."""

    def call(
        self, operation: kv_pb2.Operation, client_id: str, timeout_s: float, done: Callable[[CallEnd], None]
    ) -> None:
        """Process a unary call for at most `timeout_s`."""

    def tell(self, what: str) -> None:
        """Add an event of this process to the story."""


class Ports:
    """The running processes, by address for clients and by node for peers."""

    def __init__(self) -> None:
        self.listening: dict[str, Listener] = {}
        """The process that listens at each address."""
        self.dark: set[str] = set()
        """Addresses of hosts without power: connections to them get no answer, not even a refusal."""
        self._nodes: dict[str, Listener] = {}

    def open(self, node_id: str, address: str, listener: Listener) -> None:
        """Register a process that begins to listen."""
        self._nodes[node_id] = self.listening[address] = listener

    def close(self, node_id: str, address: str) -> None:
        """Remove the process of a node that has ended."""
        del self._nodes[node_id], self.listening[address]

    def arrive(self, message: Message, members: Sequence[str]) -> None:
        """Deliver a message from a node with these members; it is lost if the receiver is down."""
        listener = self._nodes.get(message.to_id)
        if listener is not None:
            listener.process.run(listener.receive, message, members)
