"""Where operations enter a node and answers leave it, whatever carries them (services.py; a simulator)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raft_actor_node.config import NodeConfig
from raft_actor_node.kv.commands import ErrorCode, encode, fault
from raft_actor_node.kv.store import DONE, Result
from raft_actor_node.pb import kv_pb2
from raft_actor_node.runtime.driver import Driver

_GET, _CAS = int(kv_pb2.GET), int(kv_pb2.COMPARE_AND_SWAP)
_PLAIN = frozenset({_GET, int(kv_pb2.PUT), int(kv_pb2.DELETE), int(kv_pb2.APPEND)})

MESSAGES = {
    ErrorCode.NOT_LEADER: "this node does not lead",
    ErrorCode.OVERLOADED: "too many operations wait on this node (limits.pending_operations), or it is stopping",
    ErrorCode.OUTCOME_UNKNOWN: "appended, then leadership was lost or the node stopped",
    ErrorCode.SESSION_UNKNOWN: "session_id: no such session was opened",
    ErrorCode.SEQUENCE_STALE: "sequence: the session has gone on to a later one",
    ErrorCode.SEQUENCE_REUSED: "sequence: used before in this session, for another command",
    ErrorCode.VALUE_TOO_LARGE: "value: would grow above limits.value_bytes of the leader",
}

Answer = kv_pb2.OperationResult
Operation = kv_pb2.Operation
Respond = Callable[[list[Answer]], None]
"""Takes answers that became ready at one moment."""


class Gate:
    """Takes operations in, from the stream and from unary calls alike, and gives each one answer."""

    def __init__(self, config: NodeConfig, driver: Driver) -> None:
        self.answered = 0
        self.refused = 0
        self.waiting = 0
        """Operations taken in and not answered."""
        self.closed = False
        self._limits = config.limits
        self._driver = driver

    def take(self, operations: Sequence[Operation], respond: Respond) -> None:
        """Take in operations that arrived together. Each is answered once, through `respond`, in any order."""
        self.waiting += len(operations)
        if self.closed or self.waiting > self._limits.pending_operations:
            self.refuse(respond, [operation.id for operation in operations], ErrorCode.OVERLOADED)
            return
        writes = _Writes(self, respond)
        reads = _Reads(self, respond)
        wrong: list[Answer] = []
        payloads: list[bytes] = []
        key_bytes, value_bytes = self._limits.key_bytes, self._limits.value_bytes
        for operation in operations:
            kind, key, value = operation.kind, operation.key, operation.value
            session_id, sequence = operation.session_id, operation.sequence
            expected = operation.expected if kind == _CAS and operation.HasField("expected") else None
            # The rules are in `fault`; what is plainly sound need not ask it.
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
                wrong.append(self.error(operation.id, ErrorCode.BAD_ARGUMENT, reason))
            elif kind == _GET:
                reads.keys.append((operation.id, key))
            else:
                writes.ids.append(operation.id)
                payloads.append(
                    encode(
                        kind,
                        key,
                        value,
                        expected,
                        session_id=session_id,
                        sequence=sequence,
                        longest=value_bytes,
                    )
                )
        if wrong:
            self.deliver(respond, wrong, refused=len(wrong))
        if payloads:
            self._driver.propose(payloads, writes)
        if reads.keys:
            self._driver.read(reads)

    def get(self, key: bytes) -> bytes | None:
        """What a key holds now."""
        return self._driver.store.get(key)

    def deliver(self, respond: Respond, answers: list[Answer], *, refused: int = 0) -> None:
        """Give answers, `refused` of them errors, to who asked."""
        self.waiting -= len(answers)
        self.refused += refused
        self.answered += len(answers) - refused
        respond(answers)

    def refuse(self, respond: Respond, ids: Sequence[int], code: ErrorCode) -> None:
        """Answer all of these with one error."""
        self.deliver(respond, [self.error(operation_id, code) for operation_id in ids], refused=len(ids))

    def error(self, operation_id: int, code: ErrorCode, message: str = "") -> Answer:
        """The answer that says why not."""
        return Answer(
            id=operation_id,
            error=kv_pb2.ErrorCode.Name(code),
            leader_hint=self._driver.node.leader_id or "",
            message=message or MESSAGES[code],
        )


class _Writes:
    """The writes of one batch; satisfies driver.ProposalSink."""

    def __init__(self, gate: Gate, respond: Respond) -> None:
        self.ids: list[int] = []
        self._gate = gate
        self._respond = respond

    def applied(self, offset: int, results: Sequence[Result]) -> None:
        ids = self.ids[offset : offset + len(results)]
        refused = sum(result.error != 0 for result in results if result is not DONE)
        answers = [
            Answer(id=operation_id) if result is DONE else self._answer(operation_id, result)
            for operation_id, result in zip(ids, results, strict=True)
        ]
        self._gate.deliver(self._respond, answers, refused=refused)

    def refused(self) -> None:
        self._gate.refuse(self._respond, self.ids, ErrorCode.NOT_LEADER)

    def lost(self, offset: int) -> None:
        self._gate.refuse(self._respond, self.ids[offset:], ErrorCode.OUTCOME_UNKNOWN)

    def _answer(self, operation_id: int, result: Result) -> Answer:
        if result.error:
            return self._gate.error(operation_id, result.error)
        return Answer(id=operation_id, found=result.found, value=result.value, number=result.number)


class _Reads:
    """The gets of one batch; satisfies driver.ReadSink."""

    def __init__(self, gate: Gate, respond: Respond) -> None:
        self.keys: list[tuple[int, bytes]] = []
        self._gate = gate
        self._respond = respond

    def readable(self) -> None:
        values = [(operation_id, self._gate.get(key)) for operation_id, key in self.keys]
        answers = [Answer(id=operation_id, found=value is not None, value=value) for operation_id, value in values]
        self._gate.deliver(self._respond, answers)

    def refused(self) -> None:
        self._gate.refuse(self._respond, [operation_id for operation_id, _ in self.keys], ErrorCode.NOT_LEADER)
