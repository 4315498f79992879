"""Bounds on a node's memory and turns: the budgets of the gate, of applying, and of one write of the log."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_actor_node.config import ANSWER_BYTES, VALUE_COPIES, LimitSettings, NodeConfig
from raft_actor_node.core import Persist, Role
from raft_actor_node.kv.commands import ErrorCode, Kind, decode, encode
from raft_actor_node.kv.store import Store
from raft_actor_node.pb import kv_pb2
from raft_actor_node.runtime.budget import TURN_OPERATIONS, Caller
from raft_actor_node.runtime.gate import Gate, Operation
from tests.core.harness import World

KB = 1024
LIMITS: dict[str, Any] = {
    "value_bytes": 4 * KB,
    "key_bytes": 16,
    "pending_bytes": 128 * KB,
    "session_bytes": 16 * KB,
    "turn_answer_bytes": 8 * KB,
    "turn_apply_bytes": 8 * KB,
}


class Hand:
    """The driver of a leader that appends, applies and confirms when the test says so."""

    def __init__(self, value_bytes: int) -> None:
        self.store = Store(value_bytes=value_bytes)
        self.node = SimpleNamespace(leader_id="n1", role=Role.LEADER)
        self.after_step: Callable[[], None]
        self.at_end: Callable[[], None]
        self.proposals: list[tuple[Sequence[bytes], Any]] = []
        self.sinks: list[Any] = []
        self.awake = False

    def propose(self, payloads: Sequence[bytes], sink: Any) -> None:
        self.proposals.append((payloads, sink))

    def read(self, sink: Any) -> None:
        self.sinks.append(sink)

    def wake(self) -> None:
        self.awake = True

    def commit(self) -> None:
        """Apply and answer all proposals, then the reads."""
        proposals, self.proposals = self.proposals, []
        for payloads, sink in proposals:
            at = 0
            while at < len(payloads):
                part = payloads[at:]
                results = self.store.apply(self.store.last_applied + 1, [1] * len(part), part, 8 * KB)
                sink.applied(at, results)
                at += len(results)
        sinks, self.sinks = self.sinks, []
        for sink in sinks:
            sink.readable()

    def turn(self) -> None:
        self.awake = False
        self.after_step()


class Bench:
    """A gate, its hand-driven driver, and clients that read when the test says so."""

    def __init__(self, **limits: Any) -> None:
        config = SimpleNamespace(limits=LimitSettings(**{**LIMITS, **limits}))
        self.limits = config.limits
        self.driver = Hand(config.limits.value_bytes)
        self.gate = Gate(config, self.driver)  # type: ignore[arg-type]

    def client(self, *, unary: bool = False) -> Client:
        return Client(self, unary)

    def has(self, value: bytes, key: bytes = b"k") -> None:
        """Make a key hold a value."""
        client = self.client()
        client.ask(Kind.PUT, key=key, value=value)
        self.finish()
        client.read()

    def finish(self) -> None:
        """Apply, confirm and answer everything, as far as clients read."""
        self.driver.commit()
        self.driver.turn()
        while self.driver.awake:
            self.driver.turn()


class Client:
    def __init__(self, bench: Bench, unary: bool) -> None:
        self.caller = Caller(self._take, unary=unary)
        self.answers: list[kv_pb2.OperationResult] = []
        self.unread: list[tuple[int, int]] = []
        """Bytes of the messages that arrived, and of the errors in them, which the budget does not refuse."""
        self._bench = bench
        self._id = 0

    def ask(self, kind: Kind, count: int = 1, key: bytes = b"k", value: bytes = b"", **more: Any) -> None:
        operations = []
        for _ in range(count):
            self._id += 1
            operations.append(Operation(id=self._id, kind=int(kind), key=key, value=value, **more))  # type: ignore[arg-type]
        if self.caller.unary:
            self.caller.request_bytes = operations[-1].ByteSize()  # one call each
        self._bench.gate.take(operations, self.caller)

    def read(self) -> None:
        """Read everything that was sent."""
        unread, self.unread = self.unread, []
        for size, _ in unread:
            self._bench.gate.left(self.caller, size)

    def unread_errors(self) -> int:
        """The bytes of the budget that unread errors take."""
        return VALUE_COPIES * sum(errors for _, errors in self.unread)

    def errors(self) -> Counter[int]:
        return Counter(answer.error for answer in self.answers)

    def _take(self, answers: list[kv_pb2.OperationResult], size: int) -> None:
        assert size >= sum(len(answer.value) for answer in answers)
        self.answers += answers
        errors = sum(ANSWER_BYTES + len(answer.message) for answer in answers if answer.error)
        self.unread.append((size, errors))


OK, OVERLOADED = int(ErrorCode.OK), int(ErrorCode.OVERLOADED)


@pytest.mark.parametrize("kind", [Kind.PUT, Kind.APPEND, Kind.COMPARE_AND_SWAP, Kind.DELETE])
@pytest.mark.parametrize("unary", [False, True])
def test_what_does_not_fit_is_overloaded_and_has_no_effect(kind: Kind, unary: bool) -> None:
    """One caller's operations leave other callers as much of the budget."""
    bench = Bench()
    greedy, other = bench.client(unary=unary), bench.client()
    greedy.ask(kind, 1000, value=b"v" * KB)
    refused = greedy.errors()[OVERLOADED]
    assert 800 < refused < 1000
    greedy.read()
    assert 2 * bench.gate.budget.held <= bench.limits.pending_bytes
    assert sum(len(payloads) for payloads, _ in bench.driver.proposals) == 1000 - refused
    other.ask(Kind.PUT, 10, key=b"o", value=b"v" * KB)
    assert other.errors() == {}, "not refused"
    bench.finish()
    for client in (greedy, other):
        client.read()
    assert bench.gate.budget.held == bench.gate.waiting == 0
    greedy.ask(kind, value=b"v" * KB)
    assert greedy.errors()[OVERLOADED] == refused


def test_a_unary_get_pays_for_its_answer_when_it_comes_and_until_it_has_left() -> None:
    bench = Bench()
    bench.has(b"v" * 4 * KB)
    calls = [bench.client(unary=True) for _ in range(100)]
    for call in calls:
        call.ask(Kind.GET)
        call.read()  # refusals
    bench.finish()
    served = [call for call in calls if call.errors()[OK]]
    assert 1 < len(served) * VALUE_COPIES * 4 * KB <= bench.limits.pending_bytes
    assert sum(call.errors()[OVERLOADED] for call in calls) == 100 - len(served)
    for call in served:
        call.read()
        bench.gate.close(call.caller)
    late = bench.client(unary=True)
    late.ask(Kind.GET)
    bench.finish()
    assert late.errors() == {OK: 1}


def test_answers_of_a_turn_are_bounded_and_streams_take_turns() -> None:
    bench = Bench()
    bench.has(b"v" * 2 * KB)
    streams = [bench.client() for _ in range(4)]
    for stream in streams:
        stream.ask(Kind.GET, 9)
    bench.driver.commit()
    turns = 0
    while any(len(stream.answers) < 9 for stream in streams):
        before = [len(stream.answers) for stream in streams]
        bench.driver.turn()
        built = [len(stream.answers) - count for stream, count in zip(streams, before, strict=True)]
        assert 0 < sum(built) * 2 * KB <= bench.limits.turn_answer_bytes
        for stream in streams:
            stream.read()
        turns += 1
        lengths = [len(stream.answers) for stream in streams]
        assert max(lengths) - min(lengths) <= 4, "none is left behind"
    assert [answer.id for answer in streams[0].answers] == list(range(1, 10))


def test_small_answers_of_a_turn_are_bounded_by_their_number() -> None:
    bench = Bench(pending_bytes=8 << 20, turn_answer_bytes=1 << 20, pending_operations=5 * TURN_OPERATIONS)
    streams = [bench.client() for _ in range(4)]
    for stream in streams:
        stream.ask(Kind.GET, TURN_OPERATIONS + 10)
    bench.driver.commit()
    while bench.gate.waiting:
        before = bench.gate.waiting
        bench.driver.turn()
        assert 0 < before - bench.gate.waiting <= TURN_OPERATIONS
        for stream in streams:
            stream.read()


@pytest.mark.parametrize("what", ["retries", "writes lost", "writes refused", "writes overloaded", "reads refused"])
def test_what_ends_at_one_moment_is_answered_in_turns(what: str) -> None:
    bench = Bench(pending_bytes=16 << 20)
    (session,) = opened(bench, 1)
    client, count = bench.client(), 3 * TURN_OPERATIONS + 7
    if what == "reads refused":
        client.ask(Kind.GET, count)
        bench.driver.sinks.pop().refused()
    elif what == "retries":
        client.ask(Kind.APPEND, count, value=b"a", session_id=session, sequence=1)
        bench.driver.commit()
        assert len(client.answers) == 1, "the first"
    else:
        client.ask(Kind.PUT, count)
        ((_, sink),) = bench.driver.proposals
        {"writes lost": lambda: sink.lost(0), "writes refused": sink.refused}.get(what, sink.overloaded)()
    while bench.gate.waiting:
        before = len(client.answers)
        bench.driver.turn()
        assert 0 < len(client.answers) - before <= TURN_OPERATIONS
        assert bench.driver.awake == bool(bench.gate.waiting), "there is another turn while something waits"
    assert Counter(answer.id for answer in client.answers) == Counter(range(1, count + 1))
    if what == "writes overloaded":
        assert {(answer.error, answer.leader_hint) for answer in client.answers} == {(kv_pb2.OVERLOADED, "")}
        assert "unsynced_bytes" in client.answers[0].message
    client.read()
    assert bench.gate.budget.held == 0


def test_turns_do_not_grow_with_the_callers_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(pending_bytes=64 << 20, turn_answer_bytes=4 * KB)
    bench.has(b"v" * KB)
    for _ in range(1000):
        bench.client(unary=True).ask(Kind.GET)
    bench.driver.commit()
    looked = []
    whole = bench.gate._answer
    monkeypatch.setattr(bench.gate, "_answer", lambda *args, **more: (looked.append(args), whole(*args, **more))[1])
    bench.driver.turn()
    assert len(looked) <= 5, "those that this turn has room for, and the one after them"


def test_a_value_that_no_budget_allows_is_refused_and_the_next_is_answered() -> None:
    """The value was written under other limits."""
    bench = Bench()
    bench.driver.store.apply(bench.driver.store.last_applied + 1, [1], [encode(Kind.PUT, b"k", b"v" * 64 * KB)])
    stream = bench.client()
    stream.ask(Kind.GET)
    stream.ask(Kind.GET, key=b"another")
    bench.finish()
    assert [(answer.id, answer.error) for answer in stream.answers] == [(1, int(ErrorCode.BAD_ARGUMENT)), (2, OK)]


def test_only_a_client_that_has_read_everything_wants_room_from_others() -> None:
    bench = Bench()
    wanted: list[int] = []
    bench.gate.shortage = lambda: wanted.append(1)
    bench.has(b"v" * 4 * KB)
    lazy, diligent = [bench.client() for _ in range(8)], bench.client()
    for stream in (*lazy, diligent):
        stream.ask(Kind.GET, 4)
    bench.finish()
    assert wanted
    assert bench.gate.budget.wanted
    bench.gate.close(lazy[0].caller)
    wanted.clear()
    bench.finish()
    assert len(diligent.answers) == 1
    assert all(stream.caller.unread for stream in lazy[1:])
    assert bench.gate.budget.starved
    assert not wanted, "of those that have not read, none is owed more"
    assert not bench.gate.budget.wanted


def test_what_is_too_many_is_refused_and_the_rest_taken_in() -> None:
    bench = Bench(pending_operations=10)
    stream = bench.client()
    stream.ask(Kind.PUT, 7)
    stream.ask(Kind.PUT, 7)
    assert [answer.id for answer in stream.answers] == [11, 12, 13, 14]
    assert stream.errors() == Counter({OVERLOADED: 4})
    bench.finish()
    assert Counter(answer.id for answer in stream.answers) == Counter(range(1, 15))


def test_a_unary_retry_pays_for_its_request_as_long_as_it_waits() -> None:
    bench = Bench()
    (session,) = opened(bench, 1)
    again = [bench.client(unary=True) for _ in range(100)]
    for client in again:
        client.ask(Kind.PUT, value=b"v" * 4 * KB, session_id=session, sequence=1)
    ((payloads, _),) = bench.driver.proposals
    assert len(payloads) == 1
    admitted = [client for client in again if not client.answers]
    assert len(admitted) * 4 * KB < bench.gate.budget.held <= bench.limits.pending_bytes
    bench.finish()
    assert all(len(client.answers) == 1 for client in again)
    for client in again:
        client.read()
    assert bench.gate.budget.held == 0


def test_a_stream_that_does_not_read_gets_no_more_and_others_do() -> None:
    bench = Bench()
    bench.has(b"v" * 4 * KB)
    lazy, diligent = [bench.client() for _ in range(30)], bench.client()
    for stream in lazy:
        stream.ask(Kind.GET, 4)
    diligent.ask(Kind.GET, 3, key=b"small")
    bench.finish()
    assert bench.gate.budget.held <= bench.limits.pending_bytes
    assert sum(len(stream.answers) for stream in lazy) * 4 * KB * VALUE_COPIES <= bench.limits.pending_bytes
    assert len(diligent.answers) == 3
    assert not bench.driver.awake, "a node does not spin for a client that does not read"
    for _ in range(1000):
        for stream in lazy:
            stream.read()
        bench.finish()
    assert [len(stream.answers) for stream in lazy] == [4] * 30, "all of it, once they read"
    for stream in lazy:
        stream.read()
    diligent.read()
    assert bench.gate.budget.held == bench.gate.waiting == 0


def test_whatever_waits_can_be_answered() -> None:
    """Even if reads take all that operations may take, the longest answer still fits."""
    bench = Bench()
    bench.has(b"v" * 4 * KB)
    streams = [bench.client() for _ in range(20)]
    for stream in streams:
        stream.ask(Kind.GET, 500)
        stream.read()
    assert bench.gate.budget.held > bench.limits.pending_bytes // 2
    for _ in range(2000):
        bench.finish()
        for stream in streams:
            stream.read()
    assert all(stream.caller.waiting == 0 for stream in streams)
    assert bench.gate.budget.held == bench.gate.waiting == 0


def test_a_value_longer_than_a_turn_is_answered_alone() -> None:
    bench = Bench(turn_answer_bytes=KB)
    bench.has(b"v" * 4 * KB)
    stream = bench.client()
    stream.ask(Kind.GET, 2)
    bench.finish()
    assert len(stream.answers) == 1
    stream.read()
    bench.finish()
    assert len(stream.answers) == 2


def test_a_caller_that_is_gone_holds_nothing() -> None:
    bench = Bench()
    gone = bench.client()
    gone.ask(Kind.GET, 5)
    gone.ask(Kind.PUT, 5, value=b"v" * KB)
    bench.gate.close(gone.caller)
    bench.finish()
    assert gone.answers == []
    assert bench.gate.budget.held == bench.gate.waiting == 0


def test_a_swap_pays_for_the_longest_value_that_it_may_see() -> None:
    """A swap also pays for a pending value: what earlier puts write, and what appends add."""
    bench = Bench()
    stream = bench.client()
    stream.ask(Kind.PUT, value=b"v" * 4000)
    for _ in range(100):
        stream.ask(Kind.APPEND, value=b"z")
        stream.ask(Kind.COMPARE_AND_SWAP, value=b"y")
        stream.read()  # refusals
    bench.driver.commit()
    assert bench.gate.budget.held <= bench.limits.pending_bytes
    seen = [answer for answer in stream.answers if answer.value]
    assert seen
    assert sum(VALUE_COPIES * (ANSWER_BYTES + len(answer.value)) for answer in seen) <= bench.limits.pending_bytes


def test_the_session_table_keeps_no_more_than_its_budget() -> None:
    """The retry of a failed swap gets what the first attempt saw, as long as the session does nothing else."""
    bench = Bench()
    stream = bench.client()
    stream.ask(Kind.PUT, value=b"v" * 4 * KB)
    stream.ask(Kind.OPEN_SESSION, 10, key=b"")
    bench.finish()
    sessions = [answer.number for answer in stream.answers if answer.number]
    for session in sessions:
        stream.ask(Kind.COMPARE_AND_SWAP, value=b"n", session_id=session, sequence=1)
        bench.finish()
        stream.read()
    assert stream.errors()[OVERLOADED] == 6
    assert "limits.session_bytes" in next(answer.message for answer in stream.answers if answer.error)
    assert bench.driver.store.kept_bytes == 16 * KB
    stream.answers.clear()
    stream.read()
    stream.ask(Kind.COMPARE_AND_SWAP, value=b"n", session_id=sessions[0], sequence=1)
    bench.finish()
    assert [len(answer.value) for answer in stream.answers] == [4 * KB], "the retry"
    stream.ask(Kind.COMPARE_AND_SWAP, value=b"n", session_id=sessions[0], sequence=2)
    bench.finish()
    assert stream.errors() == {OK: 2}, "in the place of what the session kept"
    stream.ask(Kind.PUT, key=b"o", session_id=sessions[1], sequence=2)
    bench.finish()
    stream.read()
    assert bench.driver.store.kept_bytes == 12 * KB
    stream.ask(Kind.COMPARE_AND_SWAP, value=b"n", session_id=sessions[9], sequence=1)
    bench.finish()
    assert stream.errors() == {OK: 4}


# ------------------------------------------------------------------------------ retries


def opened(bench: Bench, count: int) -> list[int]:
    client = bench.client()
    client.ask(Kind.OPEN_SESSION, count, key=b"")
    bench.finish()
    client.read()
    return [answer.number for answer in client.answers]


def test_a_retry_is_answered_from_memory_by_a_leader_only() -> None:
    """An answer shows clients, and the judges of availability, that the node leads."""
    bench = Bench()
    (session,) = opened(bench, 1)
    client = bench.client()
    client.ask(Kind.APPEND, value=b"abc", session_id=session, sequence=1)
    bench.finish()
    bench.driver.node.role = Role.FOLLOWER
    client.ask(Kind.APPEND, value=b"abc", session_id=session, sequence=1)
    assert len(client.answers) == 1
    assert len(bench.driver.proposals) == 1, "the core refuses it, or knows a leader"
    bench.driver.proposals[0][1].refused()
    bench.driver.turn()
    assert client.answers[-1].error == ErrorCode.NOT_LEADER


def test_reads_are_answered_beside_retries_without_end() -> None:
    bench = Bench(pending_bytes=64 * KB * KB)
    bench.has(b"v", key=b"x")
    (*sessions,) = opened(bench, 2)
    reader = bench.client()
    reader.ask(Kind.GET, key=b"x")
    writers = [bench.client() for _ in sessions]
    for sequence in (1, 2):
        for session, writer in zip(sessions, writers, strict=True):
            writer.ask(Kind.PUT, TURN_OPERATIONS, session_id=session, sequence=sequence)
        bench.driver.commit()
        bench.driver.turn()
        for writer in writers:
            writer.read()
    assert len(reader.answers) == 1


def test_messages_that_wait_leave_room_for_answers_and_less_for_operations() -> None:
    bench = Bench()
    bench.has(b"v" * 4 * KB)
    reader, writer = bench.client(), bench.client()
    reader.ask(Kind.GET, 3)
    bench.gate.budget.messages = bench.limits.pending_bytes
    writer.ask(Kind.PUT, value=b"v")
    assert writer.errors() == {OVERLOADED: 1}
    for _ in range(3):
        bench.finish()
        reader.read()
    assert reader.errors() == {0: 3}


@pytest.mark.parametrize("end", ["applied", "refused", "lost"])
def test_a_retry_of_a_pending_write_gets_the_answer_of_the_first(end: str) -> None:
    bench = Bench()
    (session,) = opened(bench, 1)
    first, again = bench.client(), bench.client(unary=True)
    for client in (first, again, again):
        client.ask(Kind.APPEND, value=b"abc", session_id=session, sequence=1)
    ((payloads, sink),) = bench.driver.proposals
    assert len(payloads) == 1, "appended once"
    if end == "applied":
        bench.finish()
        assert [answer.number for answer in first.answers + again.answers] == [3, 3, 3]
    else:
        sink.refused() if end == "refused" else sink.lost(0)
        bench.driver.proposals.clear()
        bench.driver.turn()
        code = ErrorCode.NOT_LEADER if end == "refused" else ErrorCode.OUTCOME_UNKNOWN
        assert [answer.error for answer in first.answers + again.answers] == [int(code)] * 3
    assert [answer.id for answer in again.answers] == [1, 2]
    for client in (first, again):
        client.read()
    assert bench.gate.budget.held == bench.gate.waiting == 0
    again.ask(Kind.APPEND, value=b"abc", session_id=session, sequence=1)
    if end != "applied":
        assert len(bench.driver.proposals[-1][0]) == 1, "what has ended is asked anew"
    bench.finish()
    assert bench.gate.get(b"k") == b"abc"
    assert again.answers[-1].number == 3, "after the first has ended, from the session table or from the log"


def test_what_is_not_the_same_command_of_the_same_session_is_no_retry() -> None:
    bench = Bench()
    one, other = opened(bench, 2)
    client = bench.client()
    client.ask(Kind.APPEND, value=b"a", session_id=one, sequence=1)
    client.ask(Kind.APPEND, value=b"a", session_id=other, sequence=1)
    client.ask(Kind.APPEND, value=b"b", session_id=one, sequence=1)
    client.ask(Kind.APPEND, value=b"c", session_id=one, sequence=2)
    client.ask(Kind.APPEND, value=b"d")
    client.ask(Kind.APPEND, value=b"d")
    bench.finish()
    assert bench.gate.get(b"k") == b"aacdd"
    assert [answer.number for answer in client.answers] == [1, 2, 0, 3, 4, 5]
    assert client.answers[2].error == int(ErrorCode.SEQUENCE_REUSED)


def test_what_is_lost_in_two_parts_is_told_once() -> None:
    """A node loses its leadership, and then ends before it has applied what was committed."""
    bench = Bench()
    (session,) = opened(bench, 1)
    client = bench.client()
    for sequence in range(1, 6):
        client.ask(Kind.APPEND, value=b"a", session_id=session, sequence=sequence)
    client.ask(Kind.PUT, 5)
    client.read()
    for _, sink in bench.driver.proposals:
        sink.lost(0)
        sink.lost(0)
    bench.driver.proposals.clear()
    client.ask(Kind.PUT, 5)
    ((_, sink),) = bench.driver.proposals
    for offset in (3, 1, 0, 0):
        sink.lost(offset)
    bench.driver.at_end()
    assert Counter(answer.id for answer in client.answers) == Counter(range(1, 16))
    client.read()
    assert bench.gate.budget.held == bench.gate.waiting == 0
    assert bench.gate.originals == {}


def test_the_retries_of_a_swap_pay_for_what_the_session_saw() -> None:
    """The value may be gone by then: each retry is answered with what the session keeps."""
    bench = Bench()
    (session,) = opened(bench, 1)
    bench.has(b"v" * 4 * KB)
    client = bench.client()
    client.ask(Kind.COMPARE_AND_SWAP, value=b"n", session_id=session, sequence=1)
    client.ask(Kind.DELETE)
    bench.finish()
    client.read()
    client.ask(Kind.COMPARE_AND_SWAP, 1000, value=b"n", session_id=session, sequence=1)
    client.read()
    bench.finish()
    assert bench.gate.budget.held <= bench.limits.pending_bytes
    assert {len(answer.value) for answer in client.answers if not answer.error} >= {4 * KB}


def test_of_copies_none_is_refused_while_another_may_take_effect() -> None:
    bench = Bench()
    client, others = bench.client(), list[Client]()
    value = b"v" * 4 * KB
    while bench.gate.budget.for_operations(client.caller) > 3 * KB + 4 * KB:
        others.append(bench.client())
        others[-1].ask(Kind.PUT, value=b"v" * KB)
    copy = Operation(id=7, kind=int(Kind.PUT), key=b"k", value=value)  # type: ignore[arg-type]
    bench.gate.take([copy, copy], client.caller, copies=True)
    assert client.answers == [], "the second copy does not fit, and says nothing"
    bench.finish()
    assert [(answer.id, answer.error) for answer in client.answers] == [(7, OK)]
    for each in (client, *others):
        each.read()
    assert bench.gate.budget.held == bench.gate.waiting == 0


def test_many_appends_to_one_key_do_not_make_a_swap_illegal() -> None:
    bench = Bench()
    bench.has(b"v" * KB)
    client = bench.client()
    client.ask(Kind.APPEND, 12, value=b"v" * 2 * KB)
    other = bench.client()
    other.ask(Kind.COMPARE_AND_SWAP, value=b"n")
    assert other.errors()[int(ErrorCode.BAD_ARGUMENT)] == 0


# ------------------------------------------------------------------------------ anything


KINDS = [Kind.PUT, Kind.GET, Kind.DELETE, Kind.COMPARE_AND_SWAP, Kind.APPEND]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_asked_the_budgets_hold_and_each_operation_is_answered_once(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench()
    (*sessions,) = opened(bench, 3)
    clients = [bench.client(unary=rng.random() < 0.3) for _ in range(5)]
    sequences = dict.fromkeys(sessions, 1)
    for _ in range(60):
        client = rng.choice(clients)
        match rng.randrange(5):
            case 0 | 1:
                more: dict[str, Any] = {}
                kind = rng.choice(KINDS)
                if kind != Kind.GET and rng.random() < 0.5:
                    session = rng.choice(sessions)
                    sequences[session] += rng.random() < 0.5
                    more = {"session_id": session, "sequence": sequences[session]}
                value = b"v" * rng.choice([0, 1, 500, 4 * KB])
                client.ask(kind, rng.choice([1, 3, 40]), key=rng.choice([b"k", b"l"]), value=value, **more)
            case 2:
                bench.driver.commit()
            case 3:
                before = sum(_value_bytes(each) for each in clients)
                bench.driver.turn()
                built = sum(_value_bytes(each) for each in clients) - before
                assert built <= bench.limits.turn_answer_bytes
            case 4:
                client.read()
        errors = sum(each.unread_errors() for each in clients)
        assert bench.gate.budget.held - errors <= bench.limits.pending_bytes
    for _ in range(1000):
        bench.finish()
        for client in clients:
            client.read()
        if not bench.gate.waiting:
            break
    assert bench.gate.budget.held == bench.gate.waiting == bench.gate.kept_soon == 0
    assert bench.gate.originals == {}
    for client in clients:
        assert Counter(answer.id for answer in client.answers) == Counter(range(1, client._id + 1))


def _value_bytes(client: Client) -> int:
    return sum(len(answer.value) for answer in client.answers)


# ------------------------------------------------------------------------------ applying, writing


def touched(values: dict[bytes, bytes], payload: bytes) -> int:
    """Apply a command to `values` without the store; return the bytes of payload and values read and written."""
    command = decode(payload)
    current = values.get(command.key)
    length = len(current or b"")
    match command.kind:
        case Kind.PUT:
            values[command.key] = command.value
            return len(payload)
        case Kind.COMPARE_AND_SWAP:
            if current == command.expected:
                values[command.key] = command.value
            return len(payload) + length
        case Kind.APPEND:
            if length + len(command.value) <= 4 * KB:
                values[command.key] = (current or b"") + command.value
            return len(payload) + 2 * length
    values.pop(command.key, None)
    return len(payload)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), budget=st.integers(1, 40_000))
def test_applying_touches_no_more_than_the_budget(seed: int, budget: int) -> None:
    """One entry alone may exceed the budget. Applying in parts has the same effect as applying at once."""
    rng = random.Random(seed)
    payloads = []
    for _ in range(rng.randrange(1, 60)):
        kind = rng.choice([Kind.PUT, Kind.DELETE, Kind.COMPARE_AND_SWAP, Kind.APPEND])
        expected = rng.choice([None, b"v" * 500])
        payloads.append(encode(kind, b"k", b"v" * rng.choice([1, 500, 4000]), expected))
    parts, whole, values = Store(value_bytes=4 * KB), Store(value_bytes=4 * KB), dict[bytes, bytes]()
    results = whole.apply(1, [1] * len(payloads), payloads)
    told: list[Any] = []
    while len(told) < len(payloads):
        # As the driver hands them over: payloads within the budget, or a single one.
        end = at = len(told)
        while end < len(payloads) and (end == at or sum(map(len, payloads[at : end + 1])) <= budget):
            end += 1
        part = parts.apply(at + 1, [1] * (end - at), payloads[at:end], budget)
        cost = sum(touched(values, payload) for payload in payloads[at : at + len(part)])
        assert len(part) == 1 or (part and cost <= budget)
        told += part
    assert told == results
    assert parts.state_hash() == whole.state_hash()
    assert parts.applied_hash() == whole.applied_hash()


@pytest.mark.parametrize("size", [10, 1000])
def test_one_write_of_the_log_has_no_more_than_its_budget(size: int) -> None:
    """One entry alone may exceed the budget; the rest follows with the next fsync, and everything is committed."""
    persisted: list[Persist] = []

    class Watched(World):
        def _synced(self, node_id: str, life: int) -> None:
            persisted.append(self._writing[node_id])
            super()._synced(node_id, life)

    world = Watched(3, 1, max_persist_bytes=500)
    leader = world.elect()
    # Followers commit entries that the leader has not written: a unit must not mark later entries as committed.
    world.disk_latency[leader.node_id] = (0.1, 0.1)
    world.propose(leader.node_id, *[b"x" * size] * 50)
    world.run(5.0)
    assert leader.commit_index >= 51
    for persist in persisted:
        assert len(persist.terms) <= 1 or sum(map(len, persist.payloads)) <= 500
        assert persist.commit_index < persist.first_index + max(len(persist.terms), 1)
    assert max(len(persist.terms) for persist in persisted) > (1 if size == 10 else 0)


def test_a_budget_that_no_largest_operation_fits_into_is_refused() -> None:
    with pytest.raises(ValueError, match=r"limits\.pending_bytes: .* at least \d+ B"):
        NodeConfig(
            cluster_id="c",
            node_id="n1",
            members=["n1"],
            limits=LimitSettings(pending_bytes=5 * KB * KB),
        )


def test_where_bad_parameters_are_allowed_what_never_fits_is_a_bad_argument() -> None:
    bench = Bench(pending_bytes=8 * KB)
    client = bench.client()
    client.ask(Kind.PUT, value=b"v" * 3 * KB)
    assert client.errors() == {int(ErrorCode.BAD_ARGUMENT): 1}
    assert "limits.pending_bytes" in client.answers[0].message
