"""A client cannot cost a node more than its budgets, whatever it sends and whether or not it reads: the leader stays,
memory is bounded, and others are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from raft_actor_node.config import RaftSettings
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc
from raft_actor_node.units import Range
from tests.cluster.local import PATIENCE_S, LocalCluster, eventually

MB = 1 << 20
BAR_BYTES = 128 * MB
"""What a node may need above its log and its data."""
LIMITS = RaftSettings(election_timeout=Range(1.0, 2.0), heartbeat_interval=0.1)
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
GET, PUT, DELETE = kv_pb2.GET, kv_pb2.PUT, kv_pb2.DELETE
CAS, APPEND = kv_pb2.COMPARE_AND_SWAP, kv_pb2.APPEND


class Attack:
    """A client with a stub of its own, at the leader."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub

    async def batches(self, *batches: list[kv_pb2.Operation], read: bool) -> list[kv_pb2.OperationResult]:
        """Send batches on one stream; read every answer, or none, for a while."""
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
                await asyncio.sleep(3.0)  # as long as it takes a node to build what nobody reads
        finally:
            writer.cancel()
            call.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return results

    async def calls(self, count: int, call: Callable[[int], Awaitable[Any]]) -> list[Any]:
        """So many unary calls at once; each ends with a reply, or is refused without effect."""
        outcomes = await asyncio.gather(*map(call, range(count)), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, grpc.aio.AioRpcError):
                assert outcome.code() is grpc.StatusCode.FAILED_PRECONDITION, outcome
                assert "OVERLOADED" in (outcome.details() or "")
            else:
                assert not isinstance(outcome, BaseException), outcome
        assert any(not isinstance(outcome, BaseException) for outcome in outcomes), "some are served"
        return outcomes


def same(count: int, kind: Any, **fields: Any) -> list[kv_pb2.Operation]:
    """So many operations on one key."""
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
    # name: (bytes at the key before, bytes that reach log and data, what is asked)
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


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had since `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, 3, LIMITS) as local:
        yield local


@pytest.mark.parametrize("name", CASES)
async def test_a_greedy_client_costs_no_more_than_the_budgets(cluster: LocalCluster, name: str) -> None:
    held, written, attack = CASES[name]
    kv = await cluster.client(rpc_timeout=10.0, retry_budget=30.0)
    await kv.put(b"k", b"v" * held)
    leader = await cluster.leader()
    before = await cluster.converged()
    served = 0
    ended = asyncio.Event()

    async def others() -> None:
        nonlocal served
        while not ended.is_set() or not served:
            await kv.put(b"other", b"%d" % served)
            assert await kv.get(b"other") == b"%d" % served
            served += 1

    other = asyncio.create_task(others())
    pids = {node_id: status.pid for node_id, status in (await cluster.statuses()).items()}
    resident = {node_id: status.resident_bytes for node_id, status in (await cluster.statuses()).items()}
    for pid in pids.values():
        forget_peak(pid)
    async with grpc.aio.insecure_channel(cluster.address(leader), options=UNLIMITED) as channel:
        await attack(Attack(kv_pb2_grpc.KVStub(channel)))
        in_time = served
        ended.set()
        await asyncio.wait_for(other, PATIENCE_S)
    assert in_time, "others are served meanwhile"
    statuses = await cluster.statuses()
    assert {status.current_term for status in statuses.values()} == {before.current_term}, "no election"
    assert statuses[leader].leader_id == leader
    for node_id, pid in pids.items():
        assert peak_bytes(pid) - resident[node_id] < BAR_BYTES + written, node_id

    async def settled() -> bool:
        status = await cluster.status(leader)
        return status.pending_operations == 0 and status.pending_bytes == 0

    await eventually(settled, "everything of the budget is given back")


async def test_a_burst_of_large_puts_is_appended_once(cluster: LocalCluster) -> None:
    """64 puts of 1 MiB at once take longer than the client waits for one: what it asks again waits for the first."""
    kv = await cluster.client(rpc_timeout=0.3, retry_budget=60.0)
    await asyncio.gather(*(kv.put(b"b%d" % i, b"v" * MB) for i in range(64)))
    status = await cluster.converged()
    log = [payload async for payload in entries(cluster, status.node_id)]
    large = [payload for payload in log if len(payload) > MB]
    assert len(set(large)) == 64
    assert len(large) == 64, "no put is twice in the log"


async def entries(cluster: LocalCluster, node_id: str) -> AsyncIterator[bytes]:
    """The payloads of a node's log."""
    at = 1
    while page := (await cluster.probe(node_id).log(at)).payloads:
        for payload in page:
            yield payload
        at += len(page)


async def test_a_stream_that_its_client_half_closes_gives_all_answers(cluster: LocalCluster) -> None:
    """As every generic gRPC client does that has a list of requests: `stub.Execute(iter([batch]))`."""
    leader = await cluster.leader()
    async with grpc.aio.insecure_channel(cluster.address(leader)) as channel:
        stub: Any = kv_pb2_grpc.KVStub(channel)
        for round_ in range(1, 4):
            call = stub.Execute(iter([kv_pb2.OperationBatch(operations=same(5, APPEND, value=b"x"))]))
            lengths = [result.number async for part in call for result in part.results]
            assert lengths == [5 * round_ + i for i in range(-4, 1)]
            assert await call.code() is grpc.StatusCode.OK


async def test_what_is_no_batch_ends_its_stream_and_leaves_few_lines(cluster: LocalCluster) -> None:
    """What came before it is answered; whatever else it breaks, the log of the node does not grow with it."""
    leader = await cluster.leader()
    async with grpc.aio.insecure_channel(cluster.address(leader)) as channel:
        name = "/raft_lab.v1.KV/"
        execute = channel.stream_stream(name + "Execute", response_deserializer=kv_pb2.ResultBatch.FromString)
        good = kv_pb2.OperationBatch(operations=same(3, APPEND, value=b"x")).SerializeToString()
        call: Any = execute(iter([good, b"\xff\xff no batch"]))
        results = []
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for part in call:
                results += part.results
        assert len(results) == 3
        assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        put: Any = channel.unary_unary(name + "Put", response_deserializer=kv_pb2.PutReply.FromString)
        for _ in range(100):
            with pytest.raises(grpc.aio.AioRpcError):
                await put(b"\xff\xff no request")
    log = (await cluster.supervisors[leader].collect()).log
    assert 0 < log.count("Traceback") <= 20
