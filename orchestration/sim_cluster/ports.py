"""Who can be reached in a simulated world: the processes that run, where they listen, and which hosts are dark.

Network, links of clients and nodes meet here and need not know one another: a node opens and closes its port, and what
travels looks up who is there when it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.unary import CallEnd
from raft_actor_node.core import Message
from raft_actor_node.pb import kv_pb2


class ClientEnd(Protocol):
    """The end of a client's connection that is with the client."""

    def answer(self, life: Listener, answers: list[kv_pb2.OperationResult]) -> None:
        """Send these answers of a process to the client."""

    def lost(self, life: Listener) -> None:
        """The process at the other end is gone; the news travels."""


class Listener(Protocol):
    """A process that runs, for what arrives at it."""

    @property
    def process(self) -> Process:
        """What takes in everything that arrives, now or when it runs again."""

    def receive(self, message: Message, members: Sequence[str]) -> None:
        """Take in what a peer with these members sent."""

    def attach(self, link: ClientEnd) -> None:
        """A client connects."""

    def detach(self, link: ClientEnd) -> None:
        """A client has closed its connection."""

    def take(self, batch: kv_pb2.OperationBatch, link: ClientEnd) -> None:
        """Take in what a client asks on its stream."""

    def call(
        self, operation: kv_pb2.Operation, client_id: str, timeout_s: float, done: Callable[[CallEnd], None]
    ) -> None:
        """Take in a unary call, and work on it for `timeout_s` at most."""

    def tell(self, what: str) -> None:
        """Add to the story."""


class Ports:
    """The processes that run, by address for clients and by node for peers."""

    def __init__(self) -> None:
        self.listening: dict[str, Listener] = {}
        """Address to the process that answers there."""
        self.dark: set[str] = set()
        """Addresses of hosts without power: nothing there refuses a connection."""
        self._nodes: dict[str, Listener] = {}

    def open(self, node_id: str, address: str, listener: Listener) -> None:
        """A process begins to listen."""
        self._nodes[node_id] = self.listening[address] = listener

    def close(self, node_id: str, address: str) -> None:
        """The process of a node has ended."""
        del self._nodes[node_id], self.listening[address]

    def arrive(self, message: Message, members: Sequence[str]) -> None:
        """A message, of a node with these members, is at its destination; it is lost while that node is down."""
        listener = self._nodes.get(message.to_id)
        if listener is not None:
            listener.process.run(listener.receive, message, members)
