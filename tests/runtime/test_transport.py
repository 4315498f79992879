"""On which stream replies leave."""

from __future__ import annotations

import asyncio
import random

import grpc.aio

from raft_actor_node.config import NodeConfig
from raft_actor_node.core import Message, RequestVote
from raft_actor_node.core.messages import RequestVoteReply
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.pb import raft_pb2_grpc
from raft_actor_node.runtime.clock import RealClock
from raft_actor_node.runtime.codec import encode_request
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.transport import Transport


async def test_replies_leave_on_the_stream_on_which_requests_come() -> None:
    """Also when a peer had a second stream for a while, and that one is over."""
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
    raft_pb2_grpc.add_RaftServicer_to_server(transport, server)
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
