"""A client of the services of a node besides the key-value service: health, status, log, faults and traces.

Link faults do not affect these calls. If a node does not offer a service, the reply is None.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raft_actor_node.addresses import checked_address
from raft_actor_node.channels import channel_options
from raft_actor_node.client_home import Home, enter_grpc
from raft_actor_node.config import TransportSettings
from raft_actor_node.errors import RaftLabError
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.pb import chaos_pb2, chaos_pb2_grpc, inspection_pb2, inspection_pb2_grpc
from raft_actor_node.runtime.codec import encode_node_faults, encode_rule

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class ProbeFailed(RaftLabError):
    """A call of a NodeProbe ended without a reply."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
        """Name of the gRPC status."""


class NodeProbe:
    """A client of one node's health, inspection and chaos services.

    Usage: `async with NodeProbe("127.0.0.1:41233") as probe: await probe.status()`.

    Every call takes a timeout in seconds (default: the transport's probe_timeout). A call raises ProbeFailed if it ends
    without a reply. It returns None if the node does not offer the service (UNIMPLEMENTED). A probe belongs to one
    event loop; on another loop, or after a fork, its calls raise RuntimeError.
    """

    def __init__(self, address: str, *, transport: TransportSettings | None = None) -> None:
        """Prepare a channel to `address` ("host:port"), which connects at the first call.

        Needs a running event loop. Raises ValueError if `address` is not host:port.
        """
        self._home = Home("a NodeProbe")
        enter_grpc()
        self.address = address = checked_address(address)
        transport = transport or TransportSettings()
        self._timeout = transport.probe_timeout
        self._channel = grpc.aio.insecure_channel(address, options=channel_options(transport))
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._inspection = inspection_pb2_grpc.InspectionStub(self._channel)
        self._chaos = chaos_pb2_grpc.ChaosStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in progress fail."""
        self._home.check()
        await self._channel.close()

    async def health(self, *, timeout: float | None = None) -> bool | None:
        """Return whether the node serves; False also if the call ends without a reply."""
        try:
            reply = await self._ask(self._health.Check, health_pb2.HealthCheckRequest(service=""), timeout)
        except ProbeFailed:
            return False
        return None if reply is None else bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def status(
        self, *, timeout: float | None = None, with_state_hash: bool = False, hash_index: int = 0
    ) -> inspection_pb2.StatusReply | None:
        """Return the node's internal state.

        `with_state_hash` adds a hash of keys and sessions, in time proportional to their number. `hash_index` adds
        prefix_hash, over the entries up to that index.
        """
        request = inspection_pb2.StatusRequest(with_state_hash=with_state_hash, hash_index=hash_index)
        return await self._ask(self._inspection.GetStatus, request, timeout)

    async def log(
        self, first: int = 0, end: int = 0, *, timeout: float | None = None
    ) -> inspection_pb2.LogReply | None:
        """Return log entries [first, end), at most 1000. `first` 0 means the beginning of the log, `end` 0 its end."""
        request = inspection_pb2.LogRequest(first_index=first, end_index=end)
        return await self._ask(self._inspection.GetLog, request, timeout)

    async def samples(self, since_ns: int = 0, *, timeout: float | None = None) -> inspection_pb2.SamplesReply | None:
        """Return the node's measurements since `since_ns` on its monotonic clock."""
        return await self._ask(self._inspection.GetSamples, inspection_pb2.SamplesRequest(since_ns=since_ns), timeout)

    async def set_links(self, rules: Iterable[LinkRule], *, timeout: float | None = None) -> int | None:
        """Replace the node's table of link faults. Return when the table took effect, in ns of the node's clock."""
        request = chaos_pb2.SetLinksRequest(rules=[encode_rule(rule) for rule in rules])
        reply = await self._ask(self._chaos.SetLinks, request, timeout)
        return None if reply is None else int(reply.applied_ns)

    async def set_node_faults(self, faults: NodeFaults, *, timeout: float | None = None) -> int | None:
        """Replace all faults inside the node. Return when they took effect, in ns of the node's clock."""
        request = chaos_pb2.SetNodeFaultsRequest(faults=encode_node_faults(faults))
        reply = await self._ask(self._chaos.SetNodeFaults, request, timeout)
        return None if reply is None else int(reply.applied_ns)

    async def links(self, *, timeout: float | None = None) -> chaos_pb2.GetLinksReply | None:
        """Return the table of link faults in force, with counters of their effects."""
        return await self._ask(self._chaos.GetLinks, chaos_pb2.GetLinksRequest(), timeout)

    async def trace(self, after: int = 0, *, timeout: float | None = None) -> list[inspection_pb2.TraceEvent] | None:
        """Return the trace events above number `after` that the node still keeps."""
        try:
            return [event async for event in self._trace(after, follow=False, timeout=self._within(timeout))]
        except ProbeFailed as error:
            if error.code == "UNIMPLEMENTED":
                return None
            raise

    def follow_trace(self, after: int = 0, *, timeout: float | None = None) -> AsyncIterator[inspection_pb2.TraceEvent]:
        """Iterate over trace events above number `after`: first those the node keeps, then new ones.

        The iteration lasts `timeout` seconds (default: no limit). Raises ProbeFailed when the stream ends.
        """
        return self._trace(after, follow=True, timeout=timeout)

    async def _trace(
        self, after: int, *, follow: bool, timeout: float | None
    ) -> AsyncIterator[inspection_pb2.TraceEvent]:
        self._home.check()
        request = inspection_pb2.TraceRequest(after=after, follow=follow)
        call = self._inspection.Trace(request, timeout=timeout)
        try:
            with self._closed_meanwhile():
                async for event in call:
                    yield event
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None
        finally:
            call.cancel()

    async def _ask(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Reply], request: Request, timeout: float | None
    ) -> Reply | None:
        self._home.check()
        try:
            with self._closed_meanwhile():
                return await method(request, timeout=self._within(timeout))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._failed(error) from None

    @contextlib.contextmanager
    def _closed_meanwhile(self) -> Iterator[None]:
        """Convert the end of a call on a closed channel to ProbeFailed.

        gRPC then raises CancelledError, although the task was not cancelled. The caller would mistake that error for a
        request to stop.
        """
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise ProbeFailed(f"{self.address}: CANCELLED: the connection was dropped", "CANCELLED") from None

    def _within(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    def _failed(self, error: grpc.aio.AioRpcError) -> ProbeFailed:
        name = error.code().name
        return ProbeFailed(f"{self.address}: {name}: {error.details() or 'no reason given'}", name)
