"""The engine under every client: retries, deadlines and outcomes of operations, in batches.

An operation costs no future, no timer and no task. The engine keeps one stream (KV.Execute) per node. Operations
submitted in the same event-loop tick leave in one OperationBatch; completed operations come back in lists.
KVClient (client.py) wraps the engine in awaitable calls; the load generator uses it directly. Connections are in
client_link.py (streams) and client_calls.py (a unary call per operation).

An operation is a series of *attempts*, each at one node and with its own deadline. An attempt is *ambiguous* if it was
sent and ended without a result, and the operation may still take effect. An ambiguous attempt makes the outcome of the
operation unknown, unless a later attempt obtains the result.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from raft_actor_node.addresses import split_address
from raft_actor_node.client_calls import UnaryLink
from raft_actor_node.client_home import Home
from raft_actor_node.client_link import Link, LinkFactory
from raft_actor_node.client_operation import (
    FAIL,
    OK,
    OPEN,
    OUTCOME_NAMES,
    UNKNOWN,
    Operation,
    Session,
    Trouble,
    operation_error,
)
from raft_actor_node.config import MESSAGE_OVERHEAD_BYTES, CallForm, ClientSettings, TransportSettings
from raft_actor_node.errors import Attempt, ConfigError
from raft_actor_node.kv.commands import ErrorCode, Kind
from raft_actor_node.pb import kv_pb2

__all__ = ["FAIL", "OK", "OPEN", "OUTCOME_NAMES", "UNKNOWN", "ClientEngine", "Operation", "Session", "operation_error"]


class _Rule(NamedTuple):
    """What the end of a sent attempt implies."""

    ambiguous: bool
    """The operation may still take effect."""
    retry: bool
    """Another attempt may succeed."""
    pause: bool = False
    """Pause before that attempt."""


_RULES = {
    "NOT_LEADER": _Rule(ambiguous=False, retry=True, pause=True),
    "OVERLOADED": _Rule(ambiguous=False, retry=True, pause=True),
    "BAD_ARGUMENT": _Rule(ambiguous=False, retry=False),
    "OUTCOME_UNKNOWN": _Rule(ambiguous=True, retry=True, pause=True),
    "SESSION_UNKNOWN": _Rule(ambiguous=False, retry=False),
    "SEQUENCE_STALE": _Rule(ambiguous=True, retry=False),
    "SEQUENCE_REUSED": _Rule(ambiguous=False, retry=False),
    "VALUE_TOO_LARGE": _Rule(ambiguous=False, retry=False),
}
_LOST = _Rule(ambiguous=True, retry=True)
"""Rule for DEADLINE_EXCEEDED, UNAVAILABLE and every other status: the outcome of a write is unknown."""
_REFUSED_CALLS = {
    "FAILED_PRECONDITION": _Rule(ambiguous=False, retry=True, pause=True),
    "INVALID_ARGUMENT": _Rule(ambiguous=False, retry=False),
}
"""Statuses with which a unary call reports that nothing happened.

The same status at the end of a stream implies nothing about the operations sent on it.
"""
_LINKS: dict[CallForm, LinkFactory] = {"stream": Link, "unary": UnaryLink}

_ERROR_NAMES = {int(code): code.name for code in ErrorCode}
# Plain ints: looking up an enum member costs as much as half an operation.
_PUT, _GET, _OPEN_SESSION = int(Kind.PUT), int(Kind.GET), int(Kind.OPEN_SESSION)
_NO_EFFECT = frozenset({_GET, _OPEN_SESSION})
"""Kinds that change no value, so they are safe to retry and their failure is certain.

Opening a session again is harmless: a session that no client received is never used.
"""
_OPERATION_OVERHEAD_BYTES = 64
"""Upper bound on what an operation adds to a message besides its key and values."""
_TIMER_NS = 2_000_000
"""Deadlines this close together share a timer, so each may fire late by this much."""


class _Node:
    """The engine's side of a link to a node: attempts to send, and attempts that wait for an answer.

    Attempt ids are unique in the engine and grow in the order of sending.
    """

    def __init__(self, engine: ClientEngine, node_id: str, address: str) -> None:
        self._engine = engine
        self.node_id = node_id
        self.address = address
        self.down = False
        """Whether the last attempt to connect failed, or the connection was lost. A node not tried yet is not down."""
        self.why = ""
        self.queue: deque[int] = deque()
        """Ids of attempts to send; attempts missing from `pending` have ended."""
        self.pending: dict[int, Operation] = {}
        """Open attempts, by id."""
        self.late: dict[int, Operation] = {}
        """Attempts that timed out and may still be answered, by id."""
        self.sent_id = 0
        """Id of the last attempt sent."""
        self.unanswered_since_ns: int | None = None
        """When the first attempt since the node's last answer began; None if none began."""
        self.timeout_s = engine._timeout_ns / 1e9
        self.link = engine._new_link(address, engine._transport, self)

    def next_batch(self) -> kv_pb2.OperationBatch | None:
        queue, pending, room = self.queue, self.pending, self._engine._room
        batch = kv_pb2.OperationBatch(client_id=self._engine._client_id)
        add, filled = batch.operations.add, 0
        while queue:
            operation = pending.get(queue[0])
            if operation is None:
                queue.popleft()
                continue
            key, value, expected = operation.key, operation.value, operation.expected
            size = len(key) + len(value) + len(expected or b"") + _OPERATION_OVERHEAD_BYTES
            if size > room:
                self._engine._too_large(self, pending.pop(queue.popleft()), size)
                continue
            filled += size
            if filled > room:
                break
            self.sent_id = attempt_id = queue.popleft()
            if operation.sequence:
                assert operation.session is not None
                add(
                    id=attempt_id,
                    kind=operation.kind,
                    key=key,
                    value=value,
                    expected=expected,
                    session_id=operation.session.id,
                    sequence=operation.sequence,
                )
            else:
                add(id=attempt_id, kind=operation.kind, key=key, value=value, expected=expected)
        return batch if filled else None

    def received(self, batch: kv_pb2.ResultBatch) -> None:
        self._engine._received(self, batch)

    def failed(self, operation_id: int, code: str, message: str) -> None:
        self._engine._failed(self, operation_id, code, message)

    def connected(self) -> None:
        self.down = False

    def broken(self, code: str, message: str) -> None:
        self._engine._broken(self, code, message)


class _Opening:
    """A set of sessions being opened together."""

    def __init__(self, count: int) -> None:
        self.future: asyncio.Future[list[Session]] = asyncio.get_running_loop().create_future()
        self._missing = count
        self._sessions: list[Session] = []

    def completed(self, operation: Operation) -> None:
        if self.future.done():
            return
        if operation.outcome != OK:
            self.future.set_exception(operation_error(operation, "open session"))
            return
        self._sessions.append(Session(operation.number))
        if len(self._sessions) == self._missing:
            self.future.set_result(self._sessions)


class ClientEngine:
    """Send operations to the leader until they are answered or their retry budget is used up.

    The engine belongs to the event loop that starts it; on another loop its methods raise RuntimeError. Usage:

        engine = ClientEngine(addresses, client_id="load-1", on_done=completed)
        engine.start()
        sessions = await engine.open_sessions(64)
        engine.submit([Operation(Kind.PUT, b"k", b"v", session=session) for session in sessions])
        ...                                     # completed(operations) is called, and may submit more
        await engine.close()
    """

    def __init__(
        self,
        addresses: Mapping[str, str] | Iterable[str],
        *,
        client_id: str,
        on_done: Callable[[list[Operation]], None],
        settings: ClientSettings | None = None,
        transport: TransportSettings | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        call: CallForm = "stream",
        link: LinkFactory | None = None,
    ) -> None:
        """Set up an engine for the nodes in `addresses`: node id -> "host:port", or a list of "host:port".

        With a list, leader hints cannot be used. `on_done` receives all operations that completed in one event-loop
        tick, in one list. It is never called from within `submit`, and may itself submit. Operations submitted in one
        tick travel in one batch, or in as few as `transport.message_bytes` allows. `clock` returns monotonic
        nanoseconds. `call` selects a stream, or a unary call per operation; `link` replaces the connection altogether.
        Raises ConfigError for an address that is not host:port, and TypeError for a string in place of a list.
        """
        settings = settings or ClientSettings()
        self._transport = transport or TransportSettings()
        self._client_id = client_id
        self._on_done = on_done
        self._rng = rng or random.Random()
        self._clock = clock
        self._new_link = link or _LINKS[call]
        self._timeout_ns = round(settings.rpc_timeout * 1e9)
        self._budget_ns = round(settings.retry_budget * 1e9)
        self._backoff_ns = [seconds * 1e9 for seconds in settings.retry_backoff]
        self._dedupe = settings.dedupe == "on"
        self._room = self._transport.message_bytes - MESSAGE_OVERHEAD_BYTES

        self._book = _book(addresses)
        self._nodes: dict[str, _Node] = {}
        """Nodes by id, in the order in which they are tried: a randomly drawn ring."""
        self._guess = ""
        self._next_id = 1
        self._done: list[Operation] = []
        self._outstanding = 0
        # (deadline, node, first, end) of the attempts [first, end). All timeouts are equal, so the oldest deadline is
        # always the next. An operation answered in time costs nothing here.
        self._deadlines: deque[tuple[int, _Node, int, int]] = deque()
        # Operations that pause between attempts: (due time, tie-breaker, operation).
        self._paused: list[tuple[int, int, Operation]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._home: Home | None = None
        """The event loop that started the engine."""
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def outstanding(self) -> int:
        """Number of operations submitted and not completed."""
        return self._outstanding

    @property
    def leader(self) -> str | None:
        """The node believed to lead, which gets the next operation first; None if unknown."""
        return self._guess or None

    def start(self) -> None:
        """Begin to connect to all nodes, without waiting. Call this on the event loop that the engine shall use."""
        if self._home is None:
            self._home = Home("a client")
        self.update_addresses(self._book)

    async def close(self) -> None:
        """End all outstanding operations, deliver them to `on_done` and close all connections.

        A write that was sent and not answered ends UNKNOWN; all others end FAIL. The error of all is CANCELLED. After
        this call `submit` raises RuntimeError, even within the last `on_done`.
        """
        if self._home is not None:
            self._home.check()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        now = self._clock()
        for node in self._nodes.values():
            pending, node.pending = node.pending, {}
            for attempt_id, operation in pending.items():
                _record(node, operation, "CANCELLED", now, ambiguous=attempt_id <= node.sent_id)
                self._cancel(operation, now)
            node.late.clear()
            self._retire(node)
        for _, _, operation in self._paused:
            if operation.outcome == OPEN:
                self._cancel(operation, now)
        self._nodes.clear()
        self._paused.clear()
        self._deliver()
        while self._closing:
            await asyncio.wait(self._closing)

    def submit(self, operations: Sequence[Operation]) -> None:
        """Start operations. They complete through `on_done`, even if no node is connected.

        One call per tick with many operations is cheapest. All operations of a call get the same `start_ns`.
        """
        if self._closed or self._home is None:
            raise RuntimeError("the engine is closed, or was not started")
        self._home.check()
        now = self._clock()
        for operation in operations:
            operation.start_ns = now
            session = operation.session
            if session is not None and operation.kind != _GET:
                assert not session.busy, f"session {session.id} has a write outstanding"
                session.busy = True
                session.sequence += 1
                operation.sequence = session.sequence
        self._outstanding += len(operations)
        self._send(self._choose(), operations, now)

    def update_addresses(self, addresses: Mapping[str, str] | Iterable[str]) -> None:
        """Replace the address book.

        A node with a new address gets a new connection at once. Attempts at its old address, or at a removed node, end
        UNAVAILABLE and are retried. Raises the errors of the constructor.
        """
        self._book = _book(addresses)
        if self._home is None or self._closed:
            return
        self._home.check()
        before, self._nodes = self._nodes, {}
        ring = list(self._book)
        self._rng.shuffle(ring)
        for node_id in ring:
            known, address = before.get(node_id), self._book[node_id]
            keep = known is not None and known.address == address
            self._nodes[node_id] = known if known is not None and keep else _Node(self, node_id, address)
        for node_id, node in before.items():
            if self._nodes.get(node_id) is not node:
                self._retire(node)
                self._broken(node, "UNAVAILABLE", f"{node.node_id} is no longer at {node.address}")

    async def open_sessions(self, count: int) -> list[Session]:
        """Open sessions in one batch, with retries within the budget. `on_done` does not receive these operations.

        Raises OperationFailed if any session could not be opened.
        """
        if count == 0:
            return []
        opening = _Opening(count)
        self.submit([Operation(_OPEN_SESSION, b"", token=opening) for _ in range(count)])
        return await opening.future

    # ------------------------------------------------------------------------------ sending

    def _choose(self) -> _Node | None:
        """Return the node to try first for the next operation; None if the address book is empty."""
        node = self._nodes.get(self._guess)
        if node is None or node.down:
            node = self._after(self._guess)
            self._guess = node.node_id if node is not None else ""
        return node

    def _after(self, node_id: str) -> _Node | None:
        """Return the next node of the ring, preferably a node that is not down.

        In the paper (section 8), a client begins at a random node, and tries random nodes after its leader crashed.
        Here each engine draws a random ring for each address book: any node may come first, and any may follow. One
        round of the ring tries all nodes; independent draws would not guarantee that.
        """
        ids = list(self._nodes)
        start = ids.index(node_id) + 1 if node_id in self._nodes else 0
        ring = [self._nodes[each] for each in ids[start:] + ids[:start]]
        return next((node for node in ring if not node.down), ring[0] if ring else None)

    def _send(self, node: _Node | None, operations: Sequence[Operation], now: int) -> None:
        """Begin an attempt of each operation at a node."""
        if not self._dedupe:
            _renumber(operations)
        first = attempt_id = self._next_id
        for operation in operations:
            operation.attempt_id = attempt_id
            operation.attempt_ns = now
            operation.attempts += 1
            attempt_id += 1
        self._next_id = attempt_id
        if node is None or node.down:
            why = "no address is known" if node is None else f"{node.node_id} is down: {node.why}"
            for operation in operations:
                self._ended(node, operation, "UNAVAILABLE", why, now, sent=False)
            return
        node.pending.update(zip(range(first, attempt_id), operations, strict=True))
        node.queue.extend(range(first, attempt_id))
        if node.unanswered_since_ns is None:
            node.unanswered_since_ns = now
        node.link.wake()
        deadline_ns = now + self._timeout_ns
        self._deadlines.append((deadline_ns, node, first, attempt_id))
        self._call_at(deadline_ns)

    def _too_large(self, node: _Node, operation: Operation, size: int) -> None:
        message = f"operation: up to {size} bytes, at most {self._room} fit into a message (transport.message_bytes)"
        self._ended(node, operation, "BAD_ARGUMENT", message, self._clock(), sent=False)

    # ------------------------------------------------------------------------------ results and failures

    def _received(self, node: _Node, batch: kv_pb2.ResultBatch) -> None:
        now = self._clock()
        node.unanswered_since_ns = None
        for result in batch.results:
            operation = node.pending.pop(result.id, None)
            if operation is None:
                operation = self._late(node, result)
                if operation is None:
                    continue
            if result.error:
                code = _ERROR_NAMES.get(result.error) or f"ERROR_{result.error}"
                self._ended(node, operation, code, result.message, now, sent=True, hint=result.leader_hint)
                continue
            kind = operation.kind
            if kind != _PUT:
                operation.found = result.found
                operation.number = result.number
                if result.HasField("value") or (result.found and kind == _GET):
                    operation.result = result.value
            operation.outcome = OK
            operation.error = operation.message = ""
            self._complete(operation, now)
            self._guess = node.node_id

    def _failed(self, node: _Node, attempt_id: int, code: str, message: str) -> None:
        """End an attempt whose unary call failed with a bare status. No late answer can follow."""
        node.late.pop(attempt_id, None)
        operation = node.pending.pop(attempt_id, None)
        if operation is not None:
            rule = _REFUSED_CALLS.get(code, _LOST)
            self._ended(node, operation, code, message, self._clock(), sent=True, rule=rule)

    def _late(self, node: _Node, result: kv_pb2.OperationResult) -> Operation | None:
        """Return the open operation that a late result completes, if any, and drop its current attempt."""
        operation = node.late.pop(result.id, None)
        if operation is None or operation.outcome != OPEN or result.error:
            return None
        for other in self._nodes.values():
            if other.pending.get(operation.attempt_id) is operation:
                del other.pending[operation.attempt_id]
        return operation

    def _broken(self, node: _Node, code: str, message: str) -> None:
        node.down, node.why = True, message
        node.queue.clear()
        node.late.clear()
        node.unanswered_since_ns = None
        pending, node.pending = node.pending, {}
        now = self._clock()
        for attempt_id, operation in pending.items():
            self._ended(node, operation, code, message, now, sent=attempt_id <= node.sent_id)

    def _expire(self, node: _Node, attempts: Iterable[int], now: int) -> None:
        message = f"no answer from {node.node_id} in {self._timeout_ns / 1e9:g} s"
        for attempt_id in attempts:
            operation = node.pending.pop(attempt_id, None)
            if operation is None:
                continue
            sent = attempt_id <= node.sent_id
            self._ended(node, operation, "DEADLINE_EXCEEDED", message, now, sent=sent)
            if sent and operation.outcome == OPEN and operation.trouble is not None:
                node.late[attempt_id] = operation
                operation.trouble.late.append((node.late, attempt_id))
        self._refresh(node, now)

    def _silent(self, node: _Node, now: int) -> bool:
        """Return whether a node has sent no answer for a whole deadline. The engine ignores hints that name this node.

        The node may be a leader isolated with a minority: a follower on its side would name it as the leader for ever.
        """
        since = node.unanswered_since_ns
        return since is not None and now - since >= self._timeout_ns

    def _refresh(self, node: _Node, now: int) -> None:
        """Reconnect to a node that sent no answer for two deadlines and has no open attempts.

        TCP alone would notice a healed network only after a long backoff.
        """
        since = node.unanswered_since_ns
        silent = since is not None and now - since >= 2 * self._timeout_ns
        if silent and not node.pending and self._nodes.get(node.node_id) is node:
            self._nodes[node.node_id] = _Node(self, node.node_id, node.address)
            self._retire(node)

    # ------------------------------------------------------------------------------ retries and outcomes

    def _ended(
        self,
        node: _Node | None,
        operation: Operation,
        code: str,
        message: str,
        now: int,
        *,
        sent: bool,
        hint: str = "",
        rule: _Rule | None = None,
    ) -> None:
        """End an attempt that has no result: retry the operation, or complete it."""
        rule = rule or _RULES.get(code, _LOST)
        trouble = _record(node, operation, code, now, ambiguous=rule.ambiguous and sent)
        operation.error, operation.message = code, message
        # Update the guess even if this operation is not retried: the next operation starts at the guess.
        target = self._redirect(node, operation, code, hint, now) if rule.retry else None
        recognised = operation.sequence or operation.kind in _NO_EFFECT
        in_time = now - operation.start_ns < self._budget_ns
        if not (rule.retry and in_time and (recognised or not trouble.ambiguous)):
            self._give_up(operation, now, ambiguous=rule.ambiguous)
            return
        at_once = not rule.pause or (target is not None and target.node_id == hint)
        if at_once and target is not None and not target.down and trouble.hops < len(self._nodes):
            trouble.hops += 1
            self._send(target, [operation], now)
        else:
            self._pause(operation, trouble, now, ambiguous=rule.ambiguous)

    def _redirect(self, node: _Node | None, operation: Operation, code: str, hint: str, now: int) -> _Node | None:
        """Return the node to try after an attempt at `node`, and update the guess of the leader."""
        if node is None or code == "OVERLOADED":
            return self._choose()
        hinted = self._nodes.get(hint)
        if hinted is not None and hinted is not node and not hinted.down and not self._silent(hinted, now):
            self._guess = hint
            return hinted
        since = node.unanswered_since_ns
        alive = code == "DEADLINE_EXCEEDED" and (since is None or since > operation.attempt_ns)
        other = self._after(node.node_id)
        if self._guess == node.node_id and other is not None and not alive:
            # Keep the guess if the node is alive: a single message may have been lost, and the node may still lead.
            self._guess = other.node_id
        return other if self._guess == node.node_id else self._choose()

    def _pause(self, operation: Operation, trouble: Trouble, now: int, *, ambiguous: bool) -> None:
        first_ns, longest_ns = self._backoff_ns
        delay_ns = min(longest_ns, first_ns * 2.0 ** min(trouble.pauses, 32)) * self._rng.uniform(0.5, 1.0)
        due_ns = now + round(delay_ns)
        if due_ns - operation.start_ns >= self._budget_ns:
            self._give_up(operation, now, ambiguous=ambiguous)
            return
        trouble.pauses += 1
        trouble.hops = 0
        heapq.heappush(self._paused, (due_ns, operation.attempt_id, operation))
        self._call_at(due_ns)

    def _cancel(self, operation: Operation, now: int) -> None:
        operation.error, operation.message = "CANCELLED", "the client was closed"
        self._give_up(operation, now, ambiguous=False)

    def _give_up(self, operation: Operation, now: int, *, ambiguous: bool) -> None:
        """Complete an operation that has no result. `ambiguous`: whether its last attempt is ambiguous."""
        ambiguous = ambiguous or (operation.trouble is not None and operation.trouble.ambiguous)
        # The session stores VALUE_TOO_LARGE as the result, so the attempt that was applied had no effect.
        certain = not ambiguous or operation.error == "VALUE_TOO_LARGE" or operation.kind in _NO_EFFECT
        operation.outcome = FAIL if certain else UNKNOWN
        self._complete(operation, now)

    def _complete(self, operation: Operation, now: int) -> None:
        operation.end_ns = now
        self._outstanding -= 1
        if operation.sequence and operation.session is not None:
            operation.session.busy = False
        if operation.trouble is not None:
            for late, attempt_id in operation.trouble.late:
                late.pop(attempt_id, None)
        if operation.kind == _OPEN_SESSION:
            operation.token.completed(operation)
            return
        if not self._done and self._home is not None:
            self._home.loop.call_soon(self._deliver)
        self._done.append(operation)

    def _deliver(self) -> None:
        done, self._done = self._done, []
        if done:
            self._on_done(done)

    # ------------------------------------------------------------------------------ timers

    def _call_at(self, due_ns: int) -> None:
        """Ensure that `_on_time` runs at `due_ns` or earlier."""
        if self._timer is not None:
            if self._timer_ns <= due_ns:
                return
            self._timer.cancel()
        assert self._home is not None
        self._timer_ns = due_ns
        # Round up: event loops count milliseconds, and a timer that fires too early would make the engine spin.
        delay_s = max(0, due_ns - self._clock()) / 1e9 + 0.0005
        self._timer = self._home.loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now = self._clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, node, first, end = self._deadlines.popleft()
            self._expire(node, range(first, end), now)
        due = []
        while self._paused and self._paused[0][0] <= now:
            operation = heapq.heappop(self._paused)[2]
            if operation.outcome == OPEN:
                due.append(operation)
        if due:
            self._send(self._choose(), due, now)
        ahead = [queue[0][0] for queue in (self._deadlines, self._paused) if queue]
        if ahead:
            self._call_at(max(min(ahead), now + _TIMER_NS))

    def _retire(self, node: _Node) -> None:
        """Close the link of a node in the background. The caller ends the pending attempts of the node."""
        task = asyncio.create_task(node.link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _book(addresses: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    """Return the addresses as node id -> "host:port". Raises TypeError or ConfigError, with a one-line message."""
    if isinstance(addresses, str | bytes):
        raise TypeError(
            f"addresses: must be a mapping of node ids to host:port, or a list of host:port, not {addresses!r} alone; "
            "put it into a list"
        )
    book = dict(addresses) if isinstance(addresses, Mapping) else {address: address for address in addresses}
    for address in book.values():
        try:
            split_address(address)
        except ValueError as error:
            raise ConfigError(f"addresses: {error}") from None
    return book


def _renumber(operations: Iterable[Operation]) -> None:
    """Give retries a new sequence, so that nodes do not recognise them (`client.dedupe: off`, a control)."""
    for operation in operations:
        if operation.attempts and operation.sequence and operation.session is not None:
            operation.session.sequence += 1
            operation.sequence = operation.session.sequence


def _record(node: _Node | None, operation: Operation, code: str, now: int, *, ambiguous: bool) -> Trouble:
    if operation.trouble is None:
        operation.trouble = Trouble()
    trouble = operation.trouble
    trouble.failures.append(Attempt(node.node_id if node is not None else "", code, operation.attempt_ns, now))
    trouble.ambiguous |= ambiguous
    return trouble
