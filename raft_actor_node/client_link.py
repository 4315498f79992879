"""A connection from a client to a node: a channel and the KV.Execute stream on it.

This module has effects only: connect, write the owner's batches, hand over what arrives, reconnect. client_engine.py
decides what an operation is, when it is late and which node gets it next.
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
    """The owner of a link, as the link calls it."""

    @property
    def timeout_s(self) -> float:
        """Deadline of a unary call in seconds: how long the owner waits for the result of an operation."""

    def next_batch(self) -> kv_pb2.OperationBatch | None:
        """Return what to send next, now that the stream has room; None if there is nothing to send."""

    def received(self, batch: kv_pb2.ResultBatch) -> None:
        """Take results that the node sent."""

    def failed(self, operation_id: int, code: str, message: str) -> None:
        """Note that the unary call of an operation failed without an ErrorDetail. `code` names a gRPC status."""

    def connected(self) -> None:
        """Note that a connection is open: operations can be sent."""

    def broken(self, code: str, message: str) -> None:
        """Note that the connection ended or could not be opened: sent operations will get no more results.

        `code` names a gRPC status.
        """


class AnyLink(Protocol):
    """A connection to a node, open until its owner closes it."""

    def wake(self) -> None:
        """Send what `next_batch` returns. The owner may add more until the end of this tick."""

    async def close(self) -> None:
        """Close the connection and drop all calls on it."""


LinkFactory = Callable[[str, TransportSettings, LinkOwner], AnyLink]
"""Function that begins to connect to an address on behalf of an owner."""


class Link:
    """A stream to a node, reopened when it breaks, until `close`. Satisfies AnyLink."""

    def __init__(self, address: str, transport: TransportSettings, owner: LinkOwner) -> None:
        """Begin to connect to `address` ("host:port"). Needs a running event loop."""
        enter_grpc()
        self._owner = owner
        self._pause_s = transport.reconnect_backoff.min_s
        self._wake = asyncio.Event()
        self._closed = False
        self._ends_with_channel = False
        """Whether closing the channel ends the wait of the task, so that `close` need not cancel the task.

        After a cancellation, gRPC would still report the end of the wait, perhaps to an event loop that is already
        closed.
        """
        self._channel = grpc.aio.insecure_channel(address, options=channel_options(transport))
        self._stub = kv_pb2_grpc.KVStub(self._channel)
        self._task = asyncio.create_task(self._run(), name=f"link to {address}")

    def wake(self) -> None:
        """As in AnyLink."""
        self._wake.set()

    async def close(self) -> None:
        """As in AnyLink."""
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
                # Do not spin on a node that accepts streams and ends them at once.
                await asyncio.sleep(self._pause_s)
            await self._ready()

    async def _ready(self) -> None:
        self._ends_with_channel = True
        while not self._closed and (state := self._channel.get_state(try_to_connect=True)) is not _READY:
            await self._channel.wait_for_state_change(state)
        self._ends_with_channel = False

    async def _stream(self) -> tuple[str, str, bool]:
        """Run one stream to its end. Return the gRPC status and message of the end, and whether results arrived."""
        useful = False
        call: ExecuteCall = self._stub.Execute()
        try:
            # Without "wait for ready", a refused connection ends the call at once.
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
                    return  # The reader gets the reason.
            await self._wake.wait()
