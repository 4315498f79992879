"""The moments at which the driver answers, for a node whose disk, peers and clock the test plays."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from raft_actor_node.core import (
    AppendEntries,
    Message,
    Persist,
    Persisted,
    RaftNode,
    Receive,
    RequestVote,
    RequestVoteReply,
    Role,
)
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.kv.store import Result, Store
from raft_actor_node.runtime.driver import Driver
from raft_actor_node.runtime.tracer import Tracer
from tests.core.bench import ack, append, request_vote, vote
from tests.core.harness import ET_MAX, ET_MIN, HEARTBEAT, parameters


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.soon: deque[Callable[[], object]] = deque()
        self.alarm: tuple[float, Callable[[], object]] = (0.0, lambda: None)
        self.precise = False

    def now(self) -> float:
        return self.time_s

    def now_ns(self) -> int:
        return round(self.time_s * 1e9)

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_at(self, when: float, callback: Callable[[], object], *, precise: bool) -> Hands:
        self.alarm, self.precise = (when, callback), precise
        return self

    def cancel(self) -> None:
        """As a Timer."""


class SlowWriter:
    """A disk that completes a write when the test says so."""

    def __init__(self, wal: Any, fsync: Any, done: Callable[[Persisted], None], failed: Any) -> None:
        self.done = done
        self.under_way: Persist | None = None

    def start(self) -> None:
        pass

    def submit(self, persist: Persist) -> None:
        assert self.under_way is None, "one at a time"
        self.under_way = persist

    async def close(self) -> None:
        pass


class Sink:
    """A client that waits for the outcome of its commands, and records the store's progress at each answer."""

    def __init__(self, store: Store) -> None:
        self.heard: list[tuple[str, int, list[int], int]] = []
        self._store = store

    def refused(self) -> None:
        self.heard.append(("refused", 0, [], self._store.last_applied))

    def applied(self, offset: int, results: Sequence[Result]) -> None:
        self.heard.append(("applied", offset, [each.number for each in results], self._store.last_applied))

    def lost(self, offset: int) -> None:
        self.heard.append(("lost", offset, [], self._store.last_applied))


class Table:
    """Node n1 of three, which leads."""

    def __init__(self, *, take_part: bool = True) -> None:
        """Without `take_part` the node has only recovered."""
        self.clock, self.said = Hands(), list[Message]()
        self.tracer = Tracer("n1", None)
        self.order: list[str] = []
        """What became visible outside, in order."""
        core = RaftNode("n1", ["n1", "n2", "n3"], parameters(pre_vote=False), rng=Random(0), now=0.0)
        self.store = Store(value_bytes=100)
        self.driver = Driver(
            core,
            None,  # type: ignore[arg-type]
            self.store,
            self.tracer,
            send=self._send,
            fail=self._fail,
            clock=self.clock,  # type: ignore[arg-type]
            writer=self._writer,
        )
        self.driver.start()
        if not take_part:
            return
        self.driver.take_part()
        self.turn()
        while core.role == Role.FOLLOWER:
            self.wait()
        self.written()
        self.hear(*[vote(each) for each in self.said if isinstance(each, RequestVote)])
        assert core.role == Role.LEADER
        self.written()
        self.hear(*map(ack, self.sent("n2")))
        assert self.store.last_applied == 1, "its no-op"

    def _writer(self, *args: Any) -> SlowWriter:
        self.disk = SlowWriter(*args)
        return self.disk

    def _send(self, messages: Sequence[Message]) -> None:
        self.order.append("send")
        self.said.extend(messages)

    def _fail(self, error: BaseException) -> None:
        raise error

    def turn(self) -> None:
        while self.clock.soon:
            self.clock.soon.popleft()()

    def wait(self) -> None:
        """Wait until the alarm rings."""
        self.clock.time_s, ring = self.clock.alarm
        ring()
        self.turn()

    def written(self) -> None:
        """Complete the write under way."""
        assert self.disk.under_way is not None
        number, self.disk.under_way = self.disk.under_way.number, None
        self.disk.done(Persisted(number))
        self.turn()

    def hear(self, *messages: Message) -> None:
        for message in messages:
            self.driver.deliver(Receive(message))
        self.turn()

    def sent(self, to: str) -> list[AppendEntries]:
        """The requests with entries to a peer since the last call."""
        found = [m for m in self.said if isinstance(m, AppendEntries) and m.to_id == to and m.entry_terms]
        self.said.clear()
        return found

    def propose(self, *values: bytes) -> Sink:
        sink = Sink(self.store)
        self.driver.propose([encode(Kind.APPEND, b"k", value) for value in values], sink)
        self.turn()
        return sink


@pytest.mark.parametrize("first", ["the own disk", "a follower"])
def test_a_command_is_answered_with_its_result_when_it_is_applied(first: str) -> None:
    """The leader replies once the entry is safely replicated and applied to its state machine (5.3).

    It does not reply when the entry is only appended, only written, or only on one other node.
    """
    table = Table()
    sink = table.propose(b"abc", b"de")
    (request,) = table.sent("n2")
    steps = [table.written, lambda: table.hear(ack(request))]
    for step in steps if first == "the own disk" else reversed(steps):
        assert sink.heard == []
        assert table.store.get(b"k") is None
        step()
    assert sink.heard == [("applied", 0, [3, 5], 3)], "the lengths, told when both were applied"
    assert table.store.get(b"k") == b"abcde"


def test_the_trace_is_on_record_before_anything_of_the_step_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process dies in between, no peer, disk or client knows anything that its trace lacks."""
    table = Table()
    sink = table.propose(b"abc")
    table.written()
    (request,) = table.sent("n2")
    table.order.clear()
    monkeypatch.setattr(table.tracer, "record", lambda events: table.order.extend(event.kind for event in events))
    monkeypatch.setattr(table.disk, "submit", lambda persist: table.order.append("disk"))
    monkeypatch.setattr(sink, "applied", lambda *_: table.order.append("answer"))
    table.driver.deliver(Receive(ack(request)))
    table.propose(b"de")
    assert table.order == ["commit", "disk", "send", "answer"], "one step that does it all"


def test_commands_are_answered_as_far_as_they_are_committed() -> None:
    """Committed commands are applied and answered; later ones wait (5.3).

    When leadership ends, the outcome of the waiting ones is unknown.
    """
    table = Table()
    table.propose(b"abc")
    sink = table.propose(b"d", b"e")
    table.written()
    table.written()
    first, second = table.sent("n2")
    table.hear(ack(first))
    assert table.store.last_applied == 2
    table.hear(ack(second, match_index=3))
    assert sink.heard == [("applied", 0, [4], 3)]
    table.hear(append(2, 3, 1, leader="n3"))
    assert sink.heard[1:] == [("lost", 1, [], 3)]


def test_much_that_is_committed_at_once_is_applied_in_parts() -> None:
    """The parts are bounded in bytes too, as no heartbeat leaves while large values are applied and hashed."""
    table = Table()
    table.driver._apply_bytes = 200
    sink = table.propose(*[b"0123456789"] * 8)
    table.written()
    table.hear(*map(ack, table.sent("n2")))
    told = [heard[1:3] for heard in sink.heard]
    assert len(told) > 1, "in several turns"
    assert [number for _, numbers in told for number in numbers] == [10 * k for k in range(1, 9)]


def test_a_command_that_is_not_appended_is_refused_at_once() -> None:
    """A node that does not lead appends nothing (5.3)."""
    table = Table()
    table.hear(append(2, leader="n3"))
    assert table.propose(b"abc").heard == [("refused", 0, [], 1)]


def follower(table: Table) -> None:
    """Let the node hear a later leader."""
    table.hear(append(5))
    assert table.driver.node.role == Role.FOLLOWER
    table.written()
    table.said.clear()


def stands(table: Table, until_s: float) -> bool:
    """Whether the node stands for election by then, if each alarm rings in time."""
    node = table.driver.node
    while table.clock.alarm[0] <= until_s and node.role == Role.FOLLOWER:
        table.wait()
    return node.role == Role.CANDIDATE


def test_a_timer_that_rings_late_is_not_believed_before_the_mail_is_read() -> None:
    """The process was paused: heartbeats of a live leader are still in the kernel, and arrive in a moment."""
    table = Table()
    follower(table)
    table.clock.time_s += 10.0
    table.clock.alarm[1]()
    table.turn()
    assert not stands(table, table.clock.time_s + HEARTBEAT)
    table.hear(append(5, sequence=2))
    table.said.clear()
    assert not stands(table, table.clock.time_s + 0.9 * ET_MIN)


def test_what_arrives_before_a_late_timer_rings_does_not_hide_the_pause() -> None:
    """For example, another woken node asks for a vote; the leader may still be heard."""
    table = Table()
    follower(table)
    table.clock.time_s += 10.0
    table.hear(request_vote(6, last_index=9, last_term=5))
    assert [message.vote_granted for message in table.said if isinstance(message, RequestVoteReply)] == [False]


def test_a_late_timer_is_believed_when_nothing_comes() -> None:
    """The leader is dead, and is replaced soon after the node woke."""
    table = Table()
    follower(table)
    table.clock.time_s += 10.0
    table.clock.alarm[1]()
    table.turn()
    assert stands(table, table.clock.time_s + 2 * HEARTBEAT + (ET_MAX - ET_MIN))


def test_an_election_is_asked_for_precisely_and_a_look_at_the_clock_is_not() -> None:
    """The last alarm before an election is exact; earlier alarms cost next to nothing."""
    table = Table()
    follower(table)
    due = table.driver.node.next_deadline()
    looks = 0
    while not table.clock.precise:
        table.wait()
        looks += 1
    assert table.clock.alarm[0] == due
    assert looks <= 2 * (ET_MAX / HEARTBEAT) + 1


def test_nothing_falls_due_while_a_node_recovers() -> None:
    """While a node replays its log and opens its port, messages wait until peers can reach it.

    Its election timer starts then.
    """
    table = Table(take_part=False)
    table.clock.time_s = 100.0
    table.hear(append(3))
    assert table.said == []
    assert table.driver.node.current_term == 0
    table.driver.take_part()
    table.turn()
    assert table.driver.node.leader_id == "n2"
    assert table.driver.node.current_term == 3

    table = Table(take_part=False)
    table.clock.time_s = 100.0
    table.driver.take_part()
    table.turn()
    assert table.said == []
    assert table.driver.node.next_deadline() >= 100.0 + ET_MIN


@pytest.mark.parametrize("end", ["applied", "lost", "refused"])
def test_a_stop_waits_for_what_is_pending_and_no_longer(end: str) -> None:
    """A stop lasts no longer than the grace, which is for answers that are still possible."""

    async def main() -> None:
        table = Table()
        if end == "refused":
            follower(table)
        sink = Sink(table.store)
        table.driver.propose([encode(Kind.APPEND, b"k", b"v")], sink)
        if end != "refused":
            table.turn()
        stop = asyncio.create_task(table.driver.stop(grace_s=60.0))
        await asyncio.sleep(0)
        assert not stop.done()
        assert sink.heard == []
        if end == "lost":
            table.hear(append(7))
        elif end == "refused":
            table.turn()
        else:
            (request,) = table.sent("n2")
            table.written()
            table.hear(ack(request))
        async with asyncio.timeout(10.0):
            await stop
        assert [heard[0] for heard in sink.heard] == [end]

    asyncio.run(main())
