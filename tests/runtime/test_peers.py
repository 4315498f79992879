"""Peers with other members, and peers that send invalid messages: refused, counted, and without any effect."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from raft_actor_node.config import NodeConfig
from raft_actor_node.core import AppendEntries, AppendEntriesReply, Message
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.pb import raft_pb2_grpc
from raft_actor_node.runtime.clock import RealClock
from raft_actor_node.runtime.codec import encode_reply, encode_request
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.transport import Transport

THREE = ("n1", "n2", "n3")


class Peer:
    """The transport of one node on a port of its own, without a core; it keeps the messages that arrive."""

    def __init__(self, node_id: str, members: Sequence[str]) -> None:
        config = NodeConfig.model_validate(
            {"cluster_id": "c", "node_id": node_id, "members": members, "storage": {"dir": "unused"}}
        )
        self.node_id = node_id
        self.arrived: list[Message] = []
        faults = LinkFaults(node_id, members, (), random.Random(0))
        self.transport = Transport(config, faults, self.arrived.append, RealClock())
        self.server = grpc.aio.server()
        self.transport.register(self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    @property
    def refused(self) -> int:
        return self.transport.counters.refused

    def ask(self, to_id: str, term: int = 9) -> None:
        self.transport.send([AppendEntries(self.node_id, to_id, term, 0, 0, [], [], 0, 1)])


@asynccontextmanager
async def talking(*peers: Peer) -> AsyncIterator[None]:
    """Transports that know one another's addresses."""
    for peer in peers:
        await peer.server.start()
    for peer in peers:
        peer.transport.update_addresses({other.node_id: (other.address, 1) for other in peers})
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        for peer in peers:
            await peer.transport.close()
            await peer.server.stop(None)


async def until(condition: Callable[[], object], act: Callable[[], object] = lambda: None) -> None:
    """Repeat the action until the condition holds, as messages without a connection are lost."""
    while not condition():
        act()
        await asyncio.sleep(0.01)


async def test_the_order_of_members_does_not_matter() -> None:
    one, other = Peer("n1", THREE), Peer("n2", ["n3", "n2", "n1"])
    async with talking(one, other):
        await until(lambda: other.arrived, lambda: one.ask("n2"))
        await until(
            lambda: one.arrived,
            lambda: other.transport.send([AppendEntriesReply("n2", "n1", 9, 9, True, 0, 0, 0, 0, 1)]),
        )
    assert one.refused == other.refused == 0


@pytest.mark.parametrize("members", [("n1", "n2"), ("n1", "n2", "n4"), ("n1", "n2", "n3", "n4")])
async def test_a_peer_with_other_members_is_refused_and_both_lists_are_named(
    members: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No message arrives in either direction; both nodes log the reason once."""
    right, wrong = Peer("n1", THREE), Peer("n2", members)
    async with talking(right, wrong):
        await until(lambda: right.refused >= 3, lambda: wrong.ask("n1"))
        await until(lambda: wrong.refused >= 3, lambda: right.ask("n2"))
    assert right.arrived == wrong.arrived == []
    for node_id, peer, own, its in (("n1", "n2", THREE, members), ("n2", "n1", members, THREE)):
        warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING and r.message.startswith(node_id)]
        assert len(warnings) == 1
        lists = f"{peer} has {sorted(its)}, {node_id} has {sorted(own)}"
        swapped = f"{node_id} has {sorted(own)}, {peer} has {sorted(its)}"
        assert lists in warnings[0] or swapped in warnings[0]


class Answering(raft_pb2_grpc.RaftServicer):
    """A server that gives the same reply to each request."""

    def __init__(self, **batch: object) -> None:
        self.batch = batch
        self.streams = 0
        """The number of streams with at least one request."""

    async def Exchange(  # noqa: N802 - the name is the service's
        self, request_iterator: AsyncIterator[pb.PeerRequests], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.PeerReplies]:
        first = True
        async for _ in request_iterator:
            self.streams += first
            said = {"cluster_id": "c", "from_id": "n2", "to_id": "n1", "members": THREE if first else (), **self.batch}
            yield pb.PeerReplies(**said)
            first = False


async def answered_by(service: Answering, done: Callable[[Peer], object]) -> Peer:
    """Let n1 send requests to this service until the condition holds."""
    server = grpc.aio.server()
    raft_pb2_grpc.add_RaftServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asking = Peer("n1", THREE)
    try:
        async with talking(asking):
            asking.transport.update_addresses({"n2": (f"127.0.0.1:{port}", 2)})
            await until(lambda: done(asking), lambda: asking.ask("n2"))
    finally:
        await server.stop(None)
    return asking


def reply(**changes: int) -> pb.PeerReply:
    values = {"term": 9, "request_term": 9, "success": 1, "sequence": 1} | changes
    return pb.PeerReply(append_entries=pb.AppendEntriesReply(**{**values, "success": bool(values["success"])}))


@pytest.mark.parametrize("members", [[], ["n1", "n2"]])
async def test_an_answer_of_a_peer_with_other_members_ends_the_stream(members: list[str]) -> None:
    """The peer accepts requests, as one of an older version would, but its answers count as little as its requests."""
    service = Answering(members=members, replies=[reply(term=1000)])
    asking = await answered_by(service, lambda peer: service.streams >= 2)
    assert asking.arrived == []
    assert asking.refused >= 1


async def test_answers_of_a_peer_with_the_same_members_arrive() -> None:
    asking = await answered_by(Answering(replies=[reply()]), lambda peer: len(peer.arrived) >= 2)
    assert asking.refused == 0


async def test_malformed_answers_are_refused_whole_and_the_stream_goes_on() -> None:
    """The valid reply in the same batch does not count either, and its term is ignored."""
    service = Answering(replies=[reply(term=1000, success=0), reply(rejected_index=3)])
    asking = await answered_by(service, lambda peer: peer.refused >= 4)
    assert asking.arrived == []
    assert service.streams == 1


def raw(request: pb.PeerRequest, *, members: Sequence[str] = THREE, from_id: str = "n2") -> pb.PeerRequests:
    return pb.PeerRequests(cluster_id="c", from_id=from_id, to_id="n1", requests=[request], members=members)


async def test_a_malformed_batch_is_refused_whole() -> None:
    """The valid request before the malformed one is refused too."""
    node = Peer("n1", THREE)
    good = encode_request(AppendEntries("n2", "n1", 1000, 0, 0, [], [], 0, 1))
    bad = pb.PeerRequest(append_entries=pb.AppendEntriesRequest(term=1000, prev_log_term=5))
    async with talking(node), grpc.aio.insecure_channel(node.address) as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange()
        batch = raw(good)
        batch.requests.append(bad)
        await call.write(batch)
        await until(lambda: node.refused == 2)
        assert node.arrived == []
        await call.write(raw(good))  # the stream goes on
        await until(lambda: len(node.arrived) == 1)


async def test_what_is_no_message_is_counted_and_ends_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    node = Peer("n1", THREE)
    async with talking(node), grpc.aio.insecure_channel(node.address) as channel:
        for _ in range(20):
            call: Any = channel.stream_stream("/raft_lab.v1.Raft/Exchange")()
            await call.write(b"\xff\xff no message")
            with pytest.raises(grpc.aio.AioRpcError, match="not PeerRequests"):
                await _read_all(call.read)
    assert node.refused == 20
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


async def test_the_members_are_told_once_and_asked_again_of_another_peer() -> None:
    """A stream belongs to the peer that opened it; another peer on it must state its members first."""
    node = Peer("n1", THREE)
    request = encode_request(AppendEntries("n2", "n1", 9, 0, 0, [], [], 0, 1))
    async with talking(node), grpc.aio.insecure_channel(node.address) as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange()
        await call.write(raw(request))
        await call.write(raw(request, members=()))
        await until(lambda: len(node.arrived) == 2)
        await call.write(raw(request, members=(), from_id="n3"))
        with pytest.raises(grpc.aio.AioRpcError, match="members: n3 sent none"):
            await _read_all(call.read)
    assert len(node.arrived) == 2


async def test_warnings_about_a_peer_are_rare(caplog: pytest.LogCaptureFixture) -> None:
    """However many messages it sends, warnings are rare; each message is counted."""
    node = Peer("n1", THREE)
    bad = pb.PeerRequest(append_entries=pb.AppendEntriesRequest(term=9, entry_terms=[0], entry_payloads=[b""]))
    async with talking(node), grpc.aio.insecure_channel(node.address) as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange()
        for _ in range(50):
            await call.write(raw(bad))
        await until(lambda: node.refused == 50)
    assert node.arrived == []
    [warning] = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("n1: refused 1 messages from 'n2': AppendEntries: entries of terms 0 to 0")


async def test_a_stranger_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The names that it makes up, and their lengths, do not matter."""
    node = Peer("n1", THREE)
    async with talking(node), grpc.aio.insecure_channel(node.address) as channel:
        for number in range(20):
            call = raft_pb2_grpc.RaftStub(channel).Exchange()
            await call.write(
                raw(encode_request(AppendEntries("x", "n1", 9, 0, 0, [], [], 0, 1)), from_id=f"{number}" * 5000)
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await _read_all(call.read)
    assert node.refused == 20
    assert sum(len(record.message) for record in caplog.records if record.levelno >= logging.WARNING) < 2000


async def _read_all(read: Callable[[], Awaitable[object]]) -> None:
    while await read() is not grpc.aio.EOF:
        pass


def test_a_reply_on_the_wire_is_what_it_was() -> None:
    """The helpers of this file encode messages as the product does."""
    assert reply() == encode_reply(AppendEntriesReply("n2", "n1", 9, 9, True, 0, 0, 0, 0, 1))
