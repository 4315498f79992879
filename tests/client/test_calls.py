"""The engine with unary calls, against fake nodes: outcomes as on the stream, and the meaning of statuses."""

from __future__ import annotations

import functools

import grpc
import pytest

from raft_actor_node.client import KVClient
from raft_actor_node.client_engine import FAIL, OK, OPEN, UNKNOWN, ClientEngine
from raft_actor_node.config import ClientSettings
from raft_actor_node.kv.commands import ErrorCode
from raft_actor_node.pb import kv_pb2
from tests.client.fakes import (
    CALM,
    QUICK,
    InOrder,
    StartLoad,
    StartNodes,
    abort,
    append,
    book,
    codes,
    get,
    put,
    refuse,
    sequences,
    session,
    silent,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE_ATTEMPT = ClientSettings(rpc_timeout=10.0, retry_budget=0.0)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (ErrorCode.NOT_LEADER, FAIL),
        (ErrorCode.OVERLOADED, FAIL),
        (ErrorCode.BAD_ARGUMENT, FAIL),
        (ErrorCode.OUTCOME_UNKNOWN, UNKNOWN),
        (ErrorCode.SESSION_UNKNOWN, FAIL),
        (ErrorCode.SEQUENCE_STALE, UNKNOWN),
        (ErrorCode.SEQUENCE_REUSED, FAIL),
        (ErrorCode.VALUE_TOO_LARGE, FAIL),
    ],
)
async def test_the_detail_of_an_error_decides(
    nodes: StartNodes, load: StartLoad, code: ErrorCode, outcome: int
) -> None:
    (n1,) = await nodes(1)
    n1.default = refuse(code, message="because")
    it = await load([n1], ONE_ATTEMPT, call="unary")
    write, read = put(), get()
    await it.run(write, read)
    assert (write.outcome, write.error, write.message) == (outcome, code.name, "because")
    assert read.outcome == FAIL


@pytest.mark.parametrize("code", list(grpc.StatusCode))
async def test_without_a_detail_two_statuses_alone_mean_that_nothing_happened(
    nodes: StartNodes, load: StartLoad, code: grpc.StatusCode
) -> None:
    if code is grpc.StatusCode.OK:
        return
    (n1,) = await nodes(1)
    n1.script.append(abort(code))
    it = await load([n1], ONE_ATTEMPT, call="unary")
    write = put()
    await it.run(write)
    certain = code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
    assert (write.outcome, write.error) == (FAIL if certain else UNKNOWN, code.name)


async def test_the_end_of_a_stream_says_nothing_of_what_was_sent_on_it(nodes: StartNodes, load: StartLoad) -> None:
    """The control: the same status as above."""
    (n1,) = await nodes(1)
    n1.script.append(abort(grpc.StatusCode.FAILED_PRECONDITION))
    it = await load([n1], ONE_ATTEMPT, call="stream")
    write = put()
    await it.run(write)
    assert (write.outcome, write.error) == (UNKNOWN, "FAILED_PRECONDITION")


async def test_an_operation_goes_where_the_detail_hints(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2, n3 = await nodes(3)
    n1.default = n2.default = refuse(ErrorCode.NOT_LEADER, hint="n3")
    it = await load([n1, n2, n3], call="unary")
    first, second = put(), get()
    await it.run(first)
    assert codes(first) == ["NOT_LEADER"]
    await it.run(second)
    assert (second.attempts, second.result) == (1, b"v")
    assert not n2.operations


async def test_a_retry_has_the_same_sequence_and_takes_effect_once(nodes: StartNodes, load: StartLoad) -> None:
    """The answer is lost, so the deadline passes, and not earlier than it should."""
    (n1,) = await nodes(1)
    it = await load([n1], QUICK, call="unary")
    own = await session(it)
    n1.script.append(n1.apply_silently)
    write = append(b"x", own)
    await it.run(write)
    assert (write.outcome, write.number, codes(write)) == (OK, 1, ["DEADLINE_EXCEEDED"])
    [attempt] = write.failures
    assert attempt.end_ns - attempt.start_ns >= QUICK.rpc_timeout * 1e9
    assert len(n1.operations) == 2
    assert len(sequences(n1.operations)) == 1


async def test_calls_of_one_batch_are_under_way_together(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1], call="unary")
    n1.reading.clear()
    reads = [get() for _ in range(50)]
    it.engine.submit(reads)
    await until(lambda: len(n1.operations) == 50, "all calls are at the node")
    assert {read.outcome for read in reads} == {OPEN}
    n1.reading.set()
    await it.completed(50)
    assert {len(batch.operations) for batch in n1.batches} == {1}


async def test_a_node_that_stops_is_left_and_one_that_comes_back_is_found(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2 = await nodes(2)
    it = await load([n1, n2], call="unary")
    await it.run(put())
    assert n1.operations
    await n1.stop()
    gone = it.engine._nodes["n1"]
    await until(lambda: gone.down, "the client has noticed: without a session it would not ask twice")
    moved = put(value=b"w")
    await it.run(moved)
    assert moved.outcome == OK
    assert n2.operations
    await n1.start()  # at another port
    await n2.stop()
    it.engine.update_addresses(book([n1, n2]))
    back = get()
    await it.run(back)
    assert back.result == b"w"


async def test_what_is_under_way_at_the_end_is_unknown_and_what_was_not_sent_failed(
    nodes: StartNodes, load: StartLoad
) -> None:
    (n1,) = await nodes(1)
    n1.default = silent
    it = await load([n1], call="unary")
    sent = put()
    it.engine.submit([sent])
    await until(lambda: n1.operations, "the call is at the node")
    unsent = put()
    it.engine.submit([unsent])
    await it.engine.close()
    assert (sent.outcome, sent.error, unsent.outcome) == (UNKNOWN, "CANCELLED", FAIL)


async def test_people_may_ask_so_too(nodes: StartNodes) -> None:
    (n1,) = await nodes(1)
    engine = functools.partial(ClientEngine, rng=InOrder(), call="unary")
    async with KVClient(book([n1]), settings=CALM, engine=engine) as kv:
        await kv.put(b"k", b"v")
        assert await kv.get(b"k") == b"v"
    assert {operation.kind for operation in n1.operations} == {kv_pb2.PUT, kv_pb2.GET}
