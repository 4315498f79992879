"""The engine over real streams to fake nodes: outcomes, retries, batches. test_deadlines.py tests its deadlines."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import grpc
import pytest

from raft_actor_node.addresses import split_address
from raft_actor_node.client_engine import FAIL, OK, OPEN, UNKNOWN, Operation
from raft_actor_node.config import MESSAGE_OVERHEAD_BYTES, ClientSettings, TransportSettings
from raft_actor_node.kv.commands import Kind
from raft_actor_node.pb import kv_pb2
from raft_actor_node.units import Range
from tests.client.fakes import (
    CALM,
    QUICK,
    FakeNode,
    Load,
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


@pytest.mark.parametrize("call", ["stream", "unary"])
async def test_results_of_all_kinds(nodes: StartNodes, load: StartLoad, call: str) -> None:
    (n1,) = await nodes(1)
    it = await load([n1], call=call)
    own = await session(it)
    swap = Operation(Kind.COMPARE_AND_SWAP, b"k", b"", expected=None, session=own)
    await it.run(swap)
    assert (swap.outcome, swap.found, swap.result) == (OK, True, None)
    empty = get()
    await it.run(empty)
    assert (empty.found, empty.result) == (True, b"")
    swap = Operation(Kind.COMPARE_AND_SWAP, b"k", b"new", expected=b"old", session=own)
    await it.run(swap)
    assert (swap.outcome, swap.found, swap.result) == (OK, False, b"")
    grown = append(b"abc", own)
    await it.run(grown)
    assert (grown.outcome, grown.number) == (OK, 3)
    gone, again = (Operation(Kind.DELETE, b"k", session=own) for _ in range(2))
    await it.run(gone)
    await it.run(again)
    assert (gone.found, again.found) == (True, False)
    missing = get()
    await it.run(missing)
    assert (missing.outcome, missing.found, missing.result) == (OK, False, None)
    assert [operation.attempts for operation in it.done] == [1] * len(it.done)
    assert all(operation.failures == () and operation.error == "" for operation in it.done)
    assert it.engine.outstanding == 0


async def test_times_and_what_belongs_to_the_caller(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1])
    token = object()
    operation = Operation(Kind.PUT, b"k", b"v", intended_ns=5, token=token)
    begin = time.monotonic_ns()
    await it.run(operation)
    assert begin <= operation.start_ns < operation.end_ns <= time.monotonic_ns()
    assert operation.intended_ns == 5
    assert operation.token is token
    assert n1.batches[-1].client_id == "load"


async def test_a_read_has_no_sequence_and_may_overlap_a_write_of_its_session(
    nodes: StartNodes, load: StartLoad
) -> None:
    (n1,) = await nodes(1)
    it = await load([n1])
    own = await session(it)
    write, read = put(in_session=own), Operation(Kind.GET, b"k", session=own)
    await it.run(write, read)
    assert sequences(n1.operations) == {(own.id, 1), (0, 0)}
    assert (write.sequence, read.sequence) == (1, 0)


async def test_one_write_at_a_time_in_a_session(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1])
    own = await session(it)
    n1.script.append(silent)
    it.engine.submit([put(in_session=own)])
    with pytest.raises(AssertionError, match="outstanding"):
        it.engine.submit([put(in_session=own)])


# Batches.


async def test_what_is_submitted_in_one_tick_travels_in_one_batch(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1])
    await it.run(get())
    n1.batches.clear()
    it.engine.submit([put() for _ in range(50)])
    it.engine.submit([get()])
    it.engine.submit([put() for _ in range(49)])
    await it.completed(101)
    assert [len(batch.operations) for batch in n1.batches] == [100]
    assert [len(done) for done in it.lists] == [1, 100]


async def test_what_on_done_submits_travels_in_one_batch(nodes: StartNodes, load: StartLoad) -> None:
    """A closed loop of 64 clients exchanges one batch of 64 per round trip."""
    (n1,) = await nodes(1)
    it = await load([n1])
    own = await it.engine.open_sessions(64)
    n1.batches.clear()
    rounds = 20
    it.then = lambda done: (
        it.engine.submit([put(in_session=each.session) for each in done]) if len(it.done) < 64 * rounds else None
    )
    it.engine.submit([put(in_session=each) for each in own])
    await it.completed(64 * rounds)
    assert [len(batch.operations) for batch in n1.batches] == [64] * rounds
    assert {each.sequence for each in own} == {rounds}


async def test_on_done_is_never_called_from_within_submit(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1], ONE_ATTEMPT)
    it.engine.update_addresses({})
    it.engine.submit([put()])
    assert it.done == []
    (operation,) = await it.completed(1)
    assert (operation.outcome, operation.error, operation.message) == (UNKNOWN, "UNAVAILABLE", "no address is known")


async def test_batches_are_cut_to_the_size_of_a_message(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    room = 1 << 20
    transport = TransportSettings(message_bytes=room + MESSAGE_OVERHEAD_BYTES, connect_timeout=10.0)
    it = await load([n1], transport=transport)
    operations = [put(b"k%d" % i, bytes(300_000)) for i in range(8)]
    await it.run(*operations)
    assert [operation.outcome for operation in operations] == [OK] * 8
    assert [len(batch.operations) for batch in n1.batches] == [3, 3, 2]
    assert max(batch.ByteSize() for batch in n1.batches) <= room


async def test_what_fits_into_no_message_fails_and_harms_nobody(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1], transport=TransportSettings(message_bytes=256 * 1024, connect_timeout=10.0))
    large, small = put(value=bytes(200 * 1024)), put()
    await it.run(small, large, put())
    assert (large.outcome, large.error) == (FAIL, "BAD_ARGUMENT")
    assert [operation.outcome for operation in it.done].count(OK) == 2
    assert len(n1.operations) == 2


# Outcomes.


async def test_a_write_without_session_is_never_tried_again_after_an_ambiguous_attempt(
    nodes: StartNodes, load: StartLoad
) -> None:
    n1, n2 = await nodes(2)
    it = await load([n1, n2])
    for step in (refuse(kv_pb2.OUTCOME_UNKNOWN), abort()):
        n1.script.append(step)
        n2.script.append(step)
        operation = append(b"x")
        await it.run(operation)
        assert (operation.outcome, operation.attempts) == (UNKNOWN, 1)
        n1.script.clear()
        n2.script.clear()
    assert len(n1.operations) + len(n2.operations) == 2


async def test_a_write_without_session_is_tried_again_as_long_as_nothing_was_appended(
    nodes: StartNodes, load: StartLoad
) -> None:
    n1, n2 = await nodes(2)
    it = await load([n1, n2])
    n1.script.extend([refuse(kv_pb2.NOT_LEADER, "n2"), refuse(kv_pb2.OVERLOADED)])
    n2.script.append(refuse(kv_pb2.NOT_LEADER))
    (operation,) = await it.run(append(b"x"))
    assert operation.outcome == OK
    assert codes(operation) == ["NOT_LEADER", "NOT_LEADER", "OVERLOADED"]


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (silent, "DEADLINE_EXCEEDED"),
        (refuse(kv_pb2.OUTCOME_UNKNOWN), "OUTCOME_UNKNOWN"),
        (abort(), "UNAVAILABLE"),
        (abort(grpc.StatusCode.CANCELLED), "CANCELLED"),
        (abort(grpc.StatusCode.RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED"),
        (abort(grpc.StatusCode.FAILED_PRECONDITION), "FAILED_PRECONDITION"),
        (refuse(77), "ERROR_77"),
    ],
)
@pytest.mark.parametrize("applied", [True, False])
async def test_a_retry_after_an_ambiguous_attempt_gets_the_original_result(
    nodes: StartNodes, load: StartLoad, step: object, code: str, applied: bool
) -> None:
    """With the same session and sequence the operation takes effect once, whether or not the lost attempt did (8)."""
    (n1,) = await nodes(1)
    it = await load([n1], QUICK if step is silent else CALM)
    own = await session(it)

    def lossy(operation: kv_pb2.Operation) -> kv_pb2.OperationResult | None:
        if applied:
            n1.apply(operation)
        return step(operation)  # type: ignore[operator, no-any-return]

    n1.script.append(lossy)
    (operation,) = await it.run(append(b"abc", own))
    assert (operation.outcome, operation.number, operation.error) == (OK, 3, "")
    # After the end of a stream, some attempts may find no open stream yet.
    assert codes(operation)[0] == code
    assert set(codes(operation)[1:]) <= {"UNAVAILABLE"}
    assert len(n1.operations) == 2
    assert sequences(n1.operations) == {(own.id, 1)}
    if step is silent:
        assert len(n1.streams) == 1, "the stream goes on"
    assert n1.store.get(b"k") == b"abc"


async def test_what_can_not_end_better_is_not_tried_again(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1])
    for code in ("BAD_ARGUMENT", "SESSION_UNKNOWN", "SEQUENCE_STALE", "SEQUENCE_REUSED", "VALUE_TOO_LARGE"):
        n1.script.append(refuse(kv_pb2.ErrorCode.Value(code)))
        (operation,) = await it.run(put())
        assert (operation.error, operation.attempts) == (code, 1)


async def test_bad_input_is_told_by_the_node(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1])
    (operation,) = await it.run(put(key=b""))
    assert (operation.outcome, operation.error) == (FAIL, "BAD_ARGUMENT")
    assert operation.message == "key: must not be empty"


# The nodes to which attempts go.


async def test_a_hint_is_followed_at_once_and_remembered(nodes: StartNodes, load: StartLoad) -> None:
    """A server that is not the leader rejects a request and names the leader, which the client asks next (8)."""
    n1, n2, n3 = await nodes(3)
    it = await load([n1, n2, n3], ClientSettings(rpc_timeout=10.0, retry_backoff=Range(30.0, 30.0), retry_budget=60.0))
    n1.default = n2.default = refuse(kv_pb2.NOT_LEADER, "n3")
    (operation,) = await it.run(put())
    assert operation.outcome == OK
    assert [attempt.node_id for attempt in operation.failures] == ["n1"]
    assert it.engine.leader == "n3"
    await it.run(put())
    assert (len(n1.operations), len(n2.operations), len(n3.operations)) == (1, 0, 2)


async def test_without_a_hint_the_next_node_is_tried_after_a_pause(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2, n3 = await nodes(3)
    it = await load([n1, n2, n3], ClientSettings(rpc_timeout=10.0, retry_backoff=Range(0.05, 0.05)))
    n1.default = n2.default = refuse(kv_pb2.NOT_LEADER)
    (operation,) = await it.run(put())
    assert operation.outcome == OK
    assert [attempt.node_id for attempt in operation.failures] == ["n1", "n2"]
    first, second = operation.failures
    assert (second.start_ns - first.end_ns) / 1e9 >= 0.025, "half of the pause is jitter"
    assert it.engine.leader == "n3"


async def test_a_client_begins_at_a_random_node(nodes: StartNodes, load: StartLoad) -> None:
    """When a client starts it connects to a randomly chosen server (paper, section 8)."""
    targets = await nodes(3)
    engines = [await load(targets, rng=random.Random(seed)) for seed in range(30)]
    for it in engines:
        await it.run(get())
        assert it.done[0].attempts == 1
    begun = Counter(it.engine.leader for it in engines)
    assert set(begun) == {"n1", "n2", "n3"}
    assert max(begun.values()) < 20, "not one of them before the others"


async def test_after_a_crash_a_client_goes_on_at_random_among_the_others(nodes: StartNodes, load: StartLoad) -> None:
    """When the leader crashes, clients retry with randomly chosen servers (paper, section 8).

    The engine tries every other node before it tries one twice.
    """
    targets = await nodes(5)
    crashed, *others = targets
    engines = [await load(targets, rng=random.Random(seed)) for seed in range(30)]
    for other in others:
        other.default = refuse(kv_pb2.NOT_LEADER, "n1")
    for it in engines:
        await it.run(get())
        assert it.engine.leader == "n1", "a hint comes before chance"
    await crashed.stop()
    for other in others:
        other.default = refuse(kv_pb2.NOT_LEADER)
    targets[4].default = targets[4].apply
    asked = []
    for it in engines:
        (operation,) = await it.run(get())
        asked.append([attempt.node_id for attempt in operation.failures if attempt.node_id != "n1"])
        assert operation.outcome == OK
        assert len(set(asked[-1])) == len(asked[-1]), "nobody twice"
        assert it.engine.leader == "n5"
    assert {(*tried, "n5")[0] for tried in asked} == {"n2", "n3", "n4", "n5"}
    assert len(set(map(tuple, asked))) > 5, "in many orders"


async def test_hints_are_of_no_use_without_node_ids(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2 = await nodes(2)
    it = await load(iter([n1.address, n2.address]))
    n1.default = refuse(kv_pb2.NOT_LEADER, "n2")
    (operation,) = await it.run(put())
    assert operation.outcome == OK
    assert it.engine.leader == n2.address


async def test_a_node_that_is_down_is_left_at_once(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2 = await nodes(2)
    await n1.stop()
    it = await load([n1, n2])
    own = await session(it)
    (operation,) = await it.run(put(in_session=own))
    assert operation.outcome == OK
    assert (operation.end_ns - operation.start_ns) / 1e9 < 5.0, "far from the deadline of 10 s"
    assert it.engine.leader == "n2"


async def test_a_refused_connection_is_unavailable_and_of_unknown_outcome(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    await n1.stop()
    it = await load([n1], ClientSettings(rpc_timeout=30.0, retry_budget=0.0))
    write, read = await it.run(put(), get())
    assert (write.outcome, write.error, write.attempts) == (UNKNOWN, "UNAVAILABLE", 1)
    assert (read.outcome, read.error, read.attempts) == (FAIL, "UNAVAILABLE", 1)
    assert "refused" in write.message.lower()


async def test_what_was_never_sent_is_not_ambiguous(nodes: StartNodes, load: StartLoad) -> None:
    """A write without session goes to the next node after a refused connection, and may fail there."""
    n1, n2 = await nodes(2)
    await n1.stop()
    it = await load([n1, n2])
    n2.script.append(refuse(kv_pb2.BAD_ARGUMENT))
    (operation,) = await it.run(put())
    assert (operation.outcome, codes(operation)) == (FAIL, ["UNAVAILABLE", "BAD_ARGUMENT"])


async def test_a_broken_stream_ends_what_it_carried_and_is_opened_again(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2 = await nodes(2)
    it = await load([n1, n2])
    own = await it.engine.open_sessions(10)
    n1.default = silent
    it.engine.submit([put(in_session=each) for each in own])
    await until(lambda: len(n1.operations) == 10, "all sent")
    await n1.stop()
    await it.completed(10)
    assert {(each.outcome, *codes(each)) for each in it.done} == {(OK, "UNAVAILABLE")}
    assert sequences(n1.operations) == sequences(n2.operations)


async def test_a_silent_leader_is_left_by_all(nodes: StartNodes, load: StartLoad) -> None:
    """If the leader crashes, requests time out, and clients retry with other servers (8)."""
    n1, n2 = await nodes(2)
    it = await load([n1, n2], QUICK)
    first, second = await it.engine.open_sessions(2)
    n1.default = silent
    await it.run(put(in_session=first))
    assert it.engine.leader == "n2"
    await it.run(put(in_session=second))
    assert it.done[-1].attempts == 1


async def test_a_paused_node_holds_up_nobody_else(nodes: StartNodes, load: StartLoad) -> None:
    """The paused node accepts connections but reads nothing: its stream blocks; operations keep their deadlines."""
    n1, n2 = await nodes(2)
    it = await load([n1, n2], ClientSettings(rpc_timeout=1.0, retry_budget=60.0))
    own = await (await load([n1, n2])).engine.open_sessions(24)
    n1.reading.clear()
    operations = [put(b"k%d" % i, bytes(1 << 20), each) for i, each in enumerate(own)]
    await it.run(*operations)
    assert {operation.outcome for operation in operations} == {OK}
    for operation in operations:
        attempt = operation.failures[0]
        assert (attempt.node_id, attempt.outcome) == ("n1", "DEADLINE_EXCEEDED")
        assert 1.0 <= (attempt.end_ns - attempt.start_ns) / 1e9 < 3.0
    assert it.engine.leader == "n2"


async def test_what_expired_before_it_was_sent_is_never_sent(nodes: StartNodes, load: StartLoad) -> None:
    """The kernel of a stopped node accepts the connection; the node reads from it when it resumes."""
    (n1,) = await nodes(1)
    resumed = asyncio.Event()

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await resumed.wait()
        from_node, to_node = await asyncio.open_connection(*split_address(n1.address))
        await asyncio.gather(pipe(reader, to_node), pipe(from_node, writer))

    relays = await asyncio.start_server(relay, "127.0.0.1", 0)
    address = f"127.0.0.1:{relays.sockets[0].getsockname()[1]}"
    once = ClientSettings(rpc_timeout=0.5, retry_budget=0.0)
    it = await load([address], once, transport=TransportSettings(connect_timeout=60.0))
    early = await it.run(put(b"early"), put(b"early"))
    assert {(each.outcome, each.error) for each in early} == {(UNKNOWN, "DEADLINE_EXCEEDED")}
    resumed.set()
    last = put(b"last")
    while last.outcome != OK:
        (last,) = await it.run(put(b"last"))
    assert {each.key for each in n1.operations} == {b"last"}
    await it.engine.close()
    relays.close()


async def test_a_silent_node_is_connected_to_afresh(nodes: StartNodes, load: StartLoad) -> None:
    """A connection that a network outage has slowed down must not outlast the outage.

    Operations that are sent meanwhile end like unanswered ones, at their deadline.
    """
    (n1,) = await nodes(1)
    it = await load([n1], ClientSettings(rpc_timeout=0.1, retry_budget=0.0))
    n1.default = silent
    while len(n1.streams) < 3:
        await it.run(put())
    for operation in it.done:
        assert operation.error == "DEADLINE_EXCEEDED"
        assert operation.end_ns - operation.start_ns >= 0.1e9
    n1.default = n1.apply
    while it.done[-1].outcome != OK:
        await it.run(put())


# Addresses.


async def test_a_new_address_is_connected_to_at_once(nodes: StartNodes, load: StartLoad) -> None:
    old, new = await nodes(2)
    it = await load([old])
    own = await session(it)
    old.default = silent
    it.engine.submit([put(in_session=own)])
    await until(lambda: old.operations, "sent")
    it.engine.update_addresses(book([new]))
    (operation,) = await it.completed(1)
    assert (operation.outcome, codes(operation)) == (OK, ["UNAVAILABLE"])
    assert (operation.end_ns - operation.failures[0].end_ns) / 1e9 < 5.0
    assert sequences(new.operations) == {(own.id, 1)}


async def test_a_known_address_keeps_its_stream(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2 = await nodes(2)
    it = await load([n1, n2])
    await it.run(put())
    it.engine.update_addresses(book([n1]))
    it.engine.update_addresses(book([n1, n2]))
    await it.run(put())
    assert len(n1.streams) == 1


async def test_operations_wait_for_an_address(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load({})
    assert it.engine.leader is None
    it.engine.submit([put()])
    await until(lambda: it.engine.outstanding == 1, "submitted")
    it.engine.update_addresses(book([n1]))
    (operation,) = await it.completed(1)
    assert operation.outcome == OK
    assert {attempt.node_id for attempt in operation.failures} == {""}


# Sessions, and closing the engine.


async def test_a_session_that_cannot_be_opened(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1], ONE_ATTEMPT)
    n1.default = refuse(kv_pb2.OVERLOADED, message="too many")
    with pytest.raises(Exception, match="open session: OVERLOADED after 1 attempt: too many"):
        await it.engine.open_sessions(3)
    assert it.engine.outstanding == 0


async def test_close_ends_everything_truthfully(nodes: StartNodes, load: StartLoad) -> None:
    n1, n2 = await nodes(2)
    it = await load([n1, n2], ClientSettings(rpc_timeout=60.0, retry_budget=60.0, retry_backoff=Range(50.0, 50.0)))
    first, second = await it.engine.open_sessions(2)
    n1.script.extend([silent, silent, refuse(kv_pb2.NOT_LEADER), refuse(kv_pb2.OUTCOME_UNKNOWN)])
    sent, read, refused, ambiguous = operations = [put(in_session=first), get(), put(), put(in_session=second)]
    it.engine.submit(operations)
    await until(lambda: refused.error and ambiguous.error, "answers")
    never_sent = put()
    it.engine.submit([never_sent])
    refusals: list[str] = []

    def submit_more(_: list[Operation]) -> None:
        with pytest.raises(RuntimeError) as caught:
            it.engine.submit([put()])
        refusals.append(str(caught.value))

    it.then = submit_more
    await it.engine.close()
    assert len(refusals) == 1
    assert {each.error for each in it.done} == {"CANCELLED"}
    outcomes = [each.outcome for each in (sent, read, refused, ambiguous, never_sent)]
    assert outcomes == [UNKNOWN, FAIL, FAIL, UNKNOWN, FAIL]
    assert (it.engine.outstanding, len(it.done)) == (0, 5)
    await it.engine.close()


async def test_close_tells_those_who_open_sessions(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    it = await load([n1])
    n1.default = silent
    opening = asyncio.create_task(it.engine.open_sessions(1))
    await until(lambda: n1.batches, "sent")
    await it.engine.close()
    with pytest.raises(Exception, match="CANCELLED"):
        await opening


async def test_an_engine_must_be_started(nodes: StartNodes) -> None:
    (n1,) = await nodes(1)
    it = Load(book([n1]))
    with pytest.raises(RuntimeError, match="not started"):
        it.engine.submit([put()])
    it.engine.update_addresses(book([n1]))
    await it.engine.close()


async def test_the_clock_can_be_replaced(nodes: StartNodes, load: StartLoad) -> None:
    (n1,) = await nodes(1)
    ticks = iter(range(1000))
    it = await load([n1], clock=lambda: next(ticks))
    (operation,) = await it.run(get())
    assert operation.outcome == OK
    assert 0 <= operation.start_ns < operation.end_ns < 1000


async def test_many_faults_at_once_lose_no_operation(nodes: StartNodes, load: StartLoad) -> None:
    """Every operation completes once: what is OK was applied once, and what failed was not applied."""
    cluster = await nodes(3)
    it = await load(cluster, ClientSettings(rpc_timeout=0.03, retry_budget=1.0, retry_backoff=Range(0.001, 0.005)))
    own = await it.engine.open_sessions(32)

    def flaky(node: FakeNode) -> object:
        count = 0

        def step(operation: kv_pb2.Operation) -> kv_pb2.OperationResult | None:
            nonlocal count
            count += 1
            faults = {
                3: silent,
                5: node.apply_silently,
                7: refuse(kv_pb2.NOT_LEADER, "n2"),
                11: refuse(kv_pb2.OUTCOME_UNKNOWN),
                191: abort(),
            }
            chosen = next((fault for each, fault in faults.items() if count % each == 0), node.apply)
            return chosen(operation)

        return step

    for node in cluster:
        node.default = flaky(node)  # type: ignore[assignment]
    total = 1500
    it.then = lambda done: (
        it.engine.submit([append(b"x", each.session) for each in done]) if len(it.done) < total else None
    )
    it.engine.submit([append(b"x", each) for each in own])
    # The last operations may be complete, but reported only in the next turn of the loop.
    await until(lambda: len(it.done) >= total and not it.engine.outstanding and not it.engine._done, "all completed")
    assert len({id(operation) for operation in it.done}) == len(it.done)
    lengths = [operation.number for operation in it.done if operation.outcome == OK]
    assert len(set(lengths)) == len(lengths), "two appends cannot end at the same length"
    unknown = sum(operation.outcome == UNKNOWN for operation in it.done)
    final = len(cluster[0].store.get(b"k") or b"")
    assert len(lengths) <= final <= len(lengths) + unknown
    assert all(operation.outcome != OPEN for operation in it.done)
