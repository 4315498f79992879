"""The connection of a client to a node over the simulated network; satisfies raft_actor_node's AnyLink.

As on a real network: a client learns of the end of a process it is connected to, and of a process that does not
run, and of nothing else. What is lost, or asked of a paused process or of a host without power, ends by the client's
own deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.sim_cluster.loop import Call
from orchestration.sim_cluster.network import Network
from orchestration.sim_cluster.story import describe_operations, describe_results
from raft_actor_node.client_link import LinkOwner
from raft_actor_node.config import TransportSettings
from raft_actor_node.pb import kv_pb2

if TYPE_CHECKING:
    from orchestration.sim_cluster.node import Life


class SimLink:
    """Keeps a stream to a node open, until it is closed."""

    def __init__(self, network: Network, address: str, transport: TransportSettings, owner: LinkOwner) -> None:
        """Begins to connect to `address`."""
        self._network = network
        self._address = address
        self._owner = owner
        self._client = ""
        """Name of the client, once it has asked something."""
        self._connect_timeout_s = transport.connect_timeout
        self._pauses_s = transport.reconnect_backoff
        self._pause_s = self._pauses_s.min_s
        self._told_broken = False
        self._life: Life | None = None
        """The process at the other end, as long as nobody says that it is gone."""
        self._open = False
        self._closed = False
        self._pump: Call | None = None
        network.after(network.delay_s(), self._knock)

    def wake(self) -> None:
        """As in AnyLink."""
        if self._open and self._pump is None:
            self._pump = Call(self._send, ())
            self._network.loop.soon(self._pump)

    async def close(self) -> None:
        """As in AnyLink."""
        self._closed, self._open = True, False
        if self._life is not None:
            self._life.detach(self)
            self._life = None

    def lost(self, life: Life) -> None:
        """The process at the other end is gone; the news travels."""
        self._network.after(self._network.delay_s(), self._broken, life, "the node ended the stream")

    def answer(self, life: Life, answers: list[kv_pb2.OperationResult]) -> None:
        """Send these answers of a process to the client."""
        if not answers or life.process.ended:
            return
        batch = kv_pb2.ResultBatch(results=answers)
        if not self._network.post(self._received, life, batch, once=True):
            life.tell(f"> {self._client} lost: {describe_results(answers)}")

    # ------------------------------------------------------------------------------ inside

    def _knock(self) -> None:
        if self._closed:
            return
        if self._address in self._network.dark:
            self._network.after(self._connect_timeout_s, self._broken, None, "no answer to connecting")
            return
        life = self._network.listening.get(self._address)
        if life is None:
            self._broken(None, "connection refused")
            return
        self._life = life
        life.attach(self)
        life.process.run(self._accepted, life)  # one that is paused accepts when it runs again

    def _accepted(self, life: Life) -> None:
        if life is self._life:
            self._open, self._told_broken = True, False
            self._pause_s = self._pauses_s.min_s
            self._owner.connected()
            self.wake()

    def _broken(self, life: Life | None, why: str) -> None:
        if self._closed or life is not self._life:
            return
        self._life, self._open = None, False
        if not self._told_broken:
            self._told_broken = True
            self._owner.broken("UNAVAILABLE", why)
        self._network.after(self._pause_s, self._knock)
        self._pause_s = min(2 * self._pause_s, self._pauses_s.max_s)

    def _send(self) -> None:
        self._pump = None
        life = self._life
        while life is not None and self._open and (batch := self._owner.next_batch()) is not None:
            self._client = batch.client_id
            if not self._network.post(self._ask, life, batch, once=True):
                life.tell(f"< {self._client} lost: {describe_operations(batch.operations)}")

    def _ask(self, life: Life, batch: kv_pb2.OperationBatch) -> None:
        life.process.run(life.take, batch, self)

    def _received(self, life: Life, batch: kv_pb2.ResultBatch) -> None:
        if self._life is life:
            life.tell(f"> {self._client} {describe_results(batch.results)}")
            self._owner.received(batch)
