"""Transport of messages between nodes: two bidirectional streams per ordered pair of nodes, with batches.

A node opens two streams to every peer, each on its own connection. So votes and heartbeats do not wait behind entries
that take long to cross the link. All replies of the peer return on the stream for votes and heartbeats. A message
without a connection is lost, as on any network; the core resends what matters.

The transport reopens channels after a failure, a new address, or silence (TransportSettings.silence_timeout). The
backoff of gRPC and TCP (seconds, then minutes) would otherwise dominate every measured failover.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from raft_actor_node.channels import channel_options
from raft_actor_node.config import NodeConfig
from raft_actor_node.core import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raft_actor_node.core.messages import Request
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.pb import raft_pb2_grpc
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.codec import (
    Fragment,
    decode_fragment,
    decode_reply,
    decode_request,
    encode_fragment,
    encode_reply,
    encode_request,
    encoded_bytes,
)
from raft_actor_node.runtime.faults import Flow, LinkFaults
from raft_actor_node.runtime.mail import Mail, flow_of
from raft_actor_node.runtime.outbox import Assembler, Outbox, TransportCounters
from raft_actor_node.runtime.samples import Samples

logger = logging.getLogger(__name__)

REMEMBERED_PINGS = 256
"""Maximum number of unanswered heartbeats whose send times are kept for each peer."""
WINDOW = 64
"""Maximum number of batches in flight on one stream. A process that resumes after a pause finds at most these (20 ms
of work). Messages that a slow link cannot take yet stay in the outbox, where newer messages can replace them."""
TELL_AFTER = 16
"""Number of batches after which a receiver acknowledges them even without a reply to send."""
_FLOWS: tuple[Flow, Flow] = ("requests", "entries")
"""Flows from a node to a peer, each on its own connection."""


class Transport(Mail, raft_pb2_grpc.RaftServicer):
    """All links of a node, and the service that its peers call."""

    def __init__(
        self, config: NodeConfig, faults: LinkFaults, deliver: Callable[[Message], None], clock: Clock
    ) -> None:
        """`deliver` is called with each message that arrives."""
        super().__init__(config, faults, deliver, clock)
        self._config = config
        self._links = {
            peer: {
                flow: _Link(config, peer, flow, faults, self._on_replies, self.warn, self.counters, self.round_trips)
                for flow in _FLOWS
            }
            for peer in config.members
            if peer != config.node_id
        }
        self._answers: dict[str, Outbox] = {}

    def update_addresses(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Update the addresses, node id -> (address, epoch). A higher epoch replaces an address at once."""
        for node_id, (address, epoch) in addresses.items():
            if node_id in self._links:
                for link in self._links[node_id].values():
                    link.set_address(address, epoch)

    async def close(self) -> None:
        """Close all links."""
        await asyncio.gather(*(link.close() for links in self._links.values() for link in links.values()))

    def _carry(self, message: Message) -> None:
        flow = flow_of(message)
        outbox = self._answers.get(message.to_id) if flow == "replies" else self._links[message.to_id][flow].outbox
        if outbox is None:
            self.counters.unsent += 1
        else:
            outbox.put(message)

    # ------------------------------------------------------------------------------ requests of others

    def register(self, server: grpc.aio.Server) -> None:
        """Register the service with a server."""
        raft_pb2_grpc.add_RaftServicer_to_server(self, server)
        # Registered again without a deserializer, so that this class counts and refuses bytes that are not a batch.
        exchange: grpc.RpcMethodHandler[bytes, pb.PeerReplies] = grpc.stream_stream_rpc_method_handler(
            self.Exchange, response_serializer=pb.PeerReplies.SerializeToString
        )
        name = pb.DESCRIPTOR.services_by_name["Raft"].full_name
        server.add_registered_method_handlers(name, {"Exchange": exchange})

    async def Exchange(  # noqa: N802 - the name is the service's
        self,
        request_iterator: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext[bytes, pb.PeerReplies],
    ) -> None:
        """Receive a peer's encoded requests until it ends the stream; replies leave when the core releases them."""
        stream = _Stream(self._config, self.counters, self._faults, "replies")
        taken = _Taken()
        assembler = Assembler(self._config.transport.message_bytes)
        writer: asyncio.Task[None] | None = None
        peer = ""
        try:
            async for message in request_iterator:
                try:
                    batch = pb.PeerRequests.FromString(message)
                except DecodeError as error:
                    self.refuse(peer, 1, f"not PeerRequests: {error}")
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not PeerRequests: {error}")
                if fault := self._fault(batch, first=batch.from_id != peer):
                    self.refuse(batch.from_id, len(batch.requests), fault)
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, fault)
                if writer is None:
                    peer = batch.from_id
                    writer = asyncio.create_task(self._write_replies(stream, taken, peer, context))
                if writer.done():
                    break  # replies can no longer leave: the peer must open a new stream
                if not any(map(_brings_entries, batch.requests)):
                    # Set with each batch: after the end of a later stream, this stream carries the replies again.
                    self._answers[peer] = stream.outbox
                self._take(batch, assembler)
                taken.batches += 1
                if taken.batches - taken.told >= TELL_AFTER:
                    stream.nudge()
        finally:
            if self._answers.get(peer) is stream.outbox:
                del self._answers[peer]
            if writer is not None:
                writer.cancel()

    def _take(self, batch: pb.PeerRequests, assembler: Assembler) -> None:
        try:
            requests = [_decode(request, batch.from_id, batch.to_id) for request in batch.requests]
        except ValueError as error:
            self.refuse(batch.from_id, len(batch.requests), str(error))  # the whole batch: it changes nothing
            return
        for request in requests:
            if isinstance(request, Fragment):
                self.arrived_in_part(request, assembler)
            else:
                self.arrived(request, "requests")

    async def _write_replies(
        self,
        stream: _Stream,
        taken: _Taken,
        peer: str,
        context: grpc.aio.ServicerContext[bytes, pb.PeerReplies],
    ) -> None:
        members: Sequence[str] = self.members
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            while True:
                replies = [_encode_reply(reply) for reply in await stream.take(peer)]
                taken.told = taken.batches
                await context.write(
                    pb.PeerReplies(
                        cluster_id=self._config.cluster_id,
                        from_id=self._config.node_id,
                        to_id=peer,
                        replies=replies,
                        members=members,
                        taken=taken.told,
                    )
                )
                members = ()
                self.counters.sent += len(replies)

    def _on_replies(self, batch: pb.PeerReplies, first: bool) -> bool:
        """Handle a batch of replies; `first` marks the first of a stream.

        Return False if the batch is not from the right peer and the stream must be closed.
        """
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
        """Return why a batch must be refused; empty if it may be read. `first`: first batch of the peer on a stream."""
        if batch.cluster_id != self._config.cluster_id:
            return f"cluster_id: this is {self._config.cluster_id!r}, not {batch.cluster_id!r}"
        if batch.to_id != self._config.node_id:
            return f"to_id: this is {self._config.node_id!r}, not {batch.to_id!r}"
        if batch.from_id not in self._links:
            return f"from_id: {batch.from_id!r} is not a peer in this cluster"
        return self.other_members(batch.from_id, batch.members) if first else ""


class _Stream:
    """The outbox of one stream, and a flag to send a batch without messages."""

    def __init__(self, config: NodeConfig, counters: TransportCounters, faults: LinkFaults, flow: Flow) -> None:
        self._news = asyncio.Event()
        self.outbox = Outbox(config.transport, counters, self._news.set)
        self._faults = faults
        self._flow: Flow = flow
        self._nudged = False

    def nudge(self) -> None:
        """Make `take` return even if no message waits."""
        self._nudged = True
        self._news.set()

    async def take(self, peer: str) -> list[Message | Fragment]:
        """Wait for messages and take some out. If bandwidth is limited, also wait until they have passed the link."""
        while not len(self.outbox) and not self._nudged:
            self._news.clear()
            await self._news.wait()
        self._nudged = False
        taken = self.outbox.take()
        if self._faults.active and taken:
            size = partial(sum, map(encoded_bytes, taken))
            if self._faults.occupy(peer, self._flow, size):
                while pause_s := self._faults.busy_s(peer, self._flow):  # noqa: ASYNC110 - for time
                    await asyncio.sleep(pause_s)
        return taken


class _Link:
    """One of the two streams to a peer, with requests out and replies in. It reconnects for ever."""

    def __init__(
        self,
        config: NodeConfig,
        peer: str,
        flow: Flow,
        faults: LinkFaults,
        on_replies: Callable[[pb.PeerReplies, bool], bool],
        warn: Callable[[str, str], None],
        counters: TransportCounters,
        round_trips: Samples,
    ) -> None:
        self._stream = _Stream(config, counters, faults, flow)
        self.outbox = self._stream.outbox
        self._window = _Window()
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
        self._task = asyncio.create_task(self._run(), name=f"link-{peer}-{flow}")

    def set_address(self, address: str, epoch: int) -> None:
        """Use this address of the peer from now on, unless a newer epoch is known."""
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
            if isinstance(results[0], Exception):  # a bug; the link continues
                logger.error("link to %s: %r", self._peer, results[0])
            pause = first if results[0] is True else min(2 * pause, longest)
            with contextlib.suppress(TimeoutError):
                # Random, so that the nodes of a cluster do not reconnect in step. Not asyncio.wait_for: before
                # Python 3.12 it swallows a cancellation that arrives together with the event.
                async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):
                    await self._changed.wait()

    async def _talk(self, address: str) -> bool:
        """Exchange batches until the stream breaks. Return whether it was established and neither end refused it."""
        async with grpc.aio.insecure_channel(address, options=channel_options(self._config.transport)) as channel:
            try:
                async with asyncio.timeout(self._config.transport.connect_timeout):
                    await _ready(channel)
            except (TimeoutError, ConnectionError):
                self.outbox.clear()
                return False
            call = raft_pb2_grpc.RaftStub(channel).Exchange()
            self.outbox.clear()  # messages that waited for the connection are stale
            self._window = _Window()
            writer = asyncio.create_task(self._write(call))
            writer.add_done_callback(lambda _: call.cancel())  # both directions end together
            first = accepted = True
            try:
                while accepted and (batch := await call.read()) is not grpc.aio.EOF:
                    accepted = self._on_replies(batch, first)
                    if accepted:
                        self._window.told(batch.taken)
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
                await self._window.room()
                requests = await self._stream.take(self._peer)
                self._note_pings(requests)
                await call.write(
                    pb.PeerRequests(
                        cluster_id=self._config.cluster_id,
                        from_id=self._config.node_id,
                        to_id=self._peer,
                        requests=[_encode_request(request) for request in requests],
                        members=members,
                    )
                )
                members = ()
                self._window.written += 1
                self._counters.sent += len(requests)

    def _note_pings(self, requests: Sequence[Message | Fragment]) -> None:
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


class _Window:
    """The batches in flight on a stream, and their limit."""

    def __init__(self) -> None:
        self.written = 0
        self._taken = 0
        self._news = asyncio.Event()

    def told(self, taken: int) -> None:
        """Note how many batches the other end has taken in total."""
        if taken > self._taken:
            self._taken = taken
            self._news.set()

    async def room(self) -> None:
        """Wait until another batch may be written."""
        while self.written - self._taken >= WINDOW:
            self._news.clear()
            await self._news.wait()


@dataclass(slots=True)
class _Taken:
    """Number of batches received on a stream, and the number last acknowledged to the peer."""

    batches: int = 0
    told: int = 0


def _brings_entries(request: pb.PeerRequest) -> bool:
    return request.HasField("fragment") or len(request.append_entries.entry_payloads) > 0


def _decode(request: pb.PeerRequest, from_id: str, to_id: str) -> Request | Fragment:
    if request.HasField("fragment"):
        return decode_fragment(request.fragment, from_id, to_id)
    return decode_request(request, from_id, to_id)


def _encode_request(request: Message | Fragment) -> pb.PeerRequest:
    if isinstance(request, Fragment):
        return encode_fragment(request)
    assert isinstance(request, AppendEntries | RequestVote)
    return encode_request(request)


def _encode_reply(reply: Message | Fragment) -> pb.PeerReply:
    assert isinstance(reply, AppendEntriesReply | RequestVoteReply)
    return encode_reply(reply)


async def _ready(channel: grpc.aio.Channel) -> None:
    """Wait until the channel is connected. Raises ConnectionError on the first failure."""
    state = channel.get_state(try_to_connect=True)
    while state != grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise ConnectionError(state.name)
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
