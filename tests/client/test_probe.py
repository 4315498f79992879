"""NodeProbe, against a server that offers everything, one that offers nothing, and one that does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from raft_actor_node.channels import server_options
from raft_actor_node.client_probe import NodeProbe, ProbeFailed
from raft_actor_node.config import TransportSettings
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import DiskFault, NodeFaults
from raft_actor_node.pb import chaos_pb2, chaos_pb2_grpc, inspection_pb2, inspection_pb2_grpc
from raft_actor_node.runtime.codec import decode_node_faults

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENT = TransportSettings(connect_timeout=10.0, probe_timeout=60.0)
"""Nothing times out by itself, however busy the machine is."""


class Inspection(inspection_pb2_grpc.InspectionServicer):
    async def GetStatus(self, request: Any, context: Any) -> inspection_pb2.StatusReply:  # noqa: N802
        return inspection_pb2.StatusReply(node_id="n1", current_term=7)

    async def GetLog(self, request: Any, context: Any) -> inspection_pb2.LogReply:  # noqa: N802
        return inspection_pb2.LogReply(
            first_index=request.first_index, terms=range(request.first_index, request.end_index)
        )

    async def GetSamples(self, request: Any, context: Any) -> inspection_pb2.SamplesReply:  # noqa: N802
        return inspection_pb2.SamplesReply(fsync_us=[request.since_ns])

    async def Trace(self, request: Any, context: Any) -> AsyncIterator[inspection_pb2.TraceEvent]:  # noqa: N802
        for number in range(request.after + 1, 4):
            yield inspection_pb2.TraceEvent(number=number)
        while request.follow:
            number += 1
            yield inspection_pb2.TraceEvent(number=number)
            await asyncio.sleep(0.01)


class Chaos(chaos_pb2_grpc.ChaosServicer):
    def __init__(self) -> None:
        self.rules: list[chaos_pb2.LinkRule] = []
        self.faults = chaos_pb2.NodeFaults()

    async def SetNodeFaults(self, request: Any, context: Any) -> chaos_pb2.SetNodeFaultsReply:  # noqa: N802
        self.faults = request.faults
        return chaos_pb2.SetNodeFaultsReply(applied_ns=12)

    async def SetLinks(self, request: Any, context: Any) -> chaos_pb2.SetLinksReply:  # noqa: N802
        self.rules = list(request.rules)
        return chaos_pb2.SetLinksReply(applied_ns=11)

    async def GetLinks(self, request: Any, context: Any) -> chaos_pb2.GetLinksReply:  # noqa: N802
        return chaos_pb2.GetLinksReply(rules=self.rules, dropped=5)


class Server:
    def __init__(self) -> None:
        self.server = grpc.aio.server(options=server_options(TransportSettings()))
        self.health = health_aio.HealthServicer()

    async def start(self) -> NodeProbe:
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return NodeProbe(f"127.0.0.1:{port}", transport=PATIENT)


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    await made.server.stop(None)


async def test_everything_a_node_offers(server: Server) -> None:
    inspection_pb2_grpc.add_InspectionServicer_to_server(Inspection(), server.server)
    chaos = Chaos()
    chaos_pb2_grpc.add_ChaosServicer_to_server(chaos, server.server)
    health_pb2_grpc.add_HealthServicer_to_server(server.health, server.server)
    async with await server.start() as probe:
        await server.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await probe.health() is False
        await server.health.set("", health_pb2.HealthCheckResponse.SERVING)
        assert await probe.health() is True
        status = await probe.status()
        assert status is not None
        assert (status.node_id, status.current_term) == ("n1", 7)
        log = await probe.log(3, 6)
        assert log is not None
        assert list(log.terms) == [3, 4, 5]
        samples = await probe.samples(42)
        assert samples is not None
        assert list(samples.fsync_us) == [42]
        events = await probe.trace(1)
        assert events is not None
        assert [event.number for event in events] == [2, 3]
        rule = LinkRule(from_id="n1", to_id="*", messages="replies", drop=0.5, delay_ms=3.0)
        assert await probe.set_links([rule, LinkRule(from_id="clients", to_id="n1", cut=True)]) == 11
        links = await probe.links()
        assert links is not None
        assert links.dropped == 5
        assert links.rules[0] == chaos_pb2.LinkRule(
            from_id="n1", to_id="*", messages=chaos_pb2.REPLIES, drop=0.5, delay_ms=3.0
        )
        assert (links.rules[1].from_id, links.rules[1].cut) == ("clients", True)
        broken = NodeFaults(disk=DiskFault(fsync_latency_ms=2.5, stall=True, error="EIO", on="fsync"))
        assert await probe.set_node_faults(broken) == 12
        assert decode_node_faults(chaos.faults) == broken
        assert await probe.set_node_faults(NodeFaults()) == 12
        assert decode_node_faults(chaos.faults) == NodeFaults()


async def test_a_trace_that_is_followed(server: Server) -> None:
    inspection_pb2_grpc.add_InspectionServicer_to_server(Inspection(), server.server)
    async with await server.start() as probe:
        numbers = []
        async for event in probe.follow_trace(2):
            numbers.append(event.number)
            if len(numbers) == 5:
                break
        assert numbers == [3, 4, 5, 6, 7]
        with pytest.raises(ProbeFailed) as failed:
            async for _ in probe.follow_trace(2, timeout=0.1):
                pass
        assert failed.value.code == "DEADLINE_EXCEEDED"


async def test_what_a_node_does_not_offer_is_none(server: Server) -> None:
    async with await server.start() as probe:
        assert await probe.health() is None
        assert await probe.status() is None
        assert await probe.log() is None
        assert await probe.samples() is None
        assert await probe.set_links([]) is None
        assert await probe.set_node_faults(NodeFaults()) is None
        assert await probe.links() is None
        assert await probe.trace() is None


async def test_a_node_that_is_not_there(server: Server) -> None:
    probe = await server.start()
    await server.server.stop(None)
    async with probe:
        assert await probe.health() is False
        with pytest.raises(ProbeFailed, match=rf"{probe.address}: UNAVAILABLE: .*refused") as failed:
            await probe.status()
        assert failed.value.code == "UNAVAILABLE"
        with pytest.raises(ProbeFailed):
            await probe.trace()


async def test_a_node_that_does_not_answer_is_given_up_at_the_timeout() -> None:
    """As with a stopped node, the kernel accepts the connection, but no process reads from it."""
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with NodeProbe(f"127.0.0.1:{port}", transport=PATIENT) as probe:
        begin = time.monotonic()
        with pytest.raises(ProbeFailed) as failed:
            await probe.status(timeout=0.2)
        assert failed.value.code == "DEADLINE_EXCEEDED"
        assert await probe.health(timeout=0.2) is False
        assert 0.4 <= time.monotonic() - begin < 30.0, "far from the default of 60 s"
    listener.close()
    await listener.wait_closed()


async def test_what_is_asked_when_the_probe_is_closed_fails_and_is_not_cancelled() -> None:
    """A lost host does not answer, and the owner closes the probe of a node that is gone."""
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    for ask in (NodeProbe.status, NodeProbe.trace):
        probe = NodeProbe(f"127.0.0.1:{port}")
        asked, cancelled = (asyncio.create_task(ask(probe, timeout=20)) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await probe.close()
        with pytest.raises(ProbeFailed, match="the connection was dropped") as failed:
            await asked
        assert failed.value.code == "CANCELLED"
    listener.close()
    await listener.wait_closed()
