"""Requests of greedy clients: small to send, expensive to serve.

The tests of budgets use this table for memory and leadership, the benchmark uses it for turns.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from raft_actor_node.pb import kv_pb2

MB = 1 << 20
UNREAD_S = 3.0
"""How long a client that does not read its answers attacks."""
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.bdp_probe", 0),
]
"""Options of the channel of an Attack. Flow-control windows stay at 64 KiB: with the BDP probe, gRPC in the client
buffers gigabytes of answers that the test never reads."""
GET, PUT, DELETE = kv_pb2.GET, kv_pb2.PUT, kv_pb2.DELETE
CAS, APPEND = kv_pb2.COMPARE_AND_SWAP, kv_pb2.APPEND


class Attack:
    """A client with a stub of its own at the leader."""

    def __init__(self, stub: Any, enough: Callable[[], bool] = lambda: True) -> None:
        """Calls go on, round after round, until `enough` returns true."""
        self.stub = stub
        self.rounds = 0
        self._enough = enough

    async def batches(self, *batches: list[kv_pb2.Operation], read: bool) -> list[kv_pb2.OperationResult]:
        """Send batches on one stream; read all answers, or none for 3 s."""
        results: list[kv_pb2.OperationResult] = []
        call = self.stub.Execute()

        async def send() -> None:
            for batch in batches:
                await call.write(kv_pb2.OperationBatch(client_id="greedy", operations=batch))
            await call.done_writing()

        writer = asyncio.create_task(send())
        try:
            if read:
                while (part := await call.read()) is not grpc.aio.EOF:
                    results += part.results
                assert len(results) == sum(map(len, batches)), "each operation is answered before the stream ends"
            else:
                await asyncio.sleep(UNREAD_S)
        finally:
            writer.cancel()
            call.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return results

    async def calls(self, count: int, call: Callable[[int], Awaitable[Any]]) -> None:
        """Make `count` unary calls at once, round after round; each must be answered, or refused without effect."""
        while not self.rounds or not self._enough():
            self.rounds += 1
            outcomes = await asyncio.gather(*map(call, range(count)), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, grpc.aio.AioRpcError):
                    assert outcome.code() is grpc.StatusCode.FAILED_PRECONDITION, outcome
                    assert "OVERLOADED" in (outcome.details() or "")
                else:
                    assert not isinstance(outcome, BaseException), outcome
            assert any(not isinstance(outcome, BaseException) for outcome in outcomes), "some are served"


def unread_gets(keys: Sequence[bytes]) -> bytes:
    """HTTP/2 of a client that calls Get for each key and grants no window for the answers (RFC 9113, section 6.9)."""
    path = f"/{kv_pb2.DESCRIPTOR.services_by_name['KV'].full_name}/Get"
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "n", "te": "trailers"}
    fields["content-type"] = "application/grpc"
    # Literal fields without indexing (RFC 7541, section 6.2.2); all are shorter than 127 bytes.
    headers = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, struct.pack(">HI", 4, 0))
    for number, key in enumerate(keys):
        message = kv_pb2.GetRequest(key=key).SerializeToString()
        data = b"\x00" + struct.pack(">I", len(message)) + message
        sent += _frame(1, 4, 2 * number + 1, headers) + _frame(0, 1, 2 * number + 1, data)
    return sent


async def acknowledge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Acknowledge the pings and settings of a server, so that it keeps the connection."""
    while True:
        length, kind, flags, _ = struct.unpack(">3sBBI", await reader.readexactly(9))
        payload = await reader.readexactly(int.from_bytes(length, "big"))
        if kind in (4, 6) and not flags & 1:
            writer.write(_frame(kind, 1, 0, payload if kind == 6 else b""))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def same(count: int, kind: Any, **fields: Any) -> list[kv_pb2.Operation]:
    """`count` operations on one key."""
    return [kv_pb2.Operation(id=i, kind=kind, key=b"k", **fields) for i in range(count)]


async def tiny_operations(attack: Attack) -> None:
    # 7 bytes each: more than 8 MB of objects for each MB that is sent.
    await attack.batches([kv_pb2.Operation(kind=GET, key=b"k")] * 700_000, read=False)


async def many_messages(attack: Attack) -> None:
    await attack.batches(*[same(1000, GET)] * 100, read=False)


async def mixed(attack: Attack) -> None:
    # Each append makes another value, which the failed compare-and-swap behind it keeps alive.
    pair = [*same(1, APPEND, value=b"z"), *same(1, CAS, value=b"z")]
    await attack.batches(pair * 400, read=True)


CASES: dict[str, tuple[int, int, Callable[[Attack], Awaitable[Any]]]] = {
    # name: (bytes of the key's value before, bytes that reach log and data, the requests)
    "2000 gets, read": (100_000, 0, lambda attack: attack.batches(same(2000, GET), read=True)),
    "2000 gets, unread": (100_000, 0, lambda attack: attack.batches(same(2000, GET), read=False)),
    "20000 gets of 1 MiB, unread": (MB, 0, lambda attack: attack.batches(same(20_000, GET), read=False)),
    "100 messages of gets, unread": (65_536, 0, many_messages),
    "700000 operations in one message": (10, 0, tiny_operations),
    "512 failing swaps, read": (MB, 0, lambda attack: attack.batches(same(512, CAS, value=b"z"), read=True)),
    "512 failing swaps, unread": (MB, 0, lambda attack: attack.batches(same(512, CAS, value=b"z"), read=False)),
    "1000 appends to 1 MB": (MB - 5000, 0, lambda attack: attack.batches(same(1000, APPEND, value=b"z"), read=True)),
    "appends and failing swaps": (MB - 5000, 0, mixed),
    "20000 deletes": (MB, 0, lambda attack: attack.batches(same(20_000, DELETE), read=True)),
    "64 unary gets": (MB, 0, lambda attack: attack.calls(64, lambda _: attack.stub.Get(kv_pb2.GetRequest(key=b"k")))),
    "64 unary failing swaps": (
        MB,
        0,
        lambda attack: attack.calls(
            64, lambda _: attack.stub.CompareAndSwap(kv_pb2.CompareAndSwapRequest(key=b"k", value=b"z"))
        ),
    ),
    "64 unary puts": (
        10,
        2 * 64 * MB,
        lambda attack: attack.calls(64, lambda i: attack.stub.Put(kv_pb2.PutRequest(key=b"p%d" % i, value=b"v" * MB))),
    ),
    "64 unary appends": (
        MB - 5000,
        0,
        lambda attack: attack.calls(64, lambda _: attack.stub.Append(kv_pb2.AppendRequest(key=b"k", value=b"z"))),
    ),
    "64 unary deletes": (
        MB,
        0,
        lambda attack: attack.calls(64, lambda _: attack.stub.Delete(kv_pb2.DeleteRequest(key=b"k"))),
    ),
}
