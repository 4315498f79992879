"""When the driver answers: a node with a disk, peers and a clock that the test plays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from raft_actor_node.core import AppendEntries, Message, Persist, Persisted, RaftNode, Receive, RequestVote, Role
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.kv.store import Result, Store
from raft_actor_node.runtime.driver import Driver
from raft_actor_node.runtime.tracer import Tracer
from tests.core.bench import ack, append, vote
from tests.core.harness import parameters


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.soon: deque[Callable[[], object]] = deque()
        self.alarm: tuple[float, Callable[[], object]] = (0.0, lambda: None)

    def now(self) -> float:
        return self.time_s

    def now_ns(self) -> int:
        return round(self.time_s * 1e9)

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_at(self, when: float, callback: Callable[[], object], *, precise: bool) -> Hands:
        self.alarm = when, callback
        return self

    def cancel(self) -> None:
        """As a Timer."""


class SlowWriter:
    """A disk that has written something when the test says so."""

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
    """A client that waits for the outcome of its commands; it notes how far the store was when it was told."""

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

    def __init__(self) -> None:
        self.clock, self.said = Hands(), list[Message]()
        self.tracer = Tracer("n1", None)
        self.order: list[str] = []
        """What became visible outside, one after the other."""
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
        self.turn()
        self.clock.time_s, ring = self.clock.alarm
        ring()
        self.turn()
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

    def written(self) -> None:
        """The write under way is durable."""
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
    """The leader appends a command and sends it out; when the entry has been safely replicated it applies the entry to
    its state machine and returns the result to the client (5.3): not when it is appended, not when it is written, not
    when one other has it, but all of it, in that order."""
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
    """A process that dies in between has told no peer, no disk and no client of what its trace does not have."""
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
    """What is committed is applied and answered; what follows it waits (5.3), and is of unknown outcome when
    leadership ends."""
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
    """By bytes too: while large values are applied and hashed, no heartbeat leaves."""
    table = Table()
    table.driver._apply_bytes = 200
    sink = table.propose(*[b"0123456789"] * 8)
    table.written()
    table.hear(*map(ack, table.sent("n2")))
    told = [heard[1:3] for heard in sink.heard]
    assert len(told) > 1, "in several turns"
    assert [number for _, numbers in told for number in numbers] == [10 * k for k in range(1, 9)]


def test_a_command_that_is_not_appended_is_refused_at_once() -> None:
    """Who does not lead appends nothing (5.3)."""
    table = Table()
    table.hear(append(2, leader="n3"))
    assert table.propose(b"abc").heard == [("refused", 0, [], 1)]
