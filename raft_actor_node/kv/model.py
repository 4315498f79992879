"""The sequential specification of the store.

It keeps every command, is not optimised, and shares no logic with store.py, so tests can compare the two. `step`
specifies one operation on one key. A linearizability checker needs no more, because operations on different keys are
independent.
"""

from __future__ import annotations

from raft_actor_node.kv.commands import Command, ErrorCode, Kind
from raft_actor_node.kv.store import Result


def step(current: bytes | None, command: Command, *, value_bytes: int) -> tuple[bytes | None, Result]:
    """Return the value after an operation on a key with value `current`, and the result of the operation.

    None means that the key does not exist. `value_bytes` is the longest value for an append without its own limit.
    """
    match command.kind:
        case Kind.GET:
            return current, Result(found=current is not None, value=current)
        case Kind.PUT:
            return command.value, Result()
        case Kind.DELETE:
            return None, Result(found=current is not None)
        case Kind.COMPARE_AND_SWAP:
            swapped = current == command.expected
            return (command.value, Result(found=True)) if swapped else (current, Result(value=current))
        case Kind.APPEND:
            longer = (current or b"") + command.value
            if len(longer) > (value_bytes if command.longest is None else command.longest):
                return current, Result(ErrorCode.VALUE_TOO_LARGE)
            return longer, Result(number=len(longer))
    raise ValueError(f"kind: {command.kind!r} is not about a key")


class Model:
    """A store that keeps every command of every session."""

    def __init__(self, *, value_bytes: int) -> None:
        """`value_bytes` is the longest value for an append without its own limit."""
        self.value_bytes = value_bytes
        self.values: dict[bytes, bytes] = {}
        self.sessions: dict[int, dict[int, tuple[Command, Result]]] = {}

    def apply(self, index: int, command: Command | None) -> Result:
        """Apply the entry at `index` and return its result; `command` is None for the no-op."""
        if command is None:
            return Result()
        if command.session_id == 0:
            return self._execute(index, command)
        if command.session_id not in self.sessions:
            return Result(ErrorCode.SESSION_UNKNOWN)
        past = self.sessions[command.session_id]
        if any(sequence > command.sequence for sequence in past):
            return Result(ErrorCode.SEQUENCE_STALE)
        if command.sequence in past:
            first, result = past[command.sequence]
            # A different leader may have logged the retry, with its own limit.
            same = first == command._replace(longest=first.longest)
            return result if same else Result(ErrorCode.SEQUENCE_REUSED)
        result = self._execute(index, command)
        past[command.sequence] = command, result
        return result

    def _execute(self, index: int, command: Command) -> Result:
        if command.kind is Kind.OPEN_SESSION:
            self.sessions[index] = {}
            return Result(number=index)
        value, result = step(self.values.get(command.key), command, value_bytes=self.value_bytes)
        self.values.pop(command.key, None)
        if value is not None:
            self.values[command.key] = value
        return result
