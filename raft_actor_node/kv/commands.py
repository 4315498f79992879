"""Commands of the key-value store and their form in a log entry.

Here live the vocabulary that kv.proto defines (kinds, error codes), the bytes that represent a command
in the log, and the rules a command must obey to get there. What a command does is in store.py.

A command is a header of 29 bytes, little-endian, followed by key, expected value and new value:

    offset  size
         0     1  kind
         1     4  length of the key
         5     4  length of the expected value, signed; -1: none is expected (the key must not exist)
         9     4  length of the value
        13     8  session id, 0 for none
        21     8  sequence in the session

No command begins with a zero byte and each says how long it is, so commands can be concatenated. The
empty payload is no command: it is the no-op entry of a new leader.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("<BIiIQQ")


class Kind(IntEnum):
    """What an operation does: OperationKind of kv.proto."""

    PUT = 1
    GET = 2
    DELETE = 3
    COMPARE_AND_SWAP = 4
    APPEND = 5
    OPEN_SESSION = 6


class ErrorCode(IntEnum):
    """Why an operation was not answered with a result: ErrorCode of kv.proto, where each is explained."""

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
    """One change of the store, as it stands in the log."""

    kind: Kind
    key: bytes = b""
    value: bytes = b""
    expected: bytes | None = None
    session_id: int = 0
    sequence: int = 0


# Every kind but GET: reads are not logged.
_LOGGED = frozenset(int(kind) for kind in Kind) - {int(Kind.GET)}
_KINDS = frozenset(int(kind) for kind in Kind)
_COMPARE_AND_SWAP = int(Kind.COMPARE_AND_SWAP)
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
    """Why an operation must be refused as BAD_ARGUMENT before it is logged, in one line; None when sound.

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
) -> bytes:
    """The payload of the log entry for a command.

    It takes what passes `fault`, and checks no more than what the layout itself demands; only a
    compare-and-swap has an expected value. Raises ValueError for a kind that is not logged and for
    numbers outside 64 bits.
    """
    if kind not in _LOGGED:
        raise ValueError(f"kind: {kind} is not a command")
    if kind != _COMPARE_AND_SWAP:
        expected = None
    expected_length = -1 if expected is None else len(expected)
    try:
        header = HEADER.pack(kind, len(key), expected_length, len(value), session_id, sequence)
    except struct.error as error:
        raise ValueError(f"command: cannot be encoded: {error}") from None
    return header + key + (expected or b"") + value


def decode(payload: bytes) -> Command:
    """The command in a payload; the inverse of `encode`. Raises ValueError when there is none."""
    if len(payload) < HEADER.size:
        raise ValueError(f"command: {len(payload)} bytes, shorter than its header")
    kind, key_length, expected_length, value_length, session_id, sequence = HEADER.unpack_from(payload)
    if kind not in _LOGGED:
        raise ValueError(f"command: kind {kind} does not exist")
    key_end = HEADER.size + key_length
    expected_end = key_end + max(expected_length, 0)
    if expected_length < -1 or expected_end + value_length != len(payload):
        raise ValueError(f"command: its lengths do not add up to {len(payload)} bytes")
    if expected_length >= 0 and kind != _COMPARE_AND_SWAP:
        raise ValueError(f"command: kind {kind} expects no value")
    return Command(
        Kind(kind),
        payload[HEADER.size : key_end],
        payload[expected_end:],
        payload[key_end:expected_end] if expected_length >= 0 else None,
        session_id,
        sequence,
    )
