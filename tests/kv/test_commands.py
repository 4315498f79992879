"""Commands and their form in a log entry."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_actor_node.kv.commands import HEADER, Command, ErrorCode, Kind, check, decode, encode, fault, fingerprint
from raft_actor_node.pb import kv_pb2

NUMBERS = st.integers(0, 2**64 - 1)
LOGGED = [kind for kind in Kind if kind is not Kind.GET]
COMMANDS = st.builds(
    Command,
    kind=st.sampled_from(LOGGED),
    key=st.binary(max_size=40),
    value=st.binary(max_size=40),
    expected=st.none(),
    session_id=NUMBERS,
    sequence=NUMBERS,
    longest=st.none(),
) | st.builds(
    Command,
    kind=st.just(Kind.COMPARE_AND_SWAP),
    key=st.binary(max_size=40),
    value=st.binary(max_size=40),
    expected=st.none() | st.binary(max_size=40),
    session_id=NUMBERS,
    sequence=NUMBERS,
    longest=st.none(),
)
APPENDS = st.builds(
    Command,
    kind=st.just(Kind.APPEND),
    key=st.binary(max_size=40),
    value=st.binary(max_size=40),
    expected=st.none(),
    session_id=NUMBERS,
    sequence=NUMBERS,
    longest=st.none() | NUMBERS,
)
COMMANDS = COMMANDS | APPENDS


def payload_of(command: Command) -> bytes:
    kind, key, value, expected, session_id, sequence, longest = command
    return encode(kind, key, value, expected, session_id=session_id, sequence=sequence, longest=longest)


@given(COMMANDS)
def test_decode_inverts_encode(command: Command) -> None:
    payload = payload_of(command)
    assert decode(payload) == command
    assert payload[0] != 0, "a zero byte stands for the no-op in the hash of the log"


@given(COMMANDS, st.data())
def test_a_command_cut_short_or_with_more_behind_it_is_none(command: Command, data: st.DataObject) -> None:
    payload = payload_of(command)
    end = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ValueError, match="command"):
        decode(payload[:end])
    with pytest.raises(ValueError, match="do not add up"):
        decode(payload + b"x")


@given(st.binary(max_size=64))
def test_bytes_are_a_command_or_a_value_error_and_nothing_else(data: bytes) -> None:
    try:
        command = decode(data)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            check(data)
        return
    check(data)
    assert payload_of(command) == data


@given(APPENDS, st.none() | NUMBERS)
def test_an_append_with_another_limit_is_the_same_request(command: Command, longest: int | None) -> None:
    assert fingerprint(payload_of(command)) == fingerprint(payload_of(command._replace(longest=longest)))


@given(COMMANDS, COMMANDS)
def test_another_request_has_another_fingerprint(one: Command, other: Command) -> None:
    same = one._replace(longest=None) == other._replace(longest=None)
    assert (fingerprint(payload_of(one)) == fingerprint(payload_of(other))) == same


def test_the_layout_is_what_the_module_says() -> None:
    payload = encode(Kind.COMPARE_AND_SWAP, b"key", b"new", b"old!", session_id=7, sequence=9)
    assert payload == bytes.fromhex("04 03000000 04000000 03000000 0700000000000000 0900000000000000") + b"keyold!new"
    assert encode(Kind.APPEND, b"key", b"more", session_id=7, sequence=9, longest=258) == (
        bytes.fromhex("05 03000000 08000000 04000000 0700000000000000 0900000000000000")
        + b"key"
        + bytes.fromhex("0201000000000000")
        + b"more"
    )
    # Older versions wrote this to the log.
    old = bytes.fromhex("05 03000000 ffffffff 04000000 0700000000000000 0900000000000000") + b"keymore"
    assert decode(old) == Command(Kind.APPEND, b"key", b"more", session_id=7, sequence=9, longest=None)
    assert decode(encode(Kind.COMPARE_AND_SWAP, b"k", b"v", None)).expected is None
    assert decode(encode(Kind.COMPARE_AND_SWAP, b"k", b"v", b"")).expected == b""


@pytest.mark.parametrize("kind", [0, int(Kind.GET), 7, 255, -1])
def test_what_is_not_logged_cannot_be_encoded_or_decoded(kind: int) -> None:
    with pytest.raises(ValueError, match="kind"):
        encode(kind, b"k")
    with pytest.raises(ValueError, match="kind"):
        decode(HEADER.pack(kind & 255, 1, -1, 0, 0, 0) + b"k")


def test_only_a_compare_and_swap_expects_a_value() -> None:
    assert decode(encode(Kind.PUT, b"k", b"v", b"expected")).expected is None
    with pytest.raises(ValueError, match="has no condition"):
        decode(HEADER.pack(Kind.PUT, 1, 0, 0, 0, 0) + b"k")


@pytest.mark.parametrize("length", [0, 4, 9])
def test_the_limit_of_an_append_has_eight_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"has no condition of {length} bytes"):
        decode(HEADER.pack(Kind.APPEND, 1, length, 0, 0, 0) + b"k" + bytes(length))


@pytest.mark.parametrize("number", [-1, 2**64])
def test_numbers_outside_64_bits_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="command"):
        encode(Kind.PUT, b"k", session_id=number)
    with pytest.raises(ValueError, match="command"):
        encode(Kind.PUT, b"k", sequence=number)
    with pytest.raises(ValueError, match="command"):
        encode(Kind.APPEND, b"k", longest=number)


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        ((Kind.PUT, b"k", b"v", None, 0, 0), None),
        ((Kind.PUT, bytes(4), bytes(8), None, 5, 1), None),
        ((Kind.GET, b"\xff\x00", b"", None, 0, 0), None),
        ((Kind.OPEN_SESSION, b"", b"", None, 0, 0), None),
        ((Kind.COMPARE_AND_SWAP, b"k", b"v", bytes(8), 5, 1), None),
        ((0, b"k", b"v", None, 0, 0), "kind: 0 is not an operation"),
        ((99, b"k", b"v", None, 0, 0), "kind: 99 is not an operation"),
        ((Kind.PUT, b"", b"v", None, 0, 0), "key: must not be empty"),
        ((Kind.GET, bytes(5), b"", None, 0, 0), "key: 5 bytes, at most 4 are allowed"),
        ((Kind.PUT, b"k", bytes(9), None, 0, 0), "value: 9 bytes, at most 8 are allowed"),
        ((Kind.OPEN_SESSION, b"", bytes(9), None, 0, 0), "value: 9 bytes, at most 8 are allowed"),
        ((Kind.COMPARE_AND_SWAP, b"k", b"v", bytes(9), 0, 0), "expected: 9 bytes, at most 8 are allowed"),
        ((Kind.DELETE, b"k", b"", None, 5, 0), "sequence: must be from 1 in a session"),
    ],
)
def test_faults_name_the_field_and_the_limit(
    operation: tuple[int, bytes, bytes, bytes | None, int, int], says: str | None
) -> None:
    kind, key, value, expected, session_id, sequence = operation
    found = fault(kind, key, value, expected, session_id=session_id, sequence=sequence, key_bytes=4, value_bytes=8)
    assert found == says


def test_kinds_and_codes_are_those_of_the_protocol() -> None:
    assert {kind.name: kind.value for kind in Kind} == {
        name: number for name, number in kv_pb2.OperationKind.items() if number
    }
    assert {code.name: code.value for code in ErrorCode} == dict(kv_pb2.ErrorCode.items())
