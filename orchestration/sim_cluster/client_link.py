"""The connection of a client to a node over the simulated network; satisfies raft_actor_node's AnyLink.

As on a real network, a client notices only two failures: its connection breaks when the process ends, and an address
without a process refuses the connection. If a request is lost, or the process is paused, or its host has no power, the
client gets no answer until its own timeout expires.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from orchestration.sim_cluster.loop import Call
from orchestration.sim_cluster.network import Network
from orchestration.sim_cluster.ports import Listener
from orchestration.sim_cluster.story import describe_operations, describe_results
from orchestration.sim_cluster.unary import CallEnd
from raft_actor_node.client_link import LinkOwner
from raft_actor_node.config import CallForm, TransportSettings
from raft_actor_node.pb import kv_pb2


class SimLink:
    """A stream to a node, reconnected until it is closed."""

    def __init__(self, network: Network, address: str, transport: TransportSettings, owner: LinkOwner) -> None:
        """Begin to connect to `address`."""
        self._network = network
        self._address = address
        self._owner = owner
        self._client = ""
        """Name of the client, set by its first request."""
        self._connect_timeout_s = transport.connect_timeout
        self._pauses_s = transport.reconnect_backoff
        self._pause_s = self._pauses_s.min_s
        self._told_broken = False
        self._life: Listener | None = None
        """The process at the other end, until the client notices that it has ended."""
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

    def lost(self, life: Listener) -> None:
        """Break the connection because its process has ended. The client notices this after the network's delay."""
        self._network.after(self._network.delay_s(), self._broken, life, "the node ended the stream")

    def answer(self, life: Listener, answers: list[kv_pb2.OperationResult]) -> None:
        """Send answers of a process to the client."""
        if not answers or life.process.ended:
            return
        batch = kv_pb2.ResultBatch(results=answers)
        if not self._network.post(self._received, life, batch, once=True):
            life.tell(f"> {self._client} lost: {describe_results(answers)}")

    # ------------------------------------------------------------------------------ inside

    def _knock(self) -> None:
        if self._closed:
            return
        if self._address in self._network.ports.dark:
            self._network.after(self._connect_timeout_s, self._broken, None, "the connection timed out")
            return
        life = self._network.ports.listening.get(self._address)
        if life is None:
            self._broken(None, "connection refused")
            return
        self._life = life
        life.attach(self)
        life.process.run(self._accepted, life)  # a paused process accepts when it is resumed

    def _accepted(self, life: Listener) -> None:
        if life is self._life:
            self._open, self._told_broken = True, False
            self._pause_s = self._pauses_s.min_s
            self._owner.connected()
            self.wake()

    def _broken(self, life: Listener | None, why: str) -> None:
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

    def _ask(self, life: Listener, batch: kv_pb2.OperationBatch) -> None:
        life.process.run(life.take, batch, self)

    def _received(self, life: Listener, batch: kv_pb2.ResultBatch) -> None:
        if self._life is life:
            life.tell(f"> {self._client} {describe_results(batch.results)}")
            self._owner.received(batch)


class SimUnaryLink(SimLink):
    """A link that makes a unary call for each operation.

    As with gRPC, both ends abandon a call independently: the client at its deadline, and the node after working on the
    call for the same time.
    """

    def _send(self) -> None:
        self._pump = None
        life, network, timeout_s = self._life, self._network, self._owner.timeout_s
        while life is not None and self._open and (batch := self._owner.next_batch()) is not None:
            self._client = batch.client_id
            for operation in batch.operations:
                network.after(timeout_s, self._owner.failed, operation.id, "DEADLINE_EXCEEDED", "no answer in time")
                deadline_s = network.loop.time() + timeout_s
                if not network.post(self._call, life, operation, deadline_s, once=True):
                    life.tell(f"< {self._client} lost: {describe_operations([operation])}")

    def _call(self, life: Listener, operation: kv_pb2.Operation, deadline_s: float) -> None:
        done = partial(self._done, life, deadline_s)
        life.process.run(life.call, operation, self._client, self._owner.timeout_s, done)

    def _done(self, life: Listener, deadline_s: float, end: CallEnd) -> None:
        """Send the outcome of a call from the node to the client."""
        if not life.process.ended and not self._network.post(self._ended, life, deadline_s, end, once=True):
            life.tell(f"> {self._client} lost: {end}")

    def _ended(self, life: Listener, deadline_s: float, end: CallEnd) -> None:
        if self._life is not life or self._network.loop.time() >= deadline_s:
            return
        if end.result is not None:
            self._received(life, kv_pb2.ResultBatch(results=[end.result]))
        else:
            life.tell(f"> {self._client} {end}")
            self._owner.failed(end.operation_id, end.status, end.message)


LINKS: Mapping[CallForm, type[SimLink]] = {"stream": SimLink, "unary": SimUnaryLink}
"""The kinds of links between a client and a simulated node."""
