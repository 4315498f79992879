"""A connection from a client to a node that makes a unary call for each operation.

Like client_link.py, this module performs effects and makes no decisions. Its functions translate between the operations
of the stream and the requests, replies and errors of unary calls. A simulated connection uses these functions too.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from raft_actor_node.channels import ERROR_DETAIL_KEY, channel_options
from raft_actor_node.client_home import enter_grpc
from raft_actor_node.client_link import LinkOwner
from raft_actor_node.config import TransportSettings
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc

_READY, _FAILED = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
_CALLS: dict[int, tuple[str, type[Message]]] = {
    kv_pb2.PUT: ("Put", kv_pb2.PutRequest),
    kv_pb2.GET: ("Get", kv_pb2.GetRequest),
    kv_pb2.DELETE: ("Delete", kv_pb2.DeleteRequest),
    kv_pb2.COMPARE_AND_SWAP: ("CompareAndSwap", kv_pb2.CompareAndSwapRequest),
    kv_pb2.APPEND: ("Append", kv_pb2.AppendRequest),
    kv_pb2.OPEN_SESSION: ("OpenSession", kv_pb2.OpenSessionRequest),
}
"""Kind of an operation -> name and request type of its call."""
_RESULT_FIELDS = {"swapped": "found", "current": "value", "length": "number", "session_id": "number"}
"""Fields of replies that have a different name in OperationResult."""


def call_of(operation: kv_pb2.Operation, client_id: str) -> tuple[str, Any]:
    """Return the name and the request of the unary call for an operation."""
    name, request = _CALLS[operation.kind]
    fields = {
        field.name: value for field, value in operation.ListFields() if field.name in request.DESCRIPTOR.fields_by_name
    }
    return name, request(client_id=client_id, **fields)


def result_of(operation_id: int, reply: Message) -> kv_pb2.OperationResult:
    """Convert the reply of a unary call to the result of its operation."""
    fields: dict[str, Any] = {_RESULT_FIELDS.get(field.name, field.name): value for field, value in reply.ListFields()}
    return kv_pb2.OperationResult(id=operation_id, **fields)


def refusal_of(operation_id: int, detail: bytes | None) -> kv_pb2.OperationResult | None:
    """Convert the ErrorDetail of a failed call to a result; None if it is absent, malformed or without a code."""
    try:
        error = kv_pb2.ErrorDetail.FromString(detail or b"")
    except DecodeError:
        return None
    if not error.code:
        return None
    return kv_pb2.OperationResult(
        id=operation_id, error=error.code, leader_hint=error.leader_hint, message=error.message
    )


class UnaryLink:
    """A channel to a node, kept open until `close`. Satisfies AnyLink."""

    def __init__(self, address: str, transport: TransportSettings, owner: LinkOwner) -> None:
        """Begin to connect to `address` ("host:port"). Needs a running event loop."""
        enter_grpc()
        self._owner = owner
        self._address = address
        self._open = self._closed = self._due = False
        self._loop = asyncio.get_running_loop()
        self._channel = grpc.aio.insecure_channel(address, options=channel_options(transport))
        self._stub = kv_pb2_grpc.KVStub(self._channel)
        self._calls: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._watch(), name=f"calls to {address}")

    def wake(self) -> None:
        """As in AnyLink. Send only while connected: an operation that was never sent certainly had no effect."""
        if self._open and not self._due:
            self._due = True
            self._loop.call_soon(self._send)

    async def close(self) -> None:
        """As in AnyLink."""
        self._closed, self._open = True, False
        await self._channel.close()  # this ends all calls, and the wait in `_watch`
        await asyncio.wait([self._task, *self._calls])

    async def _watch(self) -> None:
        """Report to the owner when the node becomes reachable or unreachable."""
        while not self._closed:
            state = self._channel.get_state(try_to_connect=True)
            if state is _READY and not self._open:
                self._open = True
                self._owner.connected()
                self.wake()
            elif state is _FAILED or (self._open and state is not _READY):
                self._open = False
                self._owner.broken("UNAVAILABLE", f"no connection to {self._address}")
            await self._channel.wait_for_state_change(state)

    def _send(self) -> None:
        self._due = False
        while self._open and (batch := self._owner.next_batch()) is not None:
            for operation in batch.operations:
                task = asyncio.create_task(self._call(operation.id, *call_of(operation, batch.client_id)))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    async def _call(self, operation_id: int, name: str, request: Any) -> None:
        try:
            # Without "wait for ready", a lost connection ends the call at once.
            reply = await getattr(self._stub, name)(request, timeout=self._owner.timeout_s)
        except grpc.aio.AioRpcError as error:
            detail = dict(error.trailing_metadata() or ()).get(ERROR_DETAIL_KEY)
            result = refusal_of(operation_id, detail if isinstance(detail, bytes) else None)
            if result is None:
                self._owner.failed(operation_id, error.code().name, error.details() or "")
                return
        except asyncio.CancelledError:  # the channel was closed
            return
        else:
            result = result_of(operation_id, reply)
        self._owner.received(kv_pb2.ResultBatch(results=[result]))
