"""The gate through which operations enter a node and answers leave it, for any carrier (services.py; a simulator).

It bounds the memory of a node, and its work in one turn of the event loop:

* Operations without an answer, and answers that have not left, take bytes of one budget (budget.py,
  `limits.pending_bytes`). An operation that does not fit is refused as OVERLOADED, before it has any effect.
* A write pays for its longest possible answer before it is appended, so there is always room for the answer.
* A read on a stream pays when it is answered. Its value is looked up only when the client has read earlier answers.
  That may be long after the read was confirmed, but it is linearizable, because the store only moves forward.
* A retry of a write whose first copy still waits is not appended again: it gets the answer of the first copy.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

from raft_actor_node.config import ANSWER_BYTES, OPERATION_BYTES, VALUE_COPIES, NodeConfig
from raft_actor_node.core import Role
from raft_actor_node.kv.commands import ErrorCode, encode, fault
from raft_actor_node.kv.store import DONE, Result
from raft_actor_node.pb import kv_pb2
from raft_actor_node.runtime.budget import SMALL_BYTES, TURN_OPERATIONS, Answer, Budget, Caller, PendingValues
from raft_actor_node.runtime.driver import Driver

_GET, _CAS, _APPEND = int(kv_pb2.GET), int(kv_pb2.COMPARE_AND_SWAP), int(kv_pb2.APPEND)
_PLAIN = frozenset({_GET, int(kv_pb2.PUT), int(kv_pb2.DELETE), _APPEND})

MESSAGES = {
    ErrorCode.NOT_LEADER: "this node does not lead",
    # Kept short: up to thousands of clients may be refused at a time, and unread refusals take memory.
    ErrorCode.OVERLOADED: "the node is overloaded (limits: pending_operations, pending_bytes, unsynced_bytes) or stops",
    ErrorCode.OUTCOME_UNKNOWN: "appended, then leadership was lost or the node stopped",
    ErrorCode.SESSION_UNKNOWN: "session_id: no such session was opened",
    ErrorCode.SEQUENCE_STALE: "sequence: the session has already used a later one",
    ErrorCode.SEQUENCE_REUSED: "sequence: used before in this session, for another command",
    ErrorCode.VALUE_TOO_LARGE: "value: would grow above limits.value_bytes of the leader",
}
_SESSIONS_FULL = (
    "sessions keep too many values that failed compare-and-swaps returned (limits.session_bytes); "
    "the next write of a session frees its value"
)

Operation = kv_pb2.Operation
Due = tuple[Caller, int, ErrorCode | Result, int]
"""An operation with a known outcome: caller, operation id, outcome, and bytes of the budget."""


class Gate:
    """Entry point of operations from streams and unary calls. Each operation gets exactly one answer."""

    def __init__(self, config: NodeConfig, driver: Driver) -> None:
        self.answered = 0
        self.refused = 0
        self.waiting = 0
        """Number of operations accepted and not answered."""
        self.closed = False
        self.budget = Budget(config.limits.pending_bytes)
        self.value_bytes = config.limits.value_bytes
        self.shortage: Callable[[], None] = lambda: None
        """Called when bytes of the budget are needed and none are free."""
        self._limits = config.limits
        self._driver = driver
        self.get = driver.store.get
        self.kept_bytes_of = driver.store.kept_bytes_of
        self.remembered = driver.store.remembered
        self.values = PendingValues(self.get)
        self.originals: dict[tuple[int, int], tuple[_Writes, int]] = {}
        """Batch of each pending write, and its position in the batch, by session and sequence."""
        self._due: deque[Iterator[Due]] = deque()
        """Operations whose outcomes are known and whose answers are not made yet."""
        self._queue: deque[Caller] = deque()
        """Callers with confirmed reads that may be answered."""
        self._reads_first = False
        self.kept_soon = 0
        """Bytes that pending compare-and-swaps may add to the session table."""
        driver.after_step = self.answer
        driver.at_end = self.answer_all

    def take(self, operations: Sequence[Operation], caller: Caller, *, copies: bool = False) -> None:
        """Accept operations that arrived together. Each is answered once, in any order.

        `copies` means that the operations are copies of one operation. While one copy may take effect, no copy is
        refused.
        """
        limits = self._limits
        operations = self._admit(operations, caller, copies=copies)
        writes = _Writes(self, caller)
        reads = Reads(self, caller)
        at_once: list[Answer] = []
        key_bytes, value_bytes = limits.key_bytes, limits.value_bytes
        allowance = self.budget.for_operations(caller)
        for operation in operations:
            kind, key, value = operation.kind, operation.key, operation.value
            session_id, sequence = operation.session_id, operation.sequence
            expected = operation.expected if kind == _CAS and operation.HasField("expected") else None
            # A fast path: `fault` has the full rules.
            sound = (
                kind in _PLAIN
                and 0 < len(key) <= key_bytes
                and len(value) <= value_bytes
                and (sequence or not session_id)
            )
            if not sound and (
                reason := fault(
                    kind,
                    key,
                    value,
                    expected,
                    session_id=session_id,
                    sequence=sequence,
                    key_bytes=key_bytes,
                    value_bytes=value_bytes,
                )
            ):
                at_once.append(self.error(operation.id, ErrorCode.BAD_ARGUMENT, reason))
                continue
            left = allowance - reads.cost - writes.cost
            if kind == _GET:
                answer = reads.take(operation.id, key, left)
            else:
                payload = encode(
                    kind, key, value, expected, session_id=session_id, sequence=sequence, longest=value_bytes
                )
                identity = (session_id, sequence) if session_id else None
                answer = writes.take(operation.id, payload, kind, key, len(value), identity, left)
            if answer is not None:
                at_once.append(answer)
        if copies and (writes.cost or reads.keys):
            self.waiting -= len(at_once)
            caller.waiting -= len(at_once)
            at_once.clear()
        if at_once:
            refused = sum([answer.error != 0 for answer in at_once])
            self.deliver(caller, at_once, _error_bytes(at_once), refused=refused)
        self.budget.hold(caller, writes.cost + reads.cost)
        if writes.ids:
            writes.generation = self.values.begin()
            self._driver.propose(writes.payloads, writes)
        if reads.keys:
            self._driver.read(reads)

    def _admit(self, operations: Sequence[Operation], caller: Caller, *, copies: bool) -> Sequence[Operation]:
        """Return the operations that fit into `limits.pending_operations`, and refuse the others."""
        free = 0 if self.closed else max(self._limits.pending_operations - self.waiting, 0)
        self.waiting += len(operations)
        caller.waiting += len(operations)
        if len(operations) <= free:
            return operations
        admitted, excess = operations[:free], operations[free:]
        if copies and admitted:
            self.waiting -= len(excess)
            caller.waiting -= len(excess)
        else:
            self.refuse(caller, [operation.id for operation in excess], ErrorCode.OVERLOADED)
        if not self.closed:
            self.shortage()
        return admitted

    def deliver(self, caller: Caller, answers: list[Answer], size: int, *, refused: int = 0) -> None:
        """Give a caller its answers, of `size` bytes; `refused` of them are errors."""
        count = len(answers)
        self.waiting -= count
        caller.waiting -= count
        self.refused += refused
        self.answered += count - refused
        if not caller.closed:
            self.keep(caller, size)
            caller.respond(answers, size)

    @property
    def leads(self) -> bool:
        """Whether this node believes that it leads."""
        return self._driver.node.role == Role.LEADER

    def refuse(self, caller: Caller, ids: Sequence[int], code: ErrorCode, message: str = "") -> None:
        """Answer all of these operations with the same error, at once."""
        answers = [self.error(operation_id, code, message) for operation_id in ids]
        self.deliver(caller, answers, _error_bytes(answers), refused=len(ids))

    def turn_away(self, operations: Sequence[Operation], caller: Caller, message: str) -> None:
        """Refuse operations as BAD_ARGUMENT without accepting them."""
        self.waiting += len(operations)
        caller.waiting += len(operations)
        self.refuse(caller, [operation.id for operation in operations], ErrorCode.BAD_ARGUMENT, message)

    def settle(self, due: Iterator[Due]) -> None:
        """Answer operations with known outcomes: from the end of this step on, within the limits of a turn."""
        self._due.append(due)

    def error(self, operation_id: int, code: ErrorCode, message: str = "") -> Answer:
        """Return the answer with an error."""
        # With OVERLOADED there is no leader hint, so that the client does not return to this node at once.
        hint = self._driver.node.leader_id if code != ErrorCode.OVERLOADED else None
        return Answer(
            id=operation_id,
            error=kv_pb2.ErrorCode.Name(code),
            leader_hint=hint or "",
            message=message or MESSAGES[code],
        )

    def overloaded(self, operation_id: int, cost: int, message: str = "") -> Answer:
        """Return the refusal of an operation that needs `cost` bytes of the budget."""
        if cost > self.budget.limit * 3 // 8:
            # Possible only with parameters that break a rule (config.static_faults).
            reason = f"operation: needs {cost} bytes, more than 3/8 of limits.pending_bytes"
            return self.error(operation_id, ErrorCode.BAD_ARGUMENT, reason)
        self.shortage()
        return self.error(operation_id, ErrorCode.OVERLOADED, message)

    def may_keep(self, session_id: int, size: int) -> bool:
        """Return whether a session may keep a value of `size` bytes in place of its present one."""
        more = max(0, size - self.kept_bytes_of(session_id))
        return self._driver.store.kept_bytes + self.kept_soon + more <= self._limits.session_bytes

    # ------------------------------------------------------------------------------ answers that wait

    def keep(self, caller: Caller, size: int) -> None:
        """Take budget for answers of `size` bytes until they have left the node."""
        caller.unread += size
        self.budget.hold(caller, VALUE_COPIES * size)

    def left(self, caller: Caller, size: int) -> None:
        """Release the budget of answers of `size` bytes that have left the node or are lost."""
        if caller.closed:
            return
        caller.unread -= size
        self._unblock(caller)
        self.release(caller, VALUE_COPIES * size)

    def close(self, caller: Caller) -> None:
        """Close a caller that can no longer get answers. Its operations still take effect."""
        if caller.closed:
            return
        self.left(caller, caller.unread)
        caller.closed = True
        while caller.ready:
            caller.ready.popleft().forget()

    def release(self, caller: Caller, cost: int) -> None:
        """Return bytes to the budget, and retry reads that wait for budget."""
        budget = self.budget
        budget.hold(caller, -cost)
        if budget.starved:
            starved, budget.starved = budget.starved, []
            for each in starved:
                self._unblock(each)

    # ------------------------------------------------------------------------------ reads

    def readable(self, reads: Reads) -> None:
        """Queue confirmed reads, which may be answered from now on."""
        caller = reads.caller
        if caller.closed:
            reads.forget()
            return
        caller.ready.append(reads)
        self._enqueue(caller)

    def answer(self) -> None:
        """Answer due operations and confirmed reads, within the limits of one turn. Which is first alternates."""
        count, left = TURN_OPERATIONS, self._limits.turn_answer_bytes
        parts = self._answer_due, self._answer_reads
        for part in reversed(parts) if self._reads_first else parts:
            number, used = part(count, left)
            count -= number
            left -= used
        self._reads_first = not self._reads_first
        if self._due or self._queue:
            self._driver.wake()

    def answer_all(self) -> None:
        """Make all due answers, because the node ends."""
        while self._due:
            self._answer_due(TURN_OPERATIONS, self._limits.turn_answer_bytes)

    def _answer_due(self, count: int, left: int) -> tuple[int, int]:
        """Make due answers: at most `count` and `left` bytes, but the first answer of a turn may have any length.

        Return their number and bytes.
        """
        first = left == self._limits.turn_answer_bytes
        number = used = 0
        made: defaultdict[Caller, _Made] = defaultdict(_Made)
        while self._due and number < count:
            due = next(self._due[0], None)
            if due is None:
                self._due.popleft()
                continue
            caller, operation_id, outcome, cost = due
            if used + _due_bytes(outcome) > left and (used or not first):
                self._due.appendleft(iter((due,)))
                break
            used += made[caller].add(self.answer_to(operation_id, outcome), cost)
            number += 1
        for caller, each in made.items():
            self.release(caller, each.cost)
            self.deliver(caller, each.answers, each.size, refused=each.refused)
        return number, used

    def _answer_reads(self, count: int, left: int) -> tuple[int, int]:
        """Answer confirmed reads within the same limits, caller by caller. Return their number and bytes."""
        budget, most, most_bytes = self._limits.turn_answer_bytes, count, left
        queue, self._queue = self._queue, deque()
        served = []
        while queue and count > 0 and left > 0:
            caller = queue.popleft()
            caller.queued = False
            number, used = self._answer(caller, count, left, first=left == budget)
            count -= number
            left -= used
            if number:
                served.append(caller)
            elif caller.ready and not caller.blocked:  # its next value is longer than the bytes left in this turn
                caller.queued = True
                queue.appendleft(caller)
                break
        queue.extend(self._queue)
        self._queue = queue
        for caller in served:  # after the callers that got no answer
            self._enqueue(caller)
        return most - count, most_bytes - left

    def answer_to(self, operation_id: int, outcome: ErrorCode | Result) -> Answer:
        """Return the answer to an operation with this outcome."""
        if not isinstance(outcome, Result):
            return self.error(operation_id, outcome)
        if outcome.error:
            return self.error(operation_id, outcome.error)
        return Answer(id=operation_id, found=outcome.found, value=outcome.value, number=outcome.number)

    def _answer(self, caller: Caller, count: int, left: int, *, first: bool) -> tuple[int, int]:
        """Answer reads of a caller: at most `count` and `left` bytes, but any length for the first answer of a turn.

        Return their number and bytes.
        """
        free = self._free(caller) // VALUE_COPIES
        room = min(free, self._limits.turn_answer_bytes - caller.unread)
        get, answers, used, refused = self.get, list[Answer](), 0, 0
        while caller.ready:
            reads = caller.ready[0]
            keys = reads.keys
            while keys:
                operation_id, key = keys[0]
                value = get(key)
                end = used + ANSWER_BYTES + (len(value) if value is not None else 0)
                if len(answers) == count or (end > left and (used or not first)):
                    break
                if VALUE_COPIES * (end - used) > self.budget.limit // 2:  # written under larger limits
                    keys.popleft()
                    answers.append(self.overloaded(operation_id, VALUE_COPIES * (end - used)))
                    refused += 1
                    used += ANSWER_BYTES + len(answers[-1].message)
                    continue
                if end > room and (used or caller.unread or end > free):
                    # Continue when the client has read these answers, or when other callers have returned budget.
                    caller.blocked = True
                    if end > free:
                        self.budget.starved.append(caller)
                        if not caller.unread:  # a client must read its answers before others make room for it
                            self.shortage()
                    break
                keys.popleft()
                used = end
                answers.append(Answer(id=operation_id, found=value is not None, value=value))
            if keys:
                break
            caller.ready.popleft()
            self.release(caller, reads.cost)
        if answers:
            self.deliver(caller, answers, used, refused=refused)
        return len(answers), used

    def _free(self, caller: Caller) -> int:
        """Return the bytes of the budget that answers to reads of a caller may take."""
        if caller.unary and caller.ready:  # it already paid for the value present at its arrival
            return self.budget.limit - self.budget.held + caller.ready[0].cost
        return self.budget.for_answers(caller)

    def _unblock(self, caller: Caller) -> None:
        caller.blocked = False
        self._enqueue(caller)

    def _enqueue(self, caller: Caller) -> None:
        if caller.ready and not caller.queued and not caller.blocked:
            caller.queued = True
            self._queue.append(caller)
            self._driver.wake()


class _Writes:
    """The writes of one batch. Satisfies driver.ProposalSink."""

    def __init__(self, gate: Gate, caller: Caller) -> None:
        self.ids: list[int] = []
        self.payloads: list[bytes] = []
        self.cost = 0
        """Bytes of the budget that these writes take."""
        self.generation = 0
        """Generation in PendingValues."""
        self._costs: list[int] = []
        self._identities: list[tuple[int, int] | None] = []
        """Session and sequence by position; None for a write that a retry cannot find here."""
        self._kept: dict[int, int] = {}
        """Bytes that a write may add to the session table, by position."""
        self._retries: dict[int, list[tuple[Caller, int, int]]] = {}
        """(caller, operation id, cost) of each retry, by position."""
        self._gate = gate
        self._caller = caller
        self._may_remember = gate.leads
        """Whether the session table may answer a retry: only a leader answers clients."""
        self._open = 0
        """Number of unanswered writes."""
        self._end_at = -1
        """Writes before this position still wait; -1: all wait."""

    def take(
        self,
        operation_id: int,
        payload: bytes,
        kind: int,
        key: bytes,
        length: int,
        identity: tuple[int, int] | None,
        left: int,
    ) -> Answer | None:
        """Accept a write of a value of `length` bytes.

        Return the immediate answer, if any: a refusal if it costs more than `left`, or its earlier result.
        """
        gate = self._gate
        cost, kept = OPERATION_BYTES, 0
        if kind == _CAS:
            # The answer may hold the value at that time or, for a retry, the value that its session keeps.
            answer_bytes = max(gate.values.longest(key), gate.kept_bytes_of(identity[0]) if identity else 0)
            cost += VALUE_COPIES * answer_bytes
            kept = answer_bytes if answer_bytes > SMALL_BYTES else 0
        cost += self._caller.request_bytes
        original = gate.originals.get(identity) if identity is not None else None
        if original is None and identity is not None and self._may_remember:
            result = gate.remembered(*identity, payload)
            if result is not None:
                return gate.answer_to(operation_id, result)
        if original is not None and original[0].payloads[original[1]] == payload:
            if cost > left:
                return gate.overloaded(operation_id, cost)
            original[0].retry(original[1], self._caller, operation_id, cost)
            self.cost += cost
            return None
        cost += len(payload)
        if cost > left:
            return gate.overloaded(operation_id, cost)
        if kept and identity is not None:
            if not gate.may_keep(identity[0], kept):
                return gate.overloaded(operation_id, cost, _SESSIONS_FULL)
            gate.kept_soon += kept
            self._kept[len(self.ids)] = kept
        if kind == _APPEND:
            gate.values.note(key, min(gate.values.longest(key) + length, gate.value_bytes))
        elif length > SMALL_BYTES:
            gate.values.note(key, length)
        if original is None and identity is not None:
            gate.originals[identity] = self, len(self.ids)
        else:
            identity = None
        self.ids.append(operation_id)
        self.payloads.append(payload)
        self._costs.append(cost)
        self._open += 1
        self._identities.append(identity)
        self.cost += cost
        return None

    def retry(self, position: int, caller: Caller, operation_id: int, cost: int) -> None:
        """Note a retry of a pending command, which gets the answer of the first copy."""
        self._retries.setdefault(position, []).append((caller, operation_id, cost))

    def applied(self, offset: int, results: Sequence[Result]) -> None:
        end = offset + len(results)
        ids = self.ids[offset:end]
        self._settle(offset, end)
        refused = sum(result.error != 0 for result in results if result is not DONE)
        answer_to = self._gate.answer_to
        answers = [
            Answer(id=operation_id) if result is DONE else answer_to(operation_id, result)
            for operation_id, result in zip(ids, results, strict=True)
        ]
        size = sum([_bytes(result) for result in results if result is not DONE], ANSWER_BYTES * len(results))
        self._gate.deliver(self._caller, answers, size, refused=refused)
        self._settle_retries(offset, end, lambda position: results[position - offset])

    def refused(self) -> None:
        self._end(0, ErrorCode.NOT_LEADER)

    def overloaded(self) -> None:
        self._end(0, ErrorCode.OVERLOADED)

    def lost(self, offset: int) -> None:
        self._end(offset, ErrorCode.OUTCOME_UNKNOWN)

    def _end(self, offset: int, code: ErrorCode) -> None:
        # A part may be lost with the leadership before the rest is lost when the node stops.
        end = len(self.ids) if self._end_at < 0 else self._end_at
        if offset >= end:
            return
        self._end_at = offset
        self._settle(offset, end)
        self._gate.settle((self._caller, operation_id, code, 0) for operation_id in self.ids[offset:end])
        self._settle_retries(offset, end, lambda _: code)

    def _settle_retries(self, offset: int, end: int, outcome: Callable[[int], ErrorCode | Result]) -> None:
        """Answer the retries of the writes [offset, end). `outcome` returns the outcome at a position."""
        for position in range(offset, end) if self._retries else ():
            if retries := self._retries.pop(position, None):
                self._gate.settle(_with(outcome(position), retries))

    def _settle(self, offset: int, end: int) -> None:
        """Release the writes [offset, end), which no longer wait."""
        gate = self._gate
        for identity in self._identities[offset:end]:
            if identity is not None:
                del gate.originals[identity]
        if self._kept:
            gate.kept_soon -= sum(self._kept.pop(position, 0) for position in range(offset, end))
        gate.release(self._caller, sum(self._costs[offset:end]))
        self._open -= end - offset
        if not self._open:
            gate.values.end(self.generation)


class Reads:
    """The gets of one batch. Satisfies driver.ReadSink and budget.ConfirmedReads."""

    def __init__(self, gate: Gate, caller: Caller) -> None:
        self.keys: deque[tuple[int, bytes]] = deque()
        """Id and key of each unanswered get."""
        self.cost = 0
        """Bytes of the budget that these gets take."""
        self.caller = caller
        self._gate = gate

    def take(self, operation_id: int, key: bytes, left: int) -> Answer | None:
        """Accept a get. Return a refusal if it costs more than `left`."""
        cost = OPERATION_BYTES + len(key) + self.caller.request_bytes
        if self.caller.unary:
            cost += VALUE_COPIES * len(self._gate.get(key) or b"")
        if cost > left:
            return self._gate.overloaded(operation_id, cost)
        self.cost += cost
        self.keys.append((operation_id, key))
        return None

    def readable(self) -> None:
        self._gate.readable(self)

    def refused(self) -> None:
        self._gate.release(self.caller, self.cost)
        self._gate.settle((self.caller, operation_id, ErrorCode.NOT_LEADER, 0) for operation_id, _ in self.keys)

    def forget(self) -> None:
        """Release the reads, because their caller is gone."""
        self._gate.waiting -= len(self.keys)
        self.caller.waiting -= len(self.keys)
        self._gate.release(self.caller, self.cost)


class _Made:
    """Answers that one turn made for one caller."""

    __slots__ = ("answers", "cost", "refused", "size")

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.size = 0
        """Upper bound on the bytes of the answers."""
        self.refused = 0
        self.cost = 0
        """Bytes of the budget that the answered operations took."""

    def add(self, answer: Answer, cost: int) -> int:
        """Add an answer. Return the upper bound on its bytes."""
        size = ANSWER_BYTES + len(answer.value) + len(answer.message)
        self.answers.append(answer)
        self.size += size
        self.refused += answer.error != 0
        self.cost += cost
        return size


def _with(outcome: ErrorCode | Result, retries: Sequence[tuple[Caller, int, int]]) -> Iterator[Due]:
    return ((caller, operation_id, outcome, cost) for caller, operation_id, cost in retries)


def _due_bytes(outcome: ErrorCode | Result) -> int:
    return ANSWER_BYTES + (_bytes(outcome) if isinstance(outcome, Result) else len(MESSAGES[outcome]))


def _bytes(result: Result) -> int:
    return len(result.value) if result.value is not None else 0


def _error_bytes(answers: Sequence[Answer]) -> int:
    return sum([ANSWER_BYTES + len(answer.message) for answer in answers])
