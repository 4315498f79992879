"""One connection from a client to one node: a channel and the KV.Execute stream on it.

Here are effects only: connect, write what the owner has, hand over what arrives, reconnect. What an
operation is, when it is late and where it goes next is decided in client_engine.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import grpc
import grpc.aio

from raft_actor_node.channels import channel_options
from raft_actor_node.client_home import enter_grpc
from raft_actor_node.config import TransportSettings
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc

_READY = grpc.ChannelConnectivity.READY
ExecuteCall = grpc.aio.StreamStreamCall[kv_pb2.OperationBatch, kv_pb2.ResultBatch]


class LinkOwner(Protocol):
    """What a link tells its owner, and asks of it."""

    @property
    def timeout_s(self) -> float:
        """How long the owner waits for the answer to an operation: the deadline of a unary call."""

    def next_batch(self) -> kv_pb2.OperationBatch | None:
        """What to send next, now that the stream can take it; None when there is nothing."""

    def received(self, batch: kv_pb2.ResultBatch) -> None:
        """The node sent this."""

    def failed(self, operation_id: int, code: str, message: str) -> None:
        """The unary call of this operation ended with an error and without an ErrorDetail. `code` names a gRPC
        status."""

    def connected(self) -> None:
        """A connection is open: operations can be sent."""

    def broken(self, code: str, message: str) -> None:
        """No connection could be opened, or the open one ended: nothing more will be received for what was
        sent. `code` names a gRPC status."""


class AnyLink(Protocol):
    """A connection that its owner keeps until it closes it."""

    def wake(self) -> None:
        """There is something to send. Until the end of this tick more may be added to it."""

    async def close(self) -> None:
        """Drops the connection and whatever is under way."""


LinkFactory = Callable[[str, TransportSettings, LinkOwner], AnyLink]
"""Begins to connect to an address on behalf of an owner."""


class Link:
    """Keeps a stream to a node open, until it is closed."""

    def __init__(self, address: str, transport: TransportSettings, owner: LinkOwner) -> None:
        """Begins to connect to `address` ("host:port"). Needs a running event loop."""
        enter_grpc()
        self._owner = owner
        self._pause_s = transport.reconnect_backoff.min_s
        self._wake = asyncio.Event()
        self._closed = False
        self._ends_with_channel = False
        """What the task waits for ends when the channel is closed. If it were cancelled instead, gRPC
        would still deliver its end, to an event loop that may be closed by then."""
        self._channel = grpc.aio.insecure_channel(address, options=channel_options(transport))
        self._stub = kv_pb2_grpc.KVStub(self._channel)
        self._task = asyncio.create_task(self._run(), name=f"link to {address}")

    def wake(self) -> None:
        """There is something to send. Until the end of this tick more may be added to it."""
        self._wake.set()

    async def close(self) -> None:
        """Drops the connection and whatever is under way."""
        self._closed = True
        if not self._ends_with_channel:
            self._task.cancel()
        await self._channel.close()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._closed:
            code, message, useful = await self._stream()
            self._owner.broken(code, message)
            if not useful:
                # Do not spin on a node that accepts streams only to end them.
                await asyncio.sleep(self._pause_s)
            await self._ready()

    async def _ready(self) -> None:
        self._ends_with_channel = True
        while not self._closed and (state := self._channel.get_state(try_to_connect=True)) is not _READY:
            await self._channel.wait_for_state_change(state)
        self._ends_with_channel = False

    async def _stream(self) -> tuple[str, str, bool]:
        """One stream from beginning to end: gRPC status and message of the end, and whether it served."""
        useful = False
        call: ExecuteCall = self._stub.Execute()
        try:
            # Not "wait for ready": a refused connection ends the call at once.
            await call.wait_for_connection()
            self._owner.connected()
            writer = asyncio.create_task(self._write(call))
            self._ends_with_channel = True
            try:
                while isinstance(batch := await call.read(), kv_pb2.ResultBatch):
                    useful = True
                    self._owner.received(batch)
            finally:
                self._ends_with_channel = False
                writer.cancel()
                await asyncio.wait([writer])
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or "", useful
        return "UNAVAILABLE", "the node ended the stream", useful

    async def _write(self, call: ExecuteCall) -> None:
        while True:
            self._wake.clear()
            while (batch := self._owner.next_batch()) is not None:
                try:
                    await call.write(batch)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # The reader learns why.
            await self._wake.wait()
