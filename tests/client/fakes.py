"""Fakes for the tests of the client: scripted key-value nodes, and a load."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import grpc
import grpc.aio

from raft_actor_node.channels import server_options
from raft_actor_node.client_engine import ClientEngine, Operation, Session
from raft_actor_node.client_link import LinkOwner
from raft_actor_node.config import ClientSettings, TransportSettings
from raft_actor_node.kv.commands import Kind, encode, fault
from raft_actor_node.kv.store import Store
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc
from raft_actor_node.units import Range

CALM = ClientSettings(rpc_timeout=10.0, retry_budget=30.0, retry_backoff=Range(0.001, 0.01))
"""No deadline passes, however busy the machine is."""
QUICK = ClientSettings(rpc_timeout=2.0, retry_budget=30.0, retry_backoff=Range(0.001, 0.01))
"""For tests in which a deadline must pass, but not because the machine was busy for a second."""
STEADY = TransportSettings(connect_timeout=10.0)
"""A busy machine does not make an attempt to connect time out."""
PATIENCE_S = 60.0

Result = kv_pb2.OperationResult
Step = Callable[[kv_pb2.Operation], Result | None]
"""What a node does with one operation; None means that it does not answer."""


STATUS = {
    int(kv_pb2.BAD_ARGUMENT): grpc.StatusCode.INVALID_ARGUMENT,
    int(kv_pb2.OUTCOME_UNKNOWN): grpc.StatusCode.UNAVAILABLE,
    int(kv_pb2.SEQUENCE_STALE): grpc.StatusCode.UNAVAILABLE,
}
"""The status that ends a unary call with this error; other errors end with FAILED_PRECONDITION (proto/kv.proto)."""


class AbortStream(Exception):
    """Raised by a step: the stream, or the unary call, ends with this status."""

    def __init__(self, code: grpc.StatusCode, details: str = "as the script says") -> None:
        super().__init__(details)
        self.code, self.details = code, details


def silent(_: kv_pb2.Operation) -> None:
    """Never answer."""


def refuse(code: int, hint: str = "", message: str = "") -> Step:
    """Answer with an error."""
    error = cast("kv_pb2.ErrorCode", code)  # any number: enums of proto3 are open
    return lambda operation: Result(id=operation.id, error=error, leader_hint=hint, message=message)


def abort(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Step:
    """End the stream."""

    def step(_: kv_pb2.Operation) -> None:
        raise AbortStream(code)

    return step


class FakeNode(kv_pb2_grpc.KVServicer):
    """A node without Raft, which applies operations to its store.

    The steps of `script` replace this for the next operations, and `default` for all others. Only `default` applies to
    the opening of sessions.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store(value_bytes=1 << 20)
        self.script: deque[Step] = deque()
        self.default: Step = self.apply
        self.batches: list[kv_pb2.OperationBatch] = []
        self.reading = asyncio.Event()
        """While this is cleared, the node reads nothing from its streams."""
        self.reading.set()
        self.streams: list[Any] = []
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=server_options(TransportSettings()))
        kv_pb2_grpc.add_KVServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.address = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            self.reading.set()
            await self._server.stop(None)
            self._server = None

    @property
    def operations(self) -> list[kv_pb2.Operation]:
        """Everything received except requests to open sessions."""
        return [each for batch in self.batches for each in batch.operations if each.kind != kv_pb2.OPEN_SESSION]

    def apply(self, operation: kv_pb2.Operation) -> Result:
        """Apply the operation, as a leader would."""
        expected = operation.expected if operation.HasField("expected") else None
        what = int(operation.kind), operation.key, operation.value, expected
        session_id, sequence = operation.session_id, operation.sequence
        refusal = fault(*what, session_id=session_id, sequence=sequence, key_bytes=1024, value_bytes=1 << 20)
        if refusal:
            return Result(id=operation.id, error=kv_pb2.BAD_ARGUMENT, message=refusal)
        if operation.kind == kv_pb2.GET:
            value = self.store.get(operation.key)
            return Result(id=operation.id, found=value is not None, value=value)
        payload = encode(*what, session_id=session_id, sequence=sequence)
        (done,) = self.store.apply(self.store.last_applied + 1, [1], [payload])
        error = cast("kv_pb2.ErrorCode", int(done.error))
        return Result(id=operation.id, error=error, found=done.found, value=done.value, number=done.number)

    def apply_silently(self, operation: kv_pb2.Operation) -> None:
        """Apply the operation, but do not answer."""
        self.apply(operation)

    def take(self, batch: kv_pb2.OperationBatch) -> list[Result]:
        """Apply the operations of a batch, or follow the script."""
        self.batches.append(batch)
        results = [self._step(operation)(operation) for operation in batch.operations]
        return [result for result in results if result is not None]

    async def answer(self, result: Result) -> None:
        """Send a result on the newest stream."""
        await self.streams[-1].write(kv_pb2.ResultBatch(results=[result]))

    async def Execute(self, request_iterator: Any, context: Any) -> None:  # noqa: N802 -- the name of the rpc
        self.streams.append(context)
        while True:
            batch = await context.read()
            await self.reading.wait()
            if batch is grpc.aio.EOF:
                return
            try:
                answers = self.take(batch)
            except AbortStream as end:
                await context.abort(end.code, end.details)
            if answers:
                await context.write(kv_pb2.ResultBatch(results=answers))

    async def Put(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._unary(kv_pb2.PUT, request, context)
        return kv_pb2.PutReply()

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        result = await self._unary(kv_pb2.GET, request, context)
        return kv_pb2.GetReply(found=result.found, value=result.value)

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        return kv_pb2.DeleteReply(found=(await self._unary(kv_pb2.DELETE, request, context)).found)

    async def CompareAndSwap(self, request: Any, context: Any) -> Any:  # noqa: N802
        result = await self._unary(kv_pb2.COMPARE_AND_SWAP, request, context)
        current = result.value if result.HasField("value") else None
        return kv_pb2.CompareAndSwapReply(swapped=result.found, current=current)

    async def Append(self, request: Any, context: Any) -> Any:  # noqa: N802
        return kv_pb2.AppendReply(length=(await self._unary(kv_pb2.APPEND, request, context)).number)

    async def OpenSession(self, request: Any, context: Any) -> Any:  # noqa: N802
        return kv_pb2.OpenSessionReply(session_id=(await self._unary(kv_pb2.OPEN_SESSION, request, context)).number)

    async def _unary(self, kind: Any, request: Any, context: Any) -> Result:
        """Answer a unary call, or follow the script; after a silent step the call is never answered."""
        operation = kv_pb2.Operation(kind=kind)
        for name in ("key", "value", "session_id", "sequence", "expected"):
            field = request.DESCRIPTOR.fields_by_name.get(name)
            if field is not None and (not field.has_presence or request.HasField(name)):
                setattr(operation, name, getattr(request, name))
        try:
            results = self.take(kv_pb2.OperationBatch(client_id=request.client_id, operations=[operation]))
            await self.reading.wait()
        except AbortStream as end:
            await context.abort(end.code, end.details)
        if not results:
            await asyncio.get_running_loop().create_future()
        [result] = results
        if result.error:
            detail = kv_pb2.ErrorDetail(code=result.error, leader_hint=result.leader_hint, message=result.message)
            trailer = ("raft-error-bin", detail.SerializeToString())
            await context.abort(STATUS.get(int(result.error), grpc.StatusCode.FAILED_PRECONDITION), "no", (trailer,))
        return result

    def _step(self, operation: kv_pb2.Operation) -> Step:
        scripted = self.script and operation.kind != kv_pb2.OPEN_SESSION
        return self.script.popleft() if scripted else self.default


class DirectLink:
    """An engine's link to a fake node without gRPC, for virtual time: an answer takes a millisecond."""

    def __init__(self, node: FakeNode, owner: LinkOwner) -> None:
        self._node, self._owner = node, owner
        self._loop = asyncio.get_running_loop()
        self._closed = False
        node.streams.append(self)

    def wake(self) -> None:
        """Send at the end of this tick, as Link does."""
        self._loop.call_soon(self._send)

    async def write(self, batch: kv_pb2.ResultBatch) -> None:
        """Accept a batch, as a gRPC stream does."""
        self._receive(batch)

    async def close(self) -> None:
        """Drop everything that is under way."""
        self._closed = True

    def _send(self) -> None:
        while not self._closed and (batch := self._owner.next_batch()) is not None:
            answers = self._node.take(batch)
            if answers:
                self._loop.call_later(0.001, self._receive, kv_pb2.ResultBatch(results=answers))

    def _receive(self, batch: kv_pb2.ResultBatch) -> None:
        if not self._closed:
            self._owner.received(batch)


StartNodes = Callable[[int], Awaitable[list[FakeNode]]]
"""Type of the fixture `nodes`."""


class InOrder(random.Random):
    """Makes an engine try the nodes in the order of its address book, so a script knows which is next."""

    def shuffle(self, x: Any) -> None:
        """Keep the order."""


class Load:
    """An engine, and the operations that it has completed."""

    def __init__(self, addresses: Any, settings: ClientSettings = CALM, **options: Any) -> None:
        options = {"rng": InOrder(), "transport": STEADY, **options}
        self.done: list[Operation] = []
        self.lists: list[list[Operation]] = []
        self.then: Callable[[list[Operation]], None] = lambda _: None
        self._change = asyncio.Event()
        self.engine = ClientEngine(addresses, client_id="load", on_done=self._on_done, settings=settings, **options)

    def _on_done(self, operations: list[Operation]) -> None:
        self.lists.append(operations)
        self.done.extend(operations)
        self._change.set()
        self.then(operations)

    async def completed(self, count: int) -> list[Operation]:
        """Wait for `count` completed operations, and return them."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.done) < count:
                self._change.clear()
                await self._change.wait()
        return self.done

    async def run(self, *operations: Operation) -> Sequence[Operation]:
        """Submit operations, and wait for all of them."""
        count = len(self.done) + len(operations)
        self.engine.submit(operations)
        await self.completed(count)
        return operations


StartLoad = Callable[..., Awaitable[Load]]
"""Type of the fixture `load`."""


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0.002)


def book(targets: list[Any]) -> dict[str, str]:
    """An address book of n1, n2, ...; each target is a fake node or an address."""
    return {f"n{i}": getattr(target, "address", target) for i, target in enumerate(targets, 1)}


# The operations for the tests of the engine, and the facts that they check.


async def session(load: Load) -> Session:
    """A new session."""
    return (await load.engine.open_sessions(1))[0]


def put(key: bytes = b"k", value: bytes = b"v", in_session: Session | None = None) -> Operation:
    """A write that may be repeated."""
    return Operation(Kind.PUT, key, value, session=in_session)


def append(value: bytes, in_session: Session | None = None) -> Operation:
    """A write that must not be repeated."""
    return Operation(Kind.APPEND, b"k", value, session=in_session)


def get(key: bytes = b"k") -> Operation:
    """A read."""
    return Operation(Kind.GET, key)


def codes(operation: Operation) -> list[str]:
    """The outcomes of the operation's unanswered attempts."""
    return [attempt.outcome for attempt in operation.failures]


def sequences(operations: Sequence[kv_pb2.Operation]) -> set[tuple[int, int]]:
    """The sequence numbers of the operations."""
    return {(operation.session_id, operation.sequence) for operation in operations}
