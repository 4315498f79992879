"""Commands of the key-value store and their encoding in a log entry.

This module has the kinds and error codes of kv.proto, the encoding of commands, and the rules for logging them.
store.py defines what a command does.

A command is a header of 29 bytes, little-endian, followed by key, condition and value:

    offset  size
         0     1  kind
         1     4  length of the key
         5     4  length of the condition, signed; -1: there is none
         9     4  length of the value
        13     8  session id, 0 for none
        21     8  sequence in the session

The condition of a compare-and-swap is the expected value; without one, the key must not exist. The condition of an
append is the longest value that it may produce, in 8 bytes: `limits.value_bytes` of the leader that logged it. All
nodes use this number and ignore their own limits. Appends logged by older versions have no condition; for these each
node uses its own limit. No other command has a condition.

No command begins with a zero byte, and each contains its length, so commands can be concatenated. The empty payload is
not a command; it is the no-op entry of a new leader.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

HEADER = struct.Struct("<BIiIQQ")
HEADER_BYTES = HEADER.size
_LONGEST = struct.Struct("<Q")


class Kind(IntEnum):
    """Kind of an operation: OperationKind of kv.proto."""

    PUT = 1
    GET = 2
    DELETE = 3
    COMPARE_AND_SWAP = 4
    APPEND = 5
    OPEN_SESSION = 6


class ErrorCode(IntEnum):
    """Reason why an operation has no result: ErrorCode of kv.proto, which documents each."""

    OK = 0
    NOT_LEADER = 1
    OVERLOADED = 2
    BAD_ARGUMENT = 3
    OUTCOME_UNKNOWN = 4
    SESSION_UNKNOWN = 5
    SEQUENCE_STALE = 6
    SEQUENCE_REUSED = 7
    VALUE_TOO_LARGE = 8


class Command(NamedTuple):
    """A change of the store, as logged."""

    kind: Kind
    key: bytes = b""
    value: bytes = b""
    expected: bytes | None = None
    session_id: int = 0
    sequence: int = 0
    longest: int | None = None
    """Longest value that an append may produce. None in appends of older versions: the node's own limit applies."""


# Every kind but GET: reads are not logged.
_LOGGED = frozenset(int(kind) for kind in Kind) - {int(Kind.GET)}
_KINDS = frozenset(int(kind) for kind in Kind)
_COMPARE_AND_SWAP = int(Kind.COMPARE_AND_SWAP)
_APPEND = int(Kind.APPEND)
_OPEN_SESSION = int(Kind.OPEN_SESSION)


def fault(
    kind: int,
    key: bytes,
    value: bytes,
    expected: bytes | None,
    *,
    session_id: int,
    sequence: int,
    key_bytes: int,
    value_bytes: int,
) -> str | None:
    """Return why an operation must be refused as BAD_ARGUMENT before it is logged, in one line; None if it is valid.

    `key_bytes` and `value_bytes` are the limits in force.
    """
    found = None
    if kind not in _KINDS:
        found = f"kind: {kind} is not an operation"
    elif not key and kind != _OPEN_SESSION:
        found = "key: must not be empty"
    elif len(key) > key_bytes:
        found = f"key: {len(key)} bytes, at most {key_bytes} are allowed"
    elif len(value) > value_bytes:
        found = f"value: {len(value)} bytes, at most {value_bytes} are allowed"
    elif expected is not None and len(expected) > value_bytes:
        found = f"expected: {len(expected)} bytes, at most {value_bytes} are allowed"
    elif session_id and not sequence:
        found = "sequence: must be from 1 in a session"
    return found


def encode(
    kind: int,
    key: bytes = b"",
    value: bytes = b"",
    expected: bytes | None = None,
    *,
    session_id: int = 0,
    sequence: int = 0,
    longest: int | None = None,
) -> bytes:
    """Return the payload of the log entry for a command that passed `fault`.

    It checks only what the layout requires. `expected` counts for a compare-and-swap only, `longest` for an append
    only. Raises ValueError for a kind that is not logged and for numbers outside 64 bits.
    """
    if kind not in _LOGGED:
        raise ValueError(f"kind: {kind} is not a command")
    try:
        condition = None
        if kind == _COMPARE_AND_SWAP:
            condition = expected
        elif kind == _APPEND and longest is not None:
            condition = _LONGEST.pack(longest)
        condition_length = -1 if condition is None else len(condition)
        header = HEADER.pack(kind, len(key), condition_length, len(value), session_id, sequence)
    except struct.error as error:
        raise ValueError(f"command: cannot be encoded: {error}") from None
    return header + key + (condition or b"") + value


def check(payload: bytes) -> None:
    """Raise ValueError unless the payload is a command that `decode` accepts."""
    if len(payload) < HEADER_BYTES:
        raise ValueError(f"command: {len(payload)} bytes, shorter than its header")
    kind, key_length, condition_length, value_length, _, _ = HEADER.unpack_from(payload)
    if kind not in _LOGGED:
        raise ValueError(f"command: kind {kind} does not exist")
    rest = len(payload) - HEADER_BYTES - key_length - value_length
    if condition_length == -1 and rest == 0:
        return
    if rest == condition_length >= 0:
        if kind == _COMPARE_AND_SWAP or (kind == _APPEND and condition_length == _LONGEST.size):
            return
        raise ValueError(f"command: kind {kind} has no condition of {condition_length} bytes")
    raise ValueError(f"command: its lengths do not add up to {len(payload)} bytes")


def decode(payload: bytes) -> Command:
    """Return the command in a payload; the inverse of `encode`. Raises ValueError if the payload is no command."""
    check(payload)
    kind, key_length, condition_length, _, session_id, sequence = HEADER.unpack_from(payload)
    key_end = HEADER_BYTES + key_length
    condition_end = key_end + max(condition_length, 0)
    expected = longest = None
    if kind == _COMPARE_AND_SWAP and condition_length >= 0:
        expected = payload[key_end:condition_end]
    elif condition_length >= 0:
        (longest,) = _LONGEST.unpack_from(payload, key_end)
    return Command(
        Kind(kind),
        payload[HEADER_BYTES:key_end],
        payload[condition_end:],
        expected,
        session_id,
        sequence,
        longest,
    )


def fingerprint(payload: bytes) -> int:
    """Return a CRC-32 over the client's request. The limit that a leader adds to an append does not change it."""
    kind, key_length, condition_length, value_length, session_id, sequence = HEADER.unpack_from(payload)
    if kind != _APPEND or condition_length < 0:
        return crc32(payload)
    rest = memoryview(payload)[HEADER_BYTES:]
    asked = crc32(rest[:key_length], crc32(HEADER.pack(kind, key_length, -1, value_length, session_id, sequence)))
    return crc32(rest[key_length + condition_length :], asked)
