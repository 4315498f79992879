"""Check a history of a few operations by trying every order, with kv/model.py as the store.

In one process, each operation ends before the next one begins, whatever the clock says. Written values are numbers
below 200. The store holds a number as one byte, padded to `size` bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.history import Operation, Value
from raft_actor_node.kv.commands import Command, Kind
from raft_actor_node.kv.model import step
from raft_actor_node.kv.store import Result

_KINDS = {"put": Kind.PUT, "get": Kind.GET, "delete": Kind.DELETE, "cas": Kind.COMPARE_AND_SWAP, "append": Kind.APPEND}
_PADDING = 255


def linearizable(operations: Sequence[Operation]) -> bool:
    """Whether some order of the operations explains every answer. All operations are on one key."""
    todo = [o for o in operations if o.outcome == "ok" or (o.outcome == "info" and o.f != "get")]
    todo.sort(key=lambda o: (o.invoke_ns, o.return_ns))
    return _search(todo, None)


def _search(todo: list[Operation], current: bytes | None) -> bool:
    if all(operation.outcome == "info" for operation in todo):
        return True
    first_return = min(o.return_ns + o.error_ns for o in todo if o.outcome == "ok")
    for at, operation in enumerate(todo):
        if operation.invoke_ns - operation.error_ns > first_return:
            continue
        if any(_before(other, operation) for other in todo[:at]):
            continue
        after, result = step(current, as_command(operation, current), value_bytes=1 << 20)
        explained = operation.outcome == "info" or explains(operation, result)
        if explained and _search(todo[:at] + todo[at + 1 :], after):
            return True
    return False


def _before(one: Operation, other: Operation) -> bool:
    """Whether `one`, which is listed before `other`, precedes it in their process.

    If two operations took no time at the same moment, their order in the list counts. It does not count if the outcome
    of `other` is unknown.
    """
    at_once = other.outcome == "info" and one.invoke_ns == other.invoke_ns
    return one.process == other.process and one.return_ns <= other.invoke_ns and not at_once


def as_command(operation: Operation, current: bytes | None) -> Command:
    """The command for the store. If a cas expects the current value, the expected value gets the same padding."""
    written = operation.written
    value = b"" if written is None else bytes([written[0]]) + bytes([_PADDING]) * ((operation.size or 1) - 1)
    expected = None
    if operation.expected is not None:
        expected = current if decoded(current) == operation.expected else b"another"
    return Command(_KINDS[operation.f], b"key", value, expected)


def explains(operation: Operation, result: Result) -> bool:
    """Whether the store's answer is the one that the client got."""
    match operation.f:
        case "get":
            return bool(decoded(result.value) == operation.observed)
        case "delete":
            return operation.observed is None or result.found == operation.observed
        case "append":
            return operation.observed is None or result.number == operation.observed
        case "cas":
            seen = operation.swapped or decoded(result.value) == operation.observed
            return result.found == operation.swapped and seen
    return True


def decoded(value: bytes | None) -> Value:
    """The written numbers, without the padding."""
    return None if value is None else tuple(byte for byte in value if byte != _PADDING)
