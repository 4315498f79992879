"""What a caller sees under faults: deadlines, retries, at-most-once effects, linearizable reads."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from raft_actor_node.errors import OperationError, OperationFailed, OperationUnknown
from raft_actor_node.links import LinkRule
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc
from tests.cluster.local import PATIENCE_S, LocalCluster, eventually

DEADLINE_S = 2.0
"""Long enough for an answer, even if the node stalls for a second and its disk for half a second."""
LATEST_S = 5.0
"""How late an answer at a deadline may be on a busy machine."""


@pytest.mark.parametrize("lost", ["requests", "replies"])
async def test_a_drop_is_a_timeout_on_a_unary_call(one: LocalCluster, lost: str) -> None:
    """The call ends with DEADLINE_EXCEEDED and not earlier; the retry gets the original result."""
    async with grpc.aio.insecure_channel(one.address("n1")) as channel:
        kv = kv_pb2_grpc.KVStub(channel)
        session = (await kv.OpenSession(kv_pb2.OpenSessionRequest(), timeout=PATIENCE_S)).session_id
        ends = ("clients", "n1") if lost == "requests" else ("n1", "clients")
        await one.set_links([LinkRule(from_id=ends[0], to_id=ends[1], messages=lost, drop=1.0)])
        request = kv_pb2.AppendRequest(key=b"k", value=b"abc", session_id=session, sequence=1)
        begin = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kv.Append(request, timeout=DEADLINE_S)
        elapsed = time.monotonic() - begin
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert DEADLINE_S <= elapsed < DEADLINE_S + LATEST_S
        await one.heal()
        log = [p for p in (await one.probe("n1").log()).payloads if b"abc" in p]
        assert len(log) == (0 if lost == "requests" else 1), (
            "a lost request never reaches the handler; a lost reply does"
        )
        assert (await kv.Append(request, timeout=PATIENCE_S)).length == 3
        assert (await kv.Get(kv_pb2.GetRequest(key=b"k"), timeout=PATIENCE_S)).value == b"abc"


@pytest.mark.parametrize("lost", ["requests", "replies"])
async def test_a_drop_is_a_timeout_on_the_stream(one: LocalCluster, lost: str) -> None:
    """The operation ends at its deadline; the stream and its other operations go on."""
    once = await one.client(only=["n1"], rpc_timeout=DEADLINE_S, retry_budget=0.0)
    ends = ("clients", "n1") if lost == "requests" else ("n1", "clients")
    await one.set_links([LinkRule(from_id=ends[0], to_id=ends[1], messages=lost, drop=0.5)])
    outcomes = await asyncio.gather(*(once.append(b"k", b"x") for _ in range(40)), return_exceptions=True)
    good = [o for o in outcomes if isinstance(o, int)]
    bad = [o for o in outcomes if isinstance(o, OperationUnknown)]
    assert len(good) + len(bad) == 40, outcomes
    assert good
    assert bad
    for error in bad:
        (attempt,) = error.attempts
        assert attempt.outcome == "DEADLINE_EXCEEDED"
        assert DEADLINE_S <= (attempt.end_ns - attempt.start_ns) / 1e9 < DEADLINE_S + LATEST_S
    await one.heal()
    await once.close()
    dropped = (await one.status("n1")).counters.messages_dropped
    assert len(bad) >= dropped, "and maybe one whose answer came too late"
    kv = await one.client()
    value = await kv.get(b"k")
    assert value is not None
    assert len(value) == (40 - dropped if lost == "requests" else 40)


async def test_an_answer_does_not_pass_a_link_that_was_cut_meanwhile(steady_three: LocalCluster) -> None:
    """The request passed while the link was whole; the answer OUTCOME_UNKNOWN is lost on the cut link."""
    three = steady_three
    leader = await three.leader()
    once = await three.client(only=[leader], rpc_timeout=PATIENCE_S, retry_budget=0.0)
    await once.put(b"k", b"0")
    await three.set_links(
        [LinkRule(from_id=leader, to_id="*", cut=True), LinkRule(from_id="*", to_id=leader, cut=True)]
    )
    write = asyncio.create_task(once.put(b"k", b"1"))

    async def appended() -> bool:
        return (await three.status(leader)).pending_operations > 0

    await eventually(appended, "the write waits for a quorum")
    await three.set_links(
        [LinkRule(from_id=a, to_id=b, cut=True) for a, b in ((leader, "*"), ("*", leader), (leader, "clients"))]
    )

    async def answered() -> bool:
        return (await three.status(leader)).pending_operations == 0

    await eventually(answered, "check quorum ends the write")
    await three.heal()
    await asyncio.gather(once.get(b"k"), return_exceptions=True)  # its answer comes later on the same stream
    assert not write.done(), "it was answered, to nobody"
    await once.close()
    with pytest.raises(OperationUnknown):
        await write


async def test_a_client_that_does_not_read_is_not_read_from(tmp_path: Path) -> None:
    """The node buffers answers up to a bound, and then reads no more requests."""
    async with LocalCluster(tmp_path, 1) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", bytes(500_000))
        async with grpc.aio.insecure_channel(cluster.address("n1")) as channel:
            call = kv_pb2_grpc.KVStub(channel).Execute()
            for i in range(400):
                try:
                    async with asyncio.timeout(2.0):
                        get = kv_pb2.Operation(id=i, kind=kv_pb2.GET, key=b"k")
                        await call.write(kv_pb2.OperationBatch(operations=[get]))
                except TimeoutError:
                    break
            resident = (await cluster.status("n1")).resident_bytes
            assert resident < 130_000_000, "400 answers of 500 kB are 200 MB"
            call.cancel()


async def test_append_is_applied_once_under_retries(three: LocalCluster) -> None:
    """Of all messages to and from clients, 30 % are lost; every append takes effect once (section 8)."""
    await three.leader()
    await three.set_links(
        [LinkRule(from_id="clients", to_id="*", drop=0.3), LinkRule(from_id="*", to_id="clients", drop=0.3)]
    )
    kv = await three.client(rpc_timeout=0.3, retry_budget=30.0)
    lengths = await asyncio.gather(*(kv.append(b"k", b"x") for _ in range(60)))
    assert sorted(lengths) == list(range(1, 61)), "each append found another length"
    await three.heal()
    assert await kv.get(b"k") == b"x" * 60
    answered = [s.counters.duplicates_answered for s in (await three.statuses()).values()]
    assert max(answered) > 0, "some retry should have been answered from the session table"


async def test_sessions_survive_leader_change_and_restart_of_every_node(three: LocalCluster) -> None:
    async def call(request: kv_pb2.AppendRequest) -> int:
        """The length that the present leader answers."""
        leader = await three.leader()
        async with grpc.aio.insecure_channel(three.address(leader)) as channel:
            return (await kv_pb2_grpc.KVStub(channel).Append(request, timeout=PATIENCE_S)).length

    leader = await three.leader()
    async with grpc.aio.insecure_channel(three.address(leader)) as channel:
        asked = kv_pb2_grpc.KVStub(channel).OpenSession(kv_pb2.OpenSessionRequest(), timeout=PATIENCE_S)
        session = (await asked).session_id
    request = kv_pb2.AppendRequest(key=b"k", value=b"abc", session_id=session, sequence=1)
    assert await call(request) == 3
    await three.kill(leader)
    await three.leader(three.others(leader))
    assert await call(request) == 3
    await three.restart(leader)
    await three.kill(*three.node_ids)
    await three.restart(*three.node_ids)
    assert await call(request) == 3
    assert await (await three.client()).get(b"k") == b"abc"


@pytest.mark.parametrize("nodes", [3, 5])
async def test_a_paused_leader_serves_no_stale_read_when_it_wakes(tmp_path: Path, nodes: int) -> None:
    """A heartbeat round that began after a read must confirm it, however long the leader was paused (section 8)."""
    async with LocalCluster(tmp_path, nodes) as cluster:
        await wakes_without_stale_reads(cluster)


async def wakes_without_stale_reads(cluster: LocalCluster) -> None:
    kv = await cluster.client()
    await kv.put(b"k", b"old")
    old = await cluster.leader()
    sleeper = await cluster.client(only=[old], rpc_timeout=3.0, retry_budget=0.0)
    assert await sleeper.get(b"k") == b"old"
    await cluster.pause(old)
    reads = [asyncio.create_task(sleeper.get(b"k")) for _ in range(5)]  # they wait in the socket of the paused leader
    new = await cluster.leader(cluster.others(old))
    there = await cluster.client(only=cluster.others(old))
    await there.put(b"k", b"new")
    await cluster.resume(old)
    outcomes = await asyncio.gather(*reads, return_exceptions=True)
    assert b"old" not in outcomes, f"stale: {outcomes}"
    assert all(o == b"new" or isinstance(o, OperationFailed) for o in outcomes), outcomes
    assert new != old
    await sleeper.close()
    await there.close()


async def test_concurrent_clients_on_one_key(three: LocalCluster) -> None:
    """Of several compare-and-swaps from one value, exactly one wins each time."""
    clients = [await three.client() for _ in range(4)]
    await clients[0].put(b"k", b"0")
    for i in range(15):
        expected, values = b"%d" % i, [b"%d" % (i + 1)] * 4
        swaps = await asyncio.gather(
            *(c.compare_and_swap(b"k", expected, v) for c, v in zip(clients, values, strict=True))
        )
        assert sum(swap.swapped for swap in swaps) == 1
    assert await clients[0].get(b"k") == b"15"


async def test_reads_see_what_was_acknowledged_before_them(five: LocalCluster) -> None:
    writer, reader = await five.client(), await five.client()
    for i in range(100):
        await writer.put(b"k", b"%d" % i)
        assert await reader.get(b"k") == b"%d" % i


async def test_all_operations_and_any_bytes(three: LocalCluster) -> None:
    kv = await three.client()
    key, value = bytes(range(256)), bytes(reversed(range(256)))
    assert await kv.get(key) is None
    assert await kv.delete(key) is False
    assert (await kv.compare_and_swap(key, None, value)).swapped
    swap = await kv.compare_and_swap(key, None, b"other")
    assert not swap.swapped
    assert swap.current == value
    assert await kv.append(key, b"!") == 257
    assert await kv.get(key) == value + b"!"
    assert await kv.delete(key) is True
    assert await kv.get(key) is None
    await kv.put(key, b"")
    assert await kv.get(key) == b""


async def test_large_values_pass(three: LocalCluster) -> None:
    kv = await three.client(rpc_timeout=10.0, retry_budget=30.0)
    value = bytes(1024 * 1024)
    await asyncio.gather(*(kv.put(b"k%d" % i, value) for i in range(12)))
    assert await asyncio.gather(*(kv.get(b"k%d" % i) for i in range(12))) == [value] * 12
    await three.converged()


BAD_INPUT = [
    (lambda kv: kv.put(b"", b"v"), "BAD_ARGUMENT", "key"),
    (lambda kv: kv.put(b"k" * 1025, b"v"), "BAD_ARGUMENT", "1024"),
    (lambda kv: kv.put(b"k", bytes(1024 * 1024 + 1)), "BAD_ARGUMENT", "value"),
    (lambda kv: kv.get(b""), "BAD_ARGUMENT", "key"),
]


@pytest.mark.parametrize(("call", "code", "word"), BAD_INPUT)
async def test_bad_input_fails_before_append(one: LocalCluster, call: object, code: str, word: str) -> None:
    kv = await one.client(rpc_timeout=10.0)
    await kv.put(b"session", b"open")
    before = (await one.status("n1")).last_log_index
    with pytest.raises(OperationFailed) as caught:
        await call(kv)  # type: ignore[operator]
    assert caught.value.code == code
    assert word in str(caught.value)
    assert (await one.status("n1")).last_log_index == before


async def test_a_follower_names_the_leader(three: LocalCluster) -> None:
    leader = await three.leader()
    async with grpc.aio.insecure_channel(three.address(three.others(leader)[0])) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kv_pb2_grpc.KVStub(channel).Put(kv_pb2.PutRequest(key=b"k", value=b"v"), timeout=PATIENCE_S)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        metadata = dict(caught.value.trailing_metadata() or ())
        detail = kv_pb2.ErrorDetail.FromString(metadata["raft-error-bin"])  # type: ignore[arg-type]
        assert detail.code == kv_pb2.NOT_LEADER
        assert detail.leader_hint == leader


async def test_sessions_and_sequences_are_judged(one: LocalCluster) -> None:
    async with grpc.aio.insecure_channel(one.address("n1")) as channel:
        kv = kv_pb2_grpc.KVStub(channel)
        session = (await kv.OpenSession(kv_pb2.OpenSessionRequest(), timeout=PATIENCE_S)).session_id

        async def code(session_id: int, sequence: int, value: bytes) -> str:
            request = kv_pb2.PutRequest(key=b"k", value=value, session_id=session_id, sequence=sequence)
            try:
                await kv.Put(request, timeout=PATIENCE_S)
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name} {error.details().split(':')[0]}"
            return "OK"

        assert await code(session, 5, b"five") == "OK"
        assert await code(session, 5, b"five") == "OK"
        assert await code(session, 5, b"other") == "FAILED_PRECONDITION SEQUENCE_REUSED"
        assert await code(session, 4, b"four") == "UNAVAILABLE SEQUENCE_STALE"
        assert await code(session, 0, b"zero") == "INVALID_ARGUMENT BAD_ARGUMENT"
        assert await code(999_999, 1, b"x") == "FAILED_PRECONDITION SESSION_UNKNOWN"
        assert (await kv.Get(kv_pb2.GetRequest(key=b"k"), timeout=PATIENCE_S)).value == b"five"


async def test_appended_then_leadership_lost_is_unknown(steady_three: LocalCluster) -> None:
    three = steady_three
    leader = await three.leader()
    alone = await three.client(only=[leader], rpc_timeout=10.0, retry_budget=0.0)
    await alone.put(b"k", b"v")
    await three.partition((leader,), three.others(leader))
    with pytest.raises(OperationError) as caught:
        await alone.put(b"k", b"w")
    assert isinstance(caught.value, OperationUnknown)
    assert caught.value.code == "OUTCOME_UNKNOWN"
    await three.heal()
    await alone.close()

    async def settled() -> bool:
        return await (await three.client()).get(b"k") in (b"v", b"w")

    await eventually(settled, "a leader after the heal")
