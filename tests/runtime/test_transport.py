"""The streams on which messages and replies leave, and how many leave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from raft_actor_node.config import NodeConfig
from raft_actor_node.core import AppendEntries, Message, RequestVote
from raft_actor_node.core.messages import RequestVoteReply
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.pb import raft_pb2_grpc
from raft_actor_node.runtime.clock import RealClock
from raft_actor_node.runtime.codec import encode_request
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.transport import TELL_AFTER, WINDOW, Transport


class Peer(raft_pb2_grpc.RaftServicer):
    """Node n2, played by hand: while it is `running`, it records what comes on which connection."""

    def __init__(self) -> None:
        self.connections: dict[str, list[pb.PeerRequest]] = {}
        self.running = asyncio.Event()
        self.running.set()

    async def Exchange(  # noqa: N802 - the name is the service's
        self, request_iterator: AsyncIterator[pb.PeerRequests], context: Any
    ) -> None:
        taken = 0
        async for batch in request_iterator:
            await self.running.wait()
            taken += 1
            self.connections.setdefault(context.peer(), []).extend(batch.requests)
            await context.write(
                pb.PeerReplies(cluster_id="c", from_id="n2", to_id="n1", members=["n1", "n2"], taken=taken)
            )

    def has(self, sequence: int) -> bool:
        return any(each.append_entries.sequence == sequence for came in self.connections.values() for each in came)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Transport, Peer]]:
    """The transport of n1, connected to n2."""
    config = NodeConfig.model_validate(
        {"cluster_id": "c", "node_id": "n1", "members": ["n1", "n2"], "storage": {"dir": "unused"}}
    )
    faults = LinkFaults("n1", config.members, (), random.Random(0))
    transport, peer = Transport(config, faults, lambda message: None, RealClock()), Peer()
    server = grpc.aio.server()
    raft_pb2_grpc.add_RaftServicer_to_server(peer, server)
    transport.update_addresses({"n2": (f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", 1)})
    await server.start()
    try:
        async with asyncio.timeout(30):
            sequence = 0
            while len(peer.connections) < 2:  # messages before there is a connection are lost
                sequence += 2
                transport.send([heartbeat(sequence), entries(sequence + 1, 10)])
                await asyncio.sleep(0.01)
            peer.connections.clear()
            yield transport, peer
    finally:
        await server.stop(None)
        await transport.close()


def heartbeat(sequence: int) -> AppendEntries:
    return AppendEntries("n1", "n2", 1, 0, 0, (), (), 0, sequence)


def entries(sequence: int, size: int) -> AppendEntries:
    return AppendEntries("n1", "n2", 1, sequence, 1, [1], [bytes(size)], 0, sequence)


async def test_entries_travel_on_a_connection_of_their_own_and_large_ones_in_parts() -> None:
    async with connected() as (transport, peer):
        transport.send([heartbeat(1001), entries(1002, 400_000), RequestVote("n1", "n2", 1, 0, 0, False, 1003)])
        transport.send([entries(1004, 10), heartbeat(1005)])
        while not (peer.has(1004) and peer.has(1005)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (control, bulk) = sorted(peer.connections.values(), key=len)
        assert [each.WhichOneof("body") for each in control] == ["request_vote", "append_entries"], "one heartbeat"
        assert [each.WhichOneof("body") for each in bulk] == ["fragment"] * 7 + ["append_entries"]
        assert not any(each.append_entries.entry_payloads for each in control)


async def test_a_peer_that_is_paused_finds_few_messages_and_the_newest_when_it_goes_on() -> None:
    async with connected() as (transport, peer):
        peer.running.clear()
        sent = transport.counters.sent
        last = 1000
        for _ in range(100 * WINDOW):
            last += 1
            transport.send([heartbeat(last)])
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert transport.counters.sent - sent <= WINDOW
        peer.running.set()
        while not peer.has(last):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert sum(map(len, peer.connections.values())) <= WINDOW + 2


async def test_a_node_tells_what_it_has_taken_though_it_has_nothing_to_answer() -> None:
    """Otherwise the peer would stop sending."""
    async with connected() as (transport, _):
        server = grpc.aio.server()
        transport.register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        batch = pb.PeerRequests(cluster_id="c", from_id="n2", to_id="n1", members=["n1", "n2"])
        async with asyncio.timeout(30), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = raft_pb2_grpc.RaftStub(channel).Exchange()
            told = 0
            for taken in range(1, 2 * WINDOW + 1):
                await stream.write(batch)
                if taken - told >= TELL_AFTER:
                    told = (await stream.read()).taken
                assert taken - told < WINDOW
        await server.stop(None)


async def test_replies_leave_on_the_stream_on_which_requests_come() -> None:
    """This holds even after a second stream of the peer has ended."""
    config = NodeConfig.model_validate(
        {"cluster_id": "c", "node_id": "n1", "members": ["n1", "n2"], "storage": {"dir": "unused"}}
    )

    def vote(request: Message) -> None:
        assert isinstance(request, RequestVote)
        transport.send([RequestVoteReply("n1", "n2", 1, 1, True, False, request.sequence)])

    def asking(sequence: int) -> pb.PeerRequests:
        request = encode_request(RequestVote("n2", "n1", 1, 0, 0, False, sequence))
        return pb.PeerRequests(cluster_id="c", from_id="n2", to_id="n1", requests=[request], members=["n2", "n1"])

    transport = Transport(config, LinkFaults("n1", config.members, (), random.Random(0)), vote, RealClock())
    server = grpc.aio.server()
    transport.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(30), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            first, second = (raft_pb2_grpc.RaftStub(channel).Exchange() for _ in range(2))
            for sequence, stream in enumerate((first, second, first)):
                if sequence == 2:
                    await second.done_writing()
                    assert await second.read() is grpc.aio.EOF
                await stream.write(asking(sequence))
                [reply] = (await stream.read()).replies
                assert reply.request_vote.sequence == sequence
    finally:
        await server.stop(None)
        await transport.close()
