"""The state machine: keys, values and the session table, changed by log entries only.

Every answer depends only on the state and the entry, so all nodes answer alike. An append carries its own limit on the
value. Sessions and sequences are checked when an entry is applied, never when it arrives (paper, section 8;
dissertation, section 6.3). Leadership, waiting clients and the log are handled elsewhere.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

from raft_actor_node.core.log import Log
from raft_actor_node.kv.commands import HEADER, HEADER_BYTES, Command, ErrorCode, Kind, check, decode, fingerprint


class Result(NamedTuple):
    """Result of a command; the fields have their meaning in OperationResult of kv.proto."""

    error: ErrorCode = ErrorCode.OK
    found: bool = False
    value: bytes | None = None
    number: int = 0


MARK_EVERY = 4096
"""Maximum number of entries between two marks of the rolling hash."""
MARK_BYTES = 1 << 20
"""Payload bytes between two marks, and bytes hashed at once. The rest of the node waits while it hashes them."""
_BUCKETS = 256
"""Number of buckets in which keys are sorted for the hash of the state."""
_HASHED_KEYS = 4096
"""Keys or sessions hashed at once."""
DONE = Result()
"""Result without content, of a put or the no-op."""
_FOUND = Result(found=True)
_SESSION_UNKNOWN = Result(ErrorCode.SESSION_UNKNOWN)
_SEQUENCE_STALE = Result(ErrorCode.SEQUENCE_STALE)
_SEQUENCE_REUSED = Result(ErrorCode.SEQUENCE_REUSED)
_VALUE_TOO_LARGE = Result(ErrorCode.VALUE_TOO_LARGE)

# Plain ints: looking up an enum member costs more than a put.
_PUT = int(Kind.PUT)
_APPEND = int(Kind.APPEND)
_OPEN_SESSION = int(Kind.OPEN_SESSION)


_Session = tuple[int, int, Result]
"""State of a client session: sequence, fingerprint and result of its last command.

The tuple is immutable, so a shallow copy of the session table never changes.
"""
_OPENED: _Session = (0, 0, DONE)


class _PrefixHash:
    """Rolling hash over the terms and payloads of entries 1 to `index`.

    It hashes two byte streams, so batching makes no difference. Commands contain their length, so the streams identify
    the sequence of (term, payload).
    """

    __slots__ = ("_payloads", "_terms", "hashed", "index")

    def __init__(self) -> None:
        self.index = 0
        self.hashed = 0
        """Payload bytes hashed so far."""
        self._terms = hashlib.sha256()
        self._payloads = hashlib.sha256()

    def update(self, terms: Sequence[int], payloads: Sequence[bytes]) -> None:
        self._terms.update(struct.pack(f"<{len(terms)}Q", *terms))
        # No command begins with a zero byte, so it can represent the no-op.
        stream = b"".join([payload or b"\0" for payload in payloads])
        self._payloads.update(stream)
        self.index += len(payloads)
        self.hashed += len(stream)

    def copy(self) -> _PrefixHash:
        twin = _PrefixHash()
        twin.index, twin.hashed = self.index, self.hashed
        twin._terms, twin._payloads = self._terms.copy(), self._payloads.copy()
        return twin

    def digest(self) -> bytes:
        return hashlib.sha256(self._terms.digest() + self._payloads.digest()).digest()[:16]


class Store:
    """The replicated key-value store."""

    def __init__(self, *, value_bytes: int) -> None:
        """`value_bytes` is the longest value for appends without their own limit, which older versions logged."""
        self.last_applied = 0
        """Index of the last entry applied."""
        self.duplicates_answered = 0
        """Number of commands answered from their session because they had been applied before."""
        self.kept_bytes = 0
        """Bytes of values in the session table, kept for retries of failed compare-and-swaps."""
        self._value_bytes = value_bytes
        # In the current call of `apply`: the entry that is always applied, and the bytes that others may still touch.
        self._first = self._left = 0
        self._values: dict[bytes, bytes] = {}
        self._sessions: dict[int, _Session] = {}
        self._applied = Log()
        """All applied entries, independent of the node's log: 16 bytes per entry, because payloads are shared."""
        self._prefix = _PrefixHash()
        self._marks = [_PrefixHash()]
        """Copies of `_prefix` at growing indexes: the hash of a prefix starts at the last mark before its end."""

    @property
    def session_count(self) -> int:
        """Number of sessions opened."""
        return len(self._sessions)

    @property
    def key_count(self) -> int:
        """Number of keys with a value."""
        return len(self._values)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key as of `last_applied`; None if the key does not exist."""
        return self._values.get(key)

    def remembered(self, session_id: int, sequence: int, payload: bytes) -> Result | None:
        """Return the result of this command if it is the last that its session applied; applied means committed.

        Return None if the command must go through the log. So must a command whose result has a value, because that
        result costs as much here as through the log.
        """
        last, crc, result = self._sessions.get(session_id, _OPENED)
        if sequence != last or result.value or fingerprint(payload) != crc:
            return None
        self.duplicates_answered += 1
        return result

    def kept_bytes_of(self, session_id: int) -> int:
        """Return the share of a session in `kept_bytes`."""
        _, _, result = self._sessions.get(session_id, _OPENED)
        return len(result.value or b"")

    def apply(
        self, first_index: int, terms: Sequence[int], payloads: Sequence[bytes], budget: int = 1 << 62
    ) -> list[Result]:
        """Apply the entries from `first_index` on; return one result per applied entry.

        It stops before an entry that would exceed `budget` touched bytes: payloads, values that appends read and write,
        and values that compare-and-swaps compare. The first entry is always applied.

        An empty payload is the no-op. Raises ValueError if the entries do not follow `last_applied` or one is not a
        command. That is a bug or foreign data; this store must not be used afterwards.
        """
        if first_index != self.last_applied + 1 or len(terms) != len(payloads):
            raise ValueError(f"{len(payloads)} entries from {first_index} do not follow entry {self.last_applied}")
        apply, results = self._apply, list[Result]()
        self._first, self._left = first_index, budget - sum(map(len, payloads))
        for index, payload in enumerate(payloads, first_index):
            result = apply(index, payload) if self._left >= 0 or index == first_index else None
            if result is None:
                terms, payloads = terms[: len(results)], payloads[: len(results)]
                break
            results.append(result)
        self._applied.append(terms, payloads)
        self.last_applied += len(payloads)
        prefix, mark = self._prefix, self._marks[-1]
        prefix.update(terms, payloads)
        if prefix.index - mark.index >= MARK_EVERY or prefix.hashed - mark.hashed >= MARK_BYTES:
            self._marks.append(prefix.copy())
        return results

    def applied_hash(self) -> bytes:
        """Return a 16-byte hash over the terms and payloads of entries 1 to `last_applied`.

        Equal prefixes have equal hashes, regardless of batching.
        """
        return self._prefix.digest()

    def prefix_hash(self, index: int) -> bytes:
        """Return what `applied_hash` was once `index` had been applied; empty if it has not been applied."""
        if index > self.last_applied:
            return b""
        applied = self._applied
        prefix = self._marks[bisect_right(self._marks, index, key=lambda mark: mark.index) - 1].copy()
        lo, end = prefix.index + 1, index + 1
        prefix.update(applied.terms(lo, end), applied.payloads(lo, end))
        return prefix.digest()

    def state_hash(self) -> bytes:
        """Return a 16-byte hash over keys, values and sessions, in time proportional to them."""
        hashing = self.hash_state()
        while True:
            try:
                next(hashing)
            except StopIteration as done:
                digest: bytes = done.value
                return digest

    def hash_state(self) -> Generator[None, None, bytes]:
        """Compute `state_hash` in small steps. The first copies the state; later entries do not change the hash."""
        values = self._values.copy()
        sessions = self._sessions.copy()
        yield
        buckets: list[list[bytes]] = [[] for _ in range(_BUCKETS)]
        for number, key in enumerate(values):
            buckets[crc32(key) % _BUCKETS].append(key)
            if number % _HASHED_KEYS == 0:
                yield
        state = hashlib.sha256(struct.pack("<Q", len(values)))
        for bucket in buckets:
            bucket.sort()
            for run in _runs(bucket, values):
                # In bulk: with many keys, this takes a tenth of the time of an update per key.
                for column in (run, [values[key] for key in run]):
                    state.update(struct.pack(f"<{len(column) + 1}Q", len(column), *map(len, column)))
                    state.update(b"".join(column))
                yield
        # Sessions are already in the order of their ids: each id is the index of the entry that opened the session.
        for number, (session_id, (sequence, crc, (error, found, value, count))) in enumerate(sessions.items()):
            state.update(struct.pack("<QQI", session_id, sequence, crc))
            length = -1 if value is None else len(value)
            state.update(struct.pack("<BBQq", error, found, count, length) + (value or b""))
            if number % _HASHED_KEYS == 0 or length >= MARK_BYTES:
                yield
        return state.digest()[:16]

    def _touch(self, index: int, size: int) -> bool:
        """Return whether an entry may touch `size` more bytes in this call of `apply`; if so, count them."""
        if size > self._left and index != self._first:
            return False
        self._left -= size
        return True

    def _apply(self, index: int, payload: bytes) -> Result | None:
        """Apply an entry and return its result. Return None, without effect, if it needs more bytes than are left."""
        if not payload:
            return DONE
        try:
            kind, key_length, condition_length, value_length, session_id, sequence = HEADER.unpack_from(payload)
        except struct.error:
            raise ValueError(f"entry {index}: {len(payload)} bytes are no command") from None
        session = None
        if session_id:
            session = self._sessions.get(session_id)
            crc = crc32(payload) if kind != _APPEND else fingerprint(payload)
            if session is None or sequence <= session[0]:
                check(payload)  # The entry has no effect, but must still be a command.
                return _SESSION_UNKNOWN if session is None else self._repeated(index, session, sequence, crc)
        value_at = HEADER_BYTES + key_length
        if kind == _PUT and condition_length == -1 and value_at + value_length == len(payload):
            # The common case, without the cost of making a Command.
            self._values[payload[HEADER_BYTES:value_at]] = payload[value_at:]
            result = DONE
        else:
            executed = self._execute(index, decode(payload))
            if executed is None:
                return None
            result = executed
        if session is not None:
            before = session[2]
            if result is not DONE or before is not DONE:
                self.kept_bytes += len(result.value or b"") - len(before.value or b"")
            self._sessions[session_id] = sequence, crc, result
        return result

    def _repeated(self, index: int, session: _Session, sequence: int, crc: int) -> Result | None:
        """Return the result of a command whose sequence its session has reached or passed."""
        last, last_crc, result = session
        if sequence < last:
            return _SEQUENCE_STALE
        if crc != last_crc:
            return _SEQUENCE_REUSED
        if not self._touch(index, len(result.value or b"")):
            return None
        self.duplicates_answered += 1
        return result

    def _execute(self, index: int, command: Command) -> Result | None:
        kind, key = command.kind, command.key
        if kind is Kind.OPEN_SESSION:
            self._sessions[index] = _OPENED
            return Result(number=index)
        if kind is Kind.DELETE:
            return DONE if self._values.pop(key, None) is None else _FOUND
        return self._revise(index, command)

    def _revise(self, index: int, command: Command) -> Result | None:
        """Apply a compare-and-swap or an append, which depend on the current value."""
        kind, key, value = command.kind, command.key, command.value
        current = self._values.get(key)
        length = len(current or b"")
        # A compare-and-swap reads the value; an append also copies it.
        if not self._touch(index, length if kind is Kind.COMPARE_AND_SWAP else 2 * length):
            return None
        if kind is Kind.COMPARE_AND_SWAP:
            if current != command.expected:
                return Result(value=current)
            self._values[key] = value
            return _FOUND
        assert kind is Kind.APPEND, "a put takes the fast path in `_apply`; no other kind exists"
        if length + len(value) > (self._value_bytes if command.longest is None else command.longest):
            return _VALUE_TOO_LARGE
        self._values[key] = (current or b"") + value
        return Result(number=length + len(value))


def _runs(keys: Sequence[bytes], values: Mapping[bytes, bytes]) -> Iterator[list[bytes]]:
    """Yield runs of keys in order, each as large as is hashed at once."""
    run: list[bytes] = []
    size = 0
    for key in keys:
        run.append(key)
        size += len(key) + len(values[key])
        if size >= MARK_BYTES or len(run) >= _HASHED_KEYS:
            yield run
            run, size = [], 0
    if run:
        yield run
