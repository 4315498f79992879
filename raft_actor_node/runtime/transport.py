"""Carries messages between nodes: one bidirectional stream per ordered pair, batches on each.

A node opens a stream to every peer for its requests; the peer's replies come back on the same stream. A
message for which there is no connection is lost, as on any network: the core sends again what matters.
Channels are opened anew after a failure, a new address, or a silence (TransportSettings.silence_timeout): the
back-off of gRPC and that of TCP (seconds, then minutes) would be most of any failover that one measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import monotonic_ns
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from raft_actor_node.channels import channel_options
from raft_actor_node.config import MESSAGE_OVERHEAD_BYTES, NodeConfig, TransportSettings
from raft_actor_node.core import AppendEntries, Message, RequestVote
from raft_actor_node.core.log import ENTRY_BYTES
from raft_actor_node.core.messages import Reply, Request
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.pb import raft_pb2_grpc
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.codec import decode_reply, decode_request, encode_reply, encode_request
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.mail import Mail, TransportCounters
from raft_actor_node.runtime.samples import Samples

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 64
"""What a message weighs in a queue besides its payloads."""
REMEMBERED_PINGS = 256

M = TypeVar("M", Request, Reply)


class Transport(Mail, raft_pb2_grpc.RaftServicer):
    """All links of one node, and the service that its peers call."""

    def __init__(
        self, config: NodeConfig, faults: LinkFaults, deliver: Callable[[Message], None], clock: Clock
    ) -> None:
        """`deliver` is told each message that arrives."""
        super().__init__(config, faults, deliver, clock)
        self._config = config
        self._links = {
            peer: _Link(config, peer, self._on_replies, self.warn, self.counters, self.round_trips)
            for peer in config.members
            if peer != config.node_id
        }
        self._answers: dict[str, _Outbox[Reply]] = {}

    def update_addresses(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Take in node id -> (address, epoch); a higher epoch replaces an address at once."""
        for node_id, (address, epoch) in addresses.items():
            if node_id in self._links:
                self._links[node_id].set_address(address, epoch)

    async def close(self) -> None:
        """Close all links."""
        await asyncio.gather(*(link.close() for link in self._links.values()))

    def _carry(self, message: Message) -> None:
        if isinstance(message, AppendEntries | RequestVote):
            self._links[message.to_id].outbox.put(message)
            return
        outbox = self._answers.get(message.to_id)
        if outbox is None:
            self.counters.unsent += 1
        else:
            outbox.put(message)

    # -------------------------------------------------------------------------- requests of others

    async def Exchange(  # noqa: N802 - the name is the service's
        self,
        request_iterator: AsyncIterator[pb.PeerRequests],
        context: grpc.aio.ServicerContext[pb.PeerRequests, pb.PeerReplies],
    ) -> None:
        """Take in a peer's requests until it hangs up; replies leave when the core releases them."""
        outbox: _Outbox[Reply] = _Outbox(self._config.transport, self.counters)
        writer: asyncio.Task[None] | None = None
        peer = ""
        try:
            async for batch in request_iterator:
                if fault := self._fault(batch, first=batch.from_id != peer):
                    self.refuse(batch.from_id, len(batch.requests), fault)
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, fault)
                if writer is None:
                    peer = batch.from_id
                    writer = asyncio.create_task(self._write_replies(outbox, peer, context))
                if writer.done():
                    break  # replies cannot leave any more: the peer must open another stream
                # With each batch: a stream that outlives a later one is the only way back again.
                self._answers[peer] = outbox
                self._take(batch)
        finally:
            if self._answers.get(peer) is outbox:
                del self._answers[peer]
            if writer is not None:
                writer.cancel()

    def _take(self, batch: pb.PeerRequests) -> None:
        try:
            requests = [decode_request(request, batch.from_id, batch.to_id) for request in batch.requests]
        except ValueError as error:
            self.refuse(batch.from_id, len(batch.requests), str(error))  # a malformed batch changes nothing
            return
        for request in requests:
            self.arrived(request, "requests")

    async def _write_replies(
        self,
        outbox: _Outbox[Reply],
        peer: str,
        context: grpc.aio.ServicerContext[pb.PeerRequests, pb.PeerReplies],
    ) -> None:
        members: Sequence[str] = self.members
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            while True:
                replies = [encode_reply(reply) for reply in await outbox.take()]
                await context.write(
                    pb.PeerReplies(
                        cluster_id=self._config.cluster_id,
                        from_id=self._config.node_id,
                        to_id=peer,
                        replies=replies,
                        members=members,
                    )
                )
                members = ()
                self.counters.sent += len(replies)

    def _on_replies(self, batch: pb.PeerReplies, first: bool) -> bool:
        """Take in replies, the `first` of a stream or later ones. False: not from this peer, give the stream up."""
        if fault := self._fault(batch, first=first):
            self.refuse(batch.from_id, len(batch.replies), fault)
            return False
        try:
            replies = [decode_reply(reply, batch.from_id, batch.to_id) for reply in batch.replies]
        except ValueError as error:
            self.refuse(batch.from_id, len(batch.replies), str(error))
            return True
        for reply in replies:
            self.arrived(reply, "replies")
        return True

    def _fault(self, batch: pb.PeerRequests | pb.PeerReplies, *, first: bool) -> str:
        """Why a batch must not be looked into; empty when it may. `first`: of this peer on its stream."""
        if batch.cluster_id != self._config.cluster_id:
            return f"cluster_id: this is {self._config.cluster_id!r}, not {batch.cluster_id!r}"
        if batch.to_id != self._config.node_id:
            return f"to_id: this is {self._config.node_id!r}, not {batch.to_id!r}"
        if batch.from_id not in self._links:
            return f"from_id: {batch.from_id!r} is not a peer in this cluster"
        return self.other_members(batch.from_id, batch.members) if first else ""


class _Outbox(Generic[M]):
    """Messages that wait for one stream, bounded in bytes; what does not fit is lost."""

    def __init__(self, settings: TransportSettings, counters: TransportCounters) -> None:
        self._settings = settings
        self._counters = counters
        self._waiting: deque[tuple[int, M]] = deque()
        self._bytes = 0
        self._news = asyncio.Event()

    def put(self, message: M) -> None:
        size = MESSAGE_BYTES
        if isinstance(message, AppendEntries) and message.entry_payloads:
            size += sum(map(len, message.entry_payloads)) + ENTRY_BYTES * len(message.entry_payloads)
        if self._waiting and self._bytes + size > self._settings.queue_bytes:
            self._counters.unsent += 1
            return
        self._waiting.append((size, message))
        self._bytes += size
        self._news.set()

    async def take(self) -> list[M]:
        """Wait for messages; take out as many as one gRPC message may carry, at least one."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        room = self._settings.message_bytes - MESSAGE_OVERHEAD_BYTES
        batch: list[M] = []
        while self._waiting and (not batch or self._waiting[0][0] <= room):
            size, message = self._waiting.popleft()
            room -= size
            self._bytes -= size
            batch.append(message)
        return batch

    def clear(self) -> None:
        self._counters.unsent += len(self._waiting)
        self._waiting.clear()
        self._bytes = 0


class _Link:
    """The stream to one peer: requests out, replies in, connected again and again."""

    def __init__(
        self,
        config: NodeConfig,
        peer: str,
        on_replies: Callable[[pb.PeerReplies, bool], bool],
        warn: Callable[[str, str], None],
        counters: TransportCounters,
        round_trips: Samples,
    ) -> None:
        self.outbox: _Outbox[Request] = _Outbox(config.transport, counters)
        self._config = config
        self._peer = peer
        self._on_replies = on_replies
        self._warn = warn
        self._counters = counters
        self._round_trips = round_trips
        self._pings: dict[int, int] = {}
        self._address = ""
        self._epoch = -1
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"link-{peer}")

    def set_address(self, address: str, epoch: int) -> None:
        """Reach the peer here from now on, unless this is older news than what is known."""
        if epoch > self._epoch and address:
            self._address, self._epoch = address, epoch
            self._changed.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        first, longest = self._config.transport.reconnect_backoff
        pause = first
        while True:
            if not self._address:
                await self._changed.wait()
            self._changed.clear()
            talk = asyncio.create_task(self._talk(self._address))
            moved = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait((talk, moved), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (talk, moved):
                    task.cancel()
                results = await asyncio.gather(talk, moved, return_exceptions=True)
            if isinstance(results[0], Exception):  # a bug; the link goes on
                logger.error("link to %s: %r", self._peer, results[0])
            pause = first if results[0] is True else min(2 * pause, longest)
            with contextlib.suppress(TimeoutError):
                # A random part, so that the nodes of a cluster do not knock in step. Not asyncio.wait_for: until
                # Python 3.12 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):
                    await self._changed.wait()

    async def _talk(self, address: str) -> bool:
        """Converse until the stream breaks. True when it had been established, and neither end refused the other."""
        async with grpc.aio.insecure_channel(address, options=channel_options(self._config.transport)) as channel:
            try:
                async with asyncio.timeout(self._config.transport.connect_timeout):
                    await _ready(channel)
            except (TimeoutError, ConnectionError):
                self.outbox.clear()
                return False
            call = raft_pb2_grpc.RaftStub(channel).Exchange()
            self.outbox.clear()  # what waited for the connection is out of date
            writer = asyncio.create_task(self._write(call))
            writer.add_done_callback(lambda _: call.cancel())  # neither direction outlives the other
            first = accepted = True
            try:
                while accepted and (batch := await call.read()) is not grpc.aio.EOF:
                    accepted = self._on_replies(batch, first)
                    if accepted:
                        self._note_round_trips(batch)
                    first = False
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    accepted = False
                    self._warn(self._peer, f"{self._peer} refused a stream: {error.details()}")
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                self.outbox.clear()
            if not writer.cancelled():
                writer.result()
            return accepted

    async def _write(self, call: Any) -> None:
        members: Sequence[str] = self._config.members
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                requests = await self.outbox.take()
                self._note_pings(requests)
                await call.write(
                    pb.PeerRequests(
                        cluster_id=self._config.cluster_id,
                        from_id=self._config.node_id,
                        to_id=self._peer,
                        requests=[encode_request(request) for request in requests],
                        members=members,
                    )
                )
                members = ()
                self._counters.sent += len(requests)

    def _note_pings(self, requests: Sequence[Request]) -> None:
        if len(self._pings) > REMEMBERED_PINGS:
            self._pings.clear()
        now = monotonic_ns()
        for request in requests:
            if isinstance(request, AppendEntries) and not request.entry_payloads:
                self._pings[request.sequence] = now

    def _note_round_trips(self, batch: pb.PeerReplies) -> None:
        for reply in batch.replies:
            if (sent := self._pings.pop(reply.append_entries.sequence, None)) is not None:
                self._round_trips.add_ns(monotonic_ns() - sent)


async def _ready(channel: grpc.aio.Channel) -> None:
    """Wait until the channel is connected. Raises ConnectionError on the first failure."""
    state = channel.get_state(try_to_connect=True)
    while state != grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise ConnectionError(state.name)
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
