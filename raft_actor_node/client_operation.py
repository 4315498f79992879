"""Operations with their outcomes, and sessions: the data that clients exchange with the engine.

client_engine.py sends operations and decides their outcomes; client.py awaits them.
"""

from __future__ import annotations

from typing import Any

from raft_actor_node.errors import Attempt, OperationError, OperationFailed, OperationUnknown

# Outcomes of an operation: plain ints, so that they can be stored in an array as they are.
OPEN = 0
"""Not completed yet."""
OK = 1
"""Applied and acknowledged; a read: answered."""
FAIL = 2
"""Certainly without effect. A read that ended in any error is FAIL too."""
UNKNOWN = 3
"""The operation may have taken effect, or may take effect later, or never."""
OUTCOME_NAMES = ("open", "ok", "fail", "unknown")


class Session:
    """A client session, in which each write takes effect at most once.

    The caller may have at most one write outstanding per session; the engine asserts it.
    """

    __slots__ = ("busy", "id", "sequence")

    def __init__(self, session_id: int) -> None:
        self.id = session_id
        self.sequence = 0
        """Sequence number of the last write."""
        self.busy = False
        """Whether a write is outstanding."""


class Operation:
    """An operation: the caller's request and, once completed, its outcome.

    Submit each object once. A read (GET) ignores its session and may overlap a write.
    """

    __slots__ = (
        "attempt_id",
        "attempt_ns",
        "attempts",
        "end_ns",
        "error",
        "expected",
        "found",
        "intended_ns",
        "key",
        "kind",
        "message",
        "number",
        "outcome",
        "result",
        "sequence",
        "session",
        "start_ns",
        "token",
        "trouble",
        "value",
    )

    def __init__(
        self,
        kind: int,
        key: bytes,
        value: bytes = b"",
        *,
        expected: bytes | None = None,
        session: Session | None = None,
        intended_ns: int = 0,
        token: Any = None,
    ) -> None:
        self.kind = kind
        """A Kind of raft_actor_node.kv.commands: PUT, GET, DELETE, COMPARE_AND_SWAP or APPEND."""
        self.key = key
        self.value = value
        self.expected = expected
        self.session = session
        """If None, nodes cannot recognise a retry, so the engine does not retry a write after an ambiguous attempt."""
        self.intended_ns = intended_ns
        """For the caller: when the operation should have started. The engine ignores this time."""
        self.token = token
        """For the caller: any object that helps to handle the completed operation. The engine ignores this object."""
        self.sequence = 0
        """Sequence number in the session, set by the engine; 0 for a read or without a session."""
        self.start_ns = 0
        """Time of submission, on the engine's clock."""
        self.end_ns = 0
        """Time of completion, on the engine's clock."""
        self.attempts = 0
        """Number of attempts begun."""
        self.outcome = OPEN
        """OPEN, then OK, FAIL or UNKNOWN."""
        self.found = False
        """As in OperationResult. GET: the key exists. DELETE: it existed. COMPARE_AND_SWAP: swapped."""
        self.result: bytes | None = None
        """GET: the value; None if the key does not exist. COMPARE_AND_SWAP, not swapped: the current value."""
        self.number = 0
        """APPEND: new length of the value. OPEN_SESSION: id of the session."""
        self.error = ""
        """Code of the last attempt: name of an ErrorCode or a gRPC status; empty if OK."""
        self.message = ""
        """With an error: an explanation in one line."""
        self.attempt_id = 0
        """For the engine: id of the last attempt."""
        self.attempt_ns = 0
        """For the engine: when the last attempt began."""
        self.trouble: Trouble | None = None
        """For the engine; None until an attempt fails."""

    @property
    def failures(self) -> tuple[Attempt, ...]:
        """The failed attempts, in order."""
        return tuple(self.trouble.failures) if self.trouble else ()


class Trouble:
    """State of an operation whose first attempt failed."""

    __slots__ = ("ambiguous", "failures", "hops", "late", "pauses")

    def __init__(self) -> None:
        self.failures: list[Attempt] = []
        self.ambiguous = False
        self.pauses = 0
        """Number of pauses made between attempts."""
        self.hops = 0
        """Number of attempts since the last pause."""
        self.late: list[tuple[dict[int, Operation], int]] = []
        """Attempts that timed out and may still be answered: the `late` table of their node, and their id."""


def operation_error(operation: Operation, what: str) -> OperationError:
    """Return the exception for an operation that completed and is not OK. Its message begins with `what`."""
    kind = OperationFailed if operation.outcome == FAIL else OperationUnknown
    tries = f"{operation.attempts} attempt{'s' if operation.attempts != 1 else ''}"
    text = f"{what}: {operation.error} after {tries}"
    if operation.message:
        text += f": {operation.message}"
    return kind(text, operation.error, operation.failures)
