"""A client cannot cost a node more than its budgets, whatever the client sends and whether or not it reads.

The leader stays, memory is bounded, and other clients are served meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from raft_actor_node.addresses import split_address
from raft_actor_node.config import RaftSettings
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc
from raft_actor_node.units import Range
from tests.cluster.greedy import APPEND, CASES, GET, MB, PUT, UNLIMITED, Attack, acknowledge, same, unread_gets
from tests.cluster.local import PATIENCE_S, LocalCluster, eventually

BAR_BYTES = 128 * MB
"""The memory that a node may need besides its log and its data."""
LIMITS = RaftSettings(election_timeout=Range(1.0, 2.0), heartbeat_interval=0.1)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had since `forget_peak`, in bytes."""
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
        # The attack repeats its round of calls, as one round may end before a put of the other client is on disk.
        greedy = Attack(kv_pb2_grpc.KVStub(channel), lambda: served > 0)
        async with asyncio.timeout(3 * PATIENCE_S):
            await attack(greedy)
        in_time = served
        ended.set()
        await asyncio.wait_for(other, PATIENCE_S)
    assert in_time, "others are served meanwhile"
    statuses = await cluster.statuses()
    assert {status.current_term for status in statuses.values()} == {before.current_term}, "no election"
    assert statuses[leader].leader_id == leader
    for node_id, pid in pids.items():
        assert peak_bytes(pid) - resident[node_id] < BAR_BYTES + max(greedy.rounds, 1) * written, node_id

    async def settled() -> bool:
        status = await cluster.status(leader)
        return status.pending_operations == 0 and status.pending_bytes == 0

    await eventually(settled, "everything of the budget is given back")


async def test_a_burst_of_large_puts_is_appended_once(cluster: LocalCluster) -> None:
    """64 puts of 1 MiB at once take longer than the client's timeout; its retries wait for the first attempt."""
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
    """A generic gRPC client with a list of requests half-closes the stream: `stub.Execute(iter([batch]))`."""
    leader = await cluster.leader()
    async with grpc.aio.insecure_channel(cluster.address(leader)) as channel:
        stub: Any = kv_pb2_grpc.KVStub(channel)
        for round_ in range(1, 4):
            call = stub.Execute(iter([kv_pb2.OperationBatch(operations=same(5, APPEND, value=b"x"))]))
            lengths = [result.number async for part in call for result in part.results]
            assert lengths == [5 * round_ + i for i in range(-4, 1)]
            assert await call.code() is grpc.StatusCode.OK


async def test_what_is_no_batch_ends_its_stream_and_leaves_few_lines(cluster: LocalCluster) -> None:
    """Earlier batches are answered; however a client breaks the protocol, the node's log file does not grow with it."""
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


async def test_streams_that_do_not_read_end_when_others_need_their_room(cluster: LocalCluster) -> None:
    kv = await cluster.client(retry_budget=30.0)
    await kv.put(b"k", b"v" * MB)
    leader = await cluster.leader()
    async with grpc.aio.insecure_channel(cluster.address(leader), options=UNLIMITED) as channel:
        stub: Any = kv_pb2_grpc.KVStub(channel)
        lazy = [stub.Execute() for _ in range(40)]
        for call in lazy:
            await call.write(kv_pb2.OperationBatch(client_id="greedy", operations=same(50, GET)))

        async def told() -> bool:
            await asyncio.gather(*(kv.put(b"other %d" % number, b"v" * MB) for number in range(24)))
            assert await kv.get(b"k") is not None
            log = (await cluster.supervisors[leader].collect()).log
            return "client greedy does not read its answers" in log

        await eventually(told, "one of them is ended")
        ends = await asyncio.gather(*(_read_all(call) for call in lazy))
        assert grpc.StatusCode.OK in ends, "those that were kept get all of their answers"
        assert set(ends) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}, "those that were not find out"


async def test_a_client_that_reads_is_served_though_others_hold_everything(cluster: LocalCluster) -> None:
    """This needs no other event: the node itself checks regularly which clients do not read."""
    kv = await cluster.client(retry_budget=60.0)
    await kv.put(b"k", b"v" * MB)
    await kv.put(b"m", b"v" * 300_000)
    leader = await cluster.leader()
    gets = [kv_pb2.Operation(id=i, kind=GET, key=b"m") for i in range(60)]
    async with grpc.aio.insecure_channel(cluster.address(leader), options=UNLIMITED) as channel:
        stub: Any = kv_pb2_grpc.KVStub(channel)
        diligent = stub.Execute()
        await diligent.write(kv_pb2.OperationBatch(operations=same(300, GET)))
        results = list((await diligent.read()).results)
        lazy = [stub.Execute() for _ in range(80)]
        await asyncio.gather(*(call.write(kv_pb2.OperationBatch(client_id="greedy", operations=gets)) for call in lazy))
        async with asyncio.timeout(2 * PATIENCE_S):
            while len(results) < 300:
                results += (await diligent.read()).results
        for call in (diligent, *lazy):
            call.cancel()
    assert all(result.value == b"v" * MB for result in results)


async def test_clients_that_read_are_answered_though_large_messages_wait(cluster: LocalCluster) -> None:
    """Messages that wait for the answers before them do not take the room of these answers."""
    kv = await cluster.client(retry_budget=60.0)
    await kv.put(b"k", b"v" * MB)
    leader = await cluster.leader()
    puts = [kv_pb2.Operation(id=i, kind=PUT, key=b"p%d" % i, value=b"w" * MB) for i in range(7)]

    async def ask_and_read() -> int:
        async with grpc.aio.insecure_channel(cluster.address(leader), options=UNLIMITED) as channel:
            call: Any = kv_pb2_grpc.KVStub(channel).Execute()

            async def send() -> None:
                for operations in (same(60, GET), puts):
                    await call.write(kv_pb2.OperationBatch(operations=operations))

            sending = asyncio.create_task(send())
            answered = 0
            while answered < 60 + len(puts):
                answered += len((await call.read()).results)
            await sending
            call.cancel()
            return answered

    async with asyncio.timeout(3 * PATIENCE_S):
        await asyncio.gather(*(ask_and_read() for _ in range(16)))
    await kv.put(b"other", b"x")


async def test_calls_whose_client_does_not_read_give_their_room_to_others(cluster: LocalCluster) -> None:
    kv = await cluster.client(retry_budget=30.0)
    sizes = {b"k": MB, b"l": 60_000, b"m": 2000}
    for key, size in sizes.items():
        await kv.put(key, b"v" * size)
    leader = await cluster.leader()
    host, port = split_address(cluster.address(leader))
    reader, writer = await asyncio.open_connection(host, port)
    alive = asyncio.create_task(acknowledge(reader, writer))

    async def held() -> bool:
        return (await cluster.status(leader)).pending_bytes > 47 * MB

    try:
        writer.write(unread_gets([b"k"] * 30 + [b"l"] * 200 + [b"m"] * 400 + [b"-"] * 600))
        await eventually(held, "unread answers leave less of three quarters of 64 MiB than a put of 1 MiB needs")
        await kv.put(b"other", b"v" * MB)
        assert await kv.get(b"other") == b"v" * MB
        assert not alive.done(), "though the client is still connected"
    finally:
        alive.cancel()
        writer.close()
        await writer.wait_closed()

    async def settled() -> bool:
        status = await cluster.status(leader)
        return status.pending_operations == 0 and status.pending_bytes == 0

    await eventually(settled, "everything of the budget is given back")


async def test_the_name_of_a_client_is_short(cluster: LocalCluster) -> None:
    leader = await cluster.leader()
    async with grpc.aio.insecure_channel(cluster.address(leader)) as channel:
        stub: Any = kv_pb2_grpc.KVStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="client_id: 257 bytes, at most 256 are allowed"):
            await stub.Put(kv_pb2.PutRequest(key=b"k", client_id="n" * 257))
        batch = kv_pb2.OperationBatch(client_id="n" * 257, operations=same(3, GET))
        results = [result async for part in stub.Execute(iter([batch])) for result in part.results]
        assert [result.error for result in results] == [kv_pb2.BAD_ARGUMENT] * 3
        await stub.Put(kv_pb2.PutRequest(key=b"k", client_id="n" * 256))


async def test_a_stream_that_waits_for_its_client_keeps_no_message(cluster: LocalCluster) -> None:
    leader = await cluster.leader()
    before = (await cluster.status(leader)).resident_bytes
    message = kv_pb2.OperationBatch(operations=[kv_pb2.Operation(id=1, kind=GET, key=b"k" * 100)] * 50_000)
    async with grpc.aio.insecure_channel(cluster.address(leader), options=UNLIMITED) as channel:
        stub: Any = kv_pb2_grpc.KVStub(channel)
        calls = [stub.Execute() for _ in range(30)]
        for call in calls:
            await call.write(message)
            answered = 0
            while answered < 50_000:
                answered += len((await call.read()).results)
        after = (await cluster.status(leader)).resident_bytes
        assert after - before < 10 * message.ByteSize(), "30 of them were sent"
        for call in calls:
            call.cancel()


async def _read_all(call: Any) -> grpc.StatusCode:
    """Half-close the stream and read it to its end; return its status."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code()
