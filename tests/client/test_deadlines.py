"""Deadlines, budgets, pauses and late answers of the engine and of KVClient, in virtual time: exact on any machine."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from orchestration.sim_cluster import SimLoop, run_virtual
from raft_actor_node.client import KVClient
from raft_actor_node.client_engine import FAIL, OK, OPEN, UNKNOWN, ClientEngine
from raft_actor_node.config import ClientSettings
from raft_actor_node.errors import OperationFailed, OperationUnknown
from raft_actor_node.kv.store import Store
from raft_actor_node.pb import kv_pb2
from raft_actor_node.units import Range
from tests.client.fakes import (
    QUICK,
    DirectLink,
    FakeNode,
    InOrder,
    Load,
    append,
    book,
    codes,
    get,
    put,
    refuse,
    session,
    silent,
    until,
)

ONE_ATTEMPT = ClientSettings(rpc_timeout=0.5, retry_budget=0.0)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop of its own in virtual time."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_virtual(lambda: test(**arguments))

    return run


def fakes(count: int) -> tuple[list[FakeNode], dict[str, Any]]:
    """Nodes that share one store, and the links of an engine to them without gRPC."""
    store = Store(value_bytes=1 << 20)
    nodes = {f"address:{i + 1}": FakeNode(store) for i in range(count)}
    for address, node in nodes.items():
        node.address = address
    loop = cast("SimLoop", asyncio.get_running_loop())
    return [*nodes.values()], {
        "clock": loop.now_ns,
        "link": lambda address, _, owner: DirectLink(nodes[address], owner),
    }


async def load(count: int, settings: ClientSettings) -> tuple[Load, list[FakeNode]]:
    """An engine, and the nodes n1, n2, ... in the order in which it tries them."""
    nodes, options = fakes(count)
    it = Load(book(nodes), settings, **options)
    it.engine.start()
    return it, nodes


def client(count: int, settings: ClientSettings) -> tuple[KVClient, list[FakeNode]]:
    """As `load`, with the engine's interface for users."""
    nodes, options = fakes(count)
    engine = functools.partial(ClientEngine, rng=InOrder(), **options)
    return KVClient(book(nodes), settings=settings, client_id="me", engine=engine), nodes


# Deadlines.


@pytest.mark.parametrize("with_session", [True, False])
@virtual
async def test_silence_is_deadline_exceeded_at_the_deadline(with_session: bool) -> None:
    it, (n1,) = await load(1, ONE_ATTEMPT)
    own = await session(it) if with_session else None
    n1.script.extend([silent, n1.apply, silent])
    write, unharmed, read = await it.run(put(in_session=own), put(), get())
    assert (write.outcome, write.error, write.attempts) == (UNKNOWN, "DEADLINE_EXCEEDED", 1)
    assert (read.outcome, read.error, read.attempts) == (FAIL, "DEADLINE_EXCEEDED", 1)
    assert unharmed.outcome == OK
    for operation in (write, read):
        (attempt,) = operation.failures
        assert (attempt.node_id, attempt.outcome) == ("n1", "DEADLINE_EXCEEDED")
        assert 0.5 <= (attempt.end_ns - attempt.start_ns) / 1e9 < 0.503
    assert len(n1.streams) == 1, "the stream goes on"


@virtual
async def test_a_write_without_session_is_never_tried_again_after_silence() -> None:
    it, (n1, n2) = await load(2, QUICK)
    n1.script.append(silent)
    (operation,) = await it.run(append(b"x"))
    assert (operation.outcome, operation.attempts) == (UNKNOWN, 1)
    assert (len(n1.operations), len(n2.operations)) == (1, 0)


@virtual
async def test_one_attempt_when_there_is_no_budget() -> None:
    it, (n1, n2) = await load(2, ONE_ATTEMPT)
    n1.default = refuse(kv_pb2.NOT_LEADER, "n2")
    (operation,) = await it.run(put())
    assert (operation.outcome, operation.attempts, codes(operation)) == (FAIL, 1, ["NOT_LEADER"])
    assert it.engine.leader == "n2", "the next operation profits"
    (operation,) = await it.run(put())
    assert operation.outcome == OK
    n2.default = silent
    await it.run(put())
    assert it.engine.leader == "n1"


@virtual
async def test_the_budget_ends_the_retries() -> None:
    it, (n1, n2) = await load(2, ClientSettings(rpc_timeout=0.05, retry_budget=0.3, retry_backoff=Range(0.01, 0.05)))
    own = await session(it)
    n1.default = n2.default = silent
    write, read = await it.run(put(in_session=own), get())
    assert (write.outcome, read.outcome) == (UNKNOWN, FAIL)
    for operation in (write, read):
        assert operation.attempts == 6, "three back to back, a pause of 5 to 10 ms, and again"
        assert 0.3 <= (operation.end_ns - operation.start_ns) / 1e9 < 0.35
        assert {attempt.node_id for attempt in operation.failures} == {"n1", "n2"}
        starts = [attempt.start_ns for attempt in operation.failures]
        assert all(start - operation.start_ns < 0.3e9 for start in starts)


@virtual
async def test_nodes_that_point_at_one_another_are_not_asked_without_pause() -> None:
    it, (n1, n2) = await load(2, ClientSettings(retry_backoff=Range(0.05, 0.05), retry_budget=0.5))
    n1.default, n2.default = refuse(kv_pb2.NOT_LEADER, "n2"), refuse(kv_pb2.NOT_LEADER, "n1")
    (operation,) = await it.run(put())
    assert operation.outcome == FAIL
    starts = [attempt.start_ns / 1e9 for attempt in operation.failures]
    pauses = [later - earlier for earlier, later in zip(starts, starts[3:], strict=False)]
    assert len(pauses) > 20
    assert all(0.025 <= pause <= 0.06 for pause in pauses), "three attempts, a pause of 25 to 50 ms, and so on"


@pytest.mark.parametrize(
    ("code", "alone", "after_another"),
    [
        (kv_pb2.NOT_LEADER, FAIL, UNKNOWN),
        (kv_pb2.OVERLOADED, FAIL, UNKNOWN),
        (kv_pb2.BAD_ARGUMENT, FAIL, UNKNOWN),
        (kv_pb2.SESSION_UNKNOWN, FAIL, UNKNOWN),
        (kv_pb2.SEQUENCE_REUSED, FAIL, UNKNOWN),
        (kv_pb2.SEQUENCE_STALE, UNKNOWN, UNKNOWN),
        (kv_pb2.OUTCOME_UNKNOWN, UNKNOWN, UNKNOWN),
        # The session remembers the operation: whichever attempt was applied, it had no effect.
        (kv_pb2.VALUE_TOO_LARGE, FAIL, FAIL),
    ],
)
@virtual
async def test_outcome_of_each_error(code: int, alone: int, after_another: int) -> None:
    """`fail` only if no attempt was ambiguous; a read fails with any error (behaviour, section 1)."""
    it, (n1,) = await load(1, ClientSettings(retry_budget=0.3, retry_backoff=Range(0.005, 0.02)))
    first, second = await it.engine.open_sessions(2)
    n1.default = refuse(code, message="because")
    write, read = await it.run(put(in_session=first), get())
    n1.script.append(refuse(kv_pb2.OUTCOME_UNKNOWN))
    (later,) = await it.run(put(in_session=second))
    name = kv_pb2.ErrorCode.Name(cast("kv_pb2.ErrorCode", code))
    assert (write.outcome, write.error, write.message) == (alone, name, "because")
    assert (read.outcome, read.error) == (FAIL, name)
    assert (later.outcome, later.error) == (after_another, name)
    assert codes(later)[:2] == ["OUTCOME_UNKNOWN", name]


# Silence: which nodes the engine leaves, and which it keeps.


@virtual
async def test_one_lost_message_does_not_drive_the_others_from_the_leader() -> None:
    it, (n1, n2) = await load(2, QUICK)
    n2.default = refuse(kv_pb2.NOT_LEADER, "n1")
    own = await session(it)
    n1.script.append(silent)
    lost = put(in_session=own)
    it.engine.submit([lost])
    while lost.outcome == OPEN:
        (other,) = await it.run(get())
        assert other.attempts == 1
    assert it.engine.leader == "n1"
    assert codes(lost) == ["DEADLINE_EXCEEDED", "NOT_LEADER"]
    assert len(n2.operations) == 1


@virtual
async def test_a_silent_leader_is_left_also_when_a_node_beside_it_names_it() -> None:
    """A leader in a minority without check quorum answers no request, and its followers still name it."""
    it, (n1, n2, n3) = await load(3, QUICK)
    n1.default = silent
    n2.default = refuse(kv_pb2.NOT_LEADER, hint="n1")
    done = await it.run(*(get() for _ in range(20)))
    assert {operation.outcome for operation in done} == {OK}
    assert len(n3.operations) == 20
    assert len(n1.operations) <= 40, "each was there once, and perhaps once more"
    assert it.engine.leader == "n3"


@virtual
async def test_a_late_answer_completes_an_operation_that_is_still_open() -> None:
    it, (n1, n2) = await load(2, QUICK)
    own = await session(it)
    n1.default = n2.default = silent
    operation = append(b"abc", own)
    it.engine.submit([operation])
    await until(lambda: len(n2.operations) == 1, "a second attempt")
    await n1.answer(n1.apply(n1.operations[0]))
    await it.completed(1)
    assert (operation.outcome, operation.number, operation.attempts) == (OK, 3, 2)
    await n2.answer(n2.apply(n2.operations[0]))
    n1.default = n2.default = n1.apply
    await it.run(get())
    assert len(it.done) == 2, "the other answer is of no interest any more"


@virtual
async def test_a_late_answer_to_a_completed_operation_is_ignored() -> None:
    it, (n1,) = await load(1, ONE_ATTEMPT)
    n1.script.append(silent)
    (operation,) = await it.run(put())
    await n1.answer(kv_pb2.OperationResult(id=n1.operations[0].id))
    await n1.answer(kv_pb2.OperationResult(id=n1.operations[0].id))
    await n1.answer(kv_pb2.OperationResult(id=987_654_321))
    await it.run(get())
    assert (operation.outcome, len(it.done)) == (UNKNOWN, 2)


@virtual
async def test_sessions_are_opened_in_one_batch_and_retried() -> None:
    it, (n1, n2) = await load(2, QUICK)
    n1.default = silent
    sessions = await it.engine.open_sessions(50)
    assert len({each.id for each in sessions}) == 50
    assert [len(batch.operations) for batch in n2.batches] == [50]
    assert it.done == []
    assert it.engine.outstanding == 0
    assert await it.engine.open_sessions(0) == []


# KVClient.


@virtual
async def test_errors_say_what_happened() -> None:
    kv, (n1, n2) = client(2, QUICK)
    async with kv:
        await kv.put(b"k", b"v")
        with pytest.raises(OperationFailed) as failed:
            await kv.put(b"", b"v")
        assert str(failed.value) == "put b'': BAD_ARGUMENT after 1 attempt: key: must not be empty"
        assert failed.value.code == "BAD_ARGUMENT"
        n1.script.append(silent)
        n2.script.append(refuse(kv_pb2.SEQUENCE_STALE))
        with pytest.raises(OperationUnknown) as unknown:
            await kv.append(b"k", b"v")
        assert unknown.value.code == "SEQUENCE_STALE"
        assert [(each.node_id, each.outcome) for each in unknown.value.attempts] == [
            ("n1", "DEADLINE_EXCEEDED"),
            ("n2", "SEQUENCE_STALE"),
        ]
        assert str(unknown.value) == "append b'k': SEQUENCE_STALE after 2 attempts"
    assert {batch.client_id for batch in n1.batches} == {"me"}


@virtual
async def test_without_a_budget_there_is_one_attempt_and_no_session() -> None:
    kv, (n1,) = client(1, ONE_ATTEMPT)
    async with kv:
        assert await kv.append(b"k", b"x") == 1
        n1.script.append(silent)
        with pytest.raises(OperationUnknown) as unknown:
            await kv.append(b"k", b"x")
        assert len(unknown.value.attempts) == 1
    assert n1.store.session_count == 0


@virtual
async def test_a_write_whose_session_could_not_be_opened_has_failed() -> None:
    kv, (n1,) = client(1, ClientSettings(rpc_timeout=0.05, retry_budget=0.1, retry_backoff=Range(0.001, 0.01)))
    async with kv:
        n1.default = silent
        with pytest.raises(
            OperationFailed, match="put b'k': open session: DEADLINE_EXCEEDED after 2 attempts"
        ) as failed:
            await kv.put(b"k", b"v")
        assert len(failed.value.attempts) == 2
    assert n1.operations == []


@virtual
async def test_a_caller_who_gives_up_does_not_take_the_session_along() -> None:
    kv, (n1,) = client(1, QUICK)
    async with kv:
        await kv.put(b"k", b"v")
        n1.script.append(silent)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await kv.put(b"k", b"w")
        await until(lambda: n1.store.get(b"k") == b"w", "the retry")
        assert await kv.get(b"k") == b"w"
        await kv.put(b"k", b"x")
        writes = [(each.session_id, each.sequence) for each in n1.operations if each.kind == kv_pb2.PUT]
        assert writes[-1] == (1, 3)
        assert set(writes) == {(1, 1), (1, 2), (1, 3)}
