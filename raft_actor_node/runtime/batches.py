"""Splitting of client messages before they are parsed: a message of a few MB can contain a million operations.

An OperationBatch (proto/kv.proto) is a string and a list of operations. Any run of its encoded fields is again a valid
OperationBatch. So a large message is parsed part by part, each part with the name of the client in front.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from raft_actor_node.pb.kv_pb2 import OperationBatch
from raft_actor_node.runtime.budget import TURN_OPERATIONS

PART_BYTES = 64 * 1024
"""Maximum size of a message that is parsed at once. A larger message is parsed in parts of at most this size and
TURN_OPERATIONS fields. An operation that is larger is a part of its own."""
_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}
_CLIENT_ID = OperationBatch.CLIENT_ID_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_LONGEST_VARINT = 10


def parts(message: bytes) -> Iterator[OperationBatch]:
    """Yield the batch in an encoded message, in parts. Raises DecodeError at the first malformed part.

    The name of the client applies from its position in the message on; all known encoders put it first.
    """
    if len(message) <= PART_BYTES:
        yield OperationBatch.FromString(message)
        return
    client, begin, at, fields = b"", 0, 0, 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        at = _end(message, tag & 7, at)
        # Cut before a field of any kind, because a message may consist of names only.
        if (at - begin > PART_BYTES or fields == TURN_OPERATIONS) and start > begin:
            yield OperationBatch.FromString(client + message[begin:start])
            begin, fields = start, 0
        if tag == _CLIENT_ID:
            client = message[start:at]
        fields += 1
    yield OperationBatch.FromString(client + message[begin:])


def _end(message: bytes, wire_type: int, at: int) -> int:
    """Return the end of a field whose content begins at `at`."""
    if wire_type == _LENGTH_DELIMITED:
        length, at = _varint(message, at)
        end = at + length
    elif wire_type == 0:
        _, end = _varint(message, at)
    elif wire_type in _FIXED:
        end = at + _FIXED[wire_type]
    else:
        raise DecodeError(f"OperationBatch: wire type {wire_type} is not supported")
    if end > len(message):
        raise DecodeError("OperationBatch: a field is longer than the message")
    return end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Decode the varint at `at`. Return its value and its end."""
    number = shift = 0
    for position in range(at, min(at + _LONGEST_VARINT, len(message))):
        byte = message[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position + 1
        shift += 7
    raise DecodeError("OperationBatch: a varint is cut off, or longer than 10 bytes")
