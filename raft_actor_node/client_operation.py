"""What clients exchange with the engine: operations with their outcomes, and sessions.

No decisions here (client_engine.py), and no awaiting (client.py).
"""

from __future__ import annotations

from typing import Any

from raft_actor_node.errors import Attempt, OperationError, OperationFailed, OperationUnknown

# Outcome of an operation, as plain ints so that they can go straight into an array.
OPEN = 0
"""Not completed yet."""
OK = 1
"""Applied and answered (a read: answered)."""
FAIL = 2
"""It certainly had no effect. A read that ended in any error is FAIL too."""
UNKNOWN = 3
"""It may or may not have taken effect, now or later."""
OUTCOME_NAMES = ("open", "ok", "fail", "unknown")


class Session:
    """A client session: within it each write takes effect at most once.

    At most one write may be outstanding per session; that is the caller's duty, and asserted.
    """

    __slots__ = ("busy", "id", "sequence")

    def __init__(self, session_id: int) -> None:
        self.id = session_id
        self.sequence = 0
        """Sequence of the last write."""
        self.busy = False
        """A write is outstanding."""


class Operation:
    """One operation: what the caller asks, and, once it is completed, what became of it.

    Each object is submitted once. A read (GET) takes no part in its session: it may overlap a write.
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
        """None: nothing recognises a retry, so a write is not retried once an attempt was ambiguous."""
        self.intended_ns = intended_ns
        """For the caller: when it should have started. Not touched here."""
        self.token = token
        """For the caller: whatever it wants to find again. Not touched here."""
        self.sequence = 0
        """Its sequence in the session, given by the engine; 0 for a read and without a session."""
        self.start_ns = 0
        """When it was submitted, on the engine's clock."""
        self.end_ns = 0
        """When it completed, on the engine's clock."""
        self.attempts = 0
        """Attempts begun."""
        self.outcome = OPEN
        """OPEN, then OK, FAIL or UNKNOWN."""
        self.found = False
        """As in OperationResult: GET: the key exists. DELETE: it existed. COMPARE_AND_SWAP: swapped."""
        self.result: bytes | None = None
        """GET: the value, None when the key does not exist. COMPARE_AND_SWAP not swapped: the current value."""
        self.number = 0
        """APPEND: length of the value after it."""
        self.error = ""
        """Name of the code of the last attempt (an ErrorCode or a gRPC status); empty when OK."""
        self.message = ""
        """With an error: one line for a person."""
        self.attempt_id = 0
        """For the engine: the last attempt, and below it when that began."""
        self.attempt_ns = 0
        self.trouble: Trouble | None = None
        """For the engine; None as long as no attempt has failed."""

    @property
    def failures(self) -> tuple[Attempt, ...]:
        """The attempts that did not succeed, in order."""
        return tuple(self.trouble.failures) if self.trouble else ()


class Trouble:
    """What only an operation has whose first attempt did not succeed."""

    __slots__ = ("ambiguous", "failures", "hops", "late", "pauses")

    def __init__(self) -> None:
        self.failures: list[Attempt] = []
        self.ambiguous = False
        self.pauses = 0
        """Pauses made between attempts."""
        self.hops = 0
        """Attempts made without a pause since the last pause."""
        self.late: list[tuple[dict[int, Operation], int]] = []
        """Where attempts are noted that passed their deadline and may still be answered."""


def operation_error(operation: Operation, what: str) -> OperationError:
    """The exception for a completed operation that is not OK. `what` begins its message."""
    kind = OperationFailed if operation.outcome == FAIL else OperationUnknown
    tries = f"{operation.attempts} attempt{'s' if operation.attempts != 1 else ''}"
    text = f"{what}: {operation.error} after {tries}"
    if operation.message:
        text += f": {operation.message}"
    return kind(text, operation.error, operation.failures)
