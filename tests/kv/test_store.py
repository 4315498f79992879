"""The store agrees with the sequential specification; the session rules are tested one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule

from raft_actor_node.core.log import Log
from raft_actor_node.kv.commands import Command, ErrorCode, Kind, decode, encode
from raft_actor_node.kv.model import Model, step
from raft_actor_node.kv.store import DONE, MARK_BYTES, MARK_EVERY, Result, Store, _PrefixHash

VALUE_BYTES = 6
KEYS = st.sampled_from([b"a", b"b", b"\x00"])
VALUES = st.binary(max_size=VALUE_BYTES)
LONGEST = st.none() | st.integers(0, 2 * VALUE_BYTES)
WRITES = [Kind.PUT, Kind.DELETE, Kind.COMPARE_AND_SWAP, Kind.APPEND]

OPEN_SESSION = encode(Kind.OPEN_SESSION)


def put(key: bytes, value: bytes, session_id: int = 0, sequence: int = 0) -> bytes:
    return encode(Kind.PUT, key, value, session_id=session_id, sequence=sequence)


def append(
    key: bytes, value: bytes, session_id: int = 0, sequence: int = 0, *, longest: int | None = VALUE_BYTES
) -> bytes:
    return encode(Kind.APPEND, key, value, session_id=session_id, sequence=sequence, longest=longest)


def store_with(*payloads: bytes, term: int = 1, value_bytes: int = VALUE_BYTES) -> tuple[Store, list[Result]]:
    store = Store(value_bytes=value_bytes)
    return store, store.apply(1, [term] * len(payloads), payloads)


class StoreAgainstModel(RuleBasedStateMachine):
    """Any log, applied in batches of any size, has the same effect on the store as on the model."""

    sessions: Bundle[int] = Bundle("sessions")
    sent: Bundle[bytes] = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(value_bytes=VALUE_BYTES)
        self.model = Model(value_bytes=VALUE_BYTES)
        self.waiting: list[bytes] = []
        self.log: list[tuple[int, bytes]] = []
        self.term = 1

    @property
    def next_index(self) -> int:
        return len(self.log) + len(self.waiting) + 1

    @rule(target=sessions)
    def open_session(self) -> int:
        self.waiting.append(OPEN_SESSION)
        return self.next_index - 1

    @rule(
        target=sent,
        kind=st.sampled_from(WRITES),
        key=KEYS,
        value=VALUES,
        expected=st.none() | VALUES,
        # Ids that were never opened, ids of other entries, and no id; sequences with gaps and steps back.
        session_id=sessions | st.sampled_from([0, 3, 10**9]),
        sequence=st.integers(1, 5),
        longest=LONGEST,
    )
    def write(
        self,
        kind: Kind,
        key: bytes,
        value: bytes,
        expected: bytes | None,
        session_id: int,
        sequence: int,
        longest: int | None,
    ) -> bytes:
        self.waiting.append(
            encode(kind, key, value, expected, session_id=session_id, sequence=sequence, longest=longest)
        )
        return self.waiting[-1]

    @rule(payload=sent)
    def retry(self, payload: bytes) -> None:
        self.waiting.append(payload)

    @rule(payload=sent, longest=LONGEST)
    def retry_with_a_leader_of_another_limit(self, payload: bytes, longest: int | None) -> None:
        kind, key, value, expected, session_id, sequence, _ = decode(payload)
        self.waiting.append(
            encode(kind, key, value, expected, session_id=session_id, sequence=sequence, longest=longest)
        )

    @rule(target=sent, payload=consumes(sent), session_id=sessions, sequence=st.integers(1, 5))
    def move_to_session(self, payload: bytes, session_id: int, sequence: int) -> MultipleResults[bytes]:
        kind, key, value, expected, _, _, longest = decode(payload)
        self.waiting.append(
            encode(kind, key, value, expected, session_id=session_id, sequence=sequence, longest=longest)
        )
        return multiple(payload, self.waiting[-1])

    @rule()
    def new_leader(self) -> None:
        self.apply()
        self.term += 1
        self.waiting.append(b"")

    @rule()
    def apply(self) -> None:
        first, batch = len(self.log) + 1, self.waiting
        self.waiting = []
        results = self.store.apply(first, [self.term] * len(batch), batch)
        self.log += [(self.term, payload) for payload in batch]
        assert results == [
            self.model.apply(index, decode(payload) if payload else None) for index, payload in enumerate(batch, first)
        ]

    @invariant()
    def same_state(self) -> None:
        assert self.store.last_applied == len(self.log)
        assert self.store.key_count == len(self.model.values)
        assert self.store.session_count == len(self.model.sessions)
        for key in (b"a", b"b", b"\x00", b"never"):
            assert self.store.get(key) == self.model.values.get(key)

    def teardown(self) -> None:
        self.apply()
        again = Store(value_bytes=VALUE_BYTES)
        for index, (term, payload) in enumerate(self.log, 1):
            again.apply(index, [term], [payload])
        assert again.applied_hash() == self.store.applied_hash()
        assert again.state_hash() == self.store.state_hash()
        assert again.duplicates_answered == self.store.duplicates_answered


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=200, stateful_step_count=40)


def test_nodes_with_different_limits_answer_alike() -> None:
    """The entry carries the limit of the value's length; the setting of the applying node does not count."""
    log = [
        OPEN_SESSION,
        append(b"k", b"abcd", longest=16),
        append(b"k", b"efgh", 1, 1, longest=7),
        append(b"k", b"efgh", longest=8),
        append(b"k", b"", longest=4),  # a leader whose limit is below the present length
        append(b"k", b"efgh", 1, 1, longest=16),  # the retry, with another leader
    ]
    stores, answers = zip(*(store_with(*log, value_bytes=limit) for limit in (1, 7, 100)), strict=True)
    assert answers[0] == answers[1] == answers[2]
    assert [result.number for result in answers[0]] == [1, 4, 0, 8, 0, 0]
    assert [result.error for result in answers[0][2:]] == [
        ErrorCode.VALUE_TOO_LARGE,
        ErrorCode.OK,
        ErrorCode.VALUE_TOO_LARGE,
        ErrorCode.VALUE_TOO_LARGE,
    ]
    assert len({store.state_hash() for store in stores}) == 1
    assert {store.get(b"k") for store in stores} == {b"abcdefgh"}


def test_an_append_of_an_older_version_is_judged_by_the_limit_of_the_node() -> None:
    log = [append(b"k", b"abcd", longest=None)]
    assert [store_with(*log, value_bytes=limit)[1][0].error for limit in (3, 4)] == [
        ErrorCode.VALUE_TOO_LARGE,
        ErrorCode.OK,
    ]


def test_a_retry_gets_the_original_result_and_has_no_second_effect() -> None:
    store, results = store_with(OPEN_SESSION, append(b"k", b"ab", 1, 1), put(b"k", b"xyz"), append(b"k", b"ab", 1, 1))
    assert results[1] == results[3] == Result(number=2)
    assert store.get(b"k") == b"xyz"
    assert store.duplicates_answered == 1


def test_a_compare_and_swap_that_failed_is_remembered_with_what_it_saw() -> None:
    swap = encode(Kind.COMPARE_AND_SWAP, b"k", b"new", b"other", session_id=1, sequence=1)
    store, results = store_with(OPEN_SESSION, put(b"k", b"old"), swap, put(b"k", b"other"), swap)
    assert results[2] == results[4] == Result(found=False, value=b"old")
    assert store.get(b"k") == b"other"


def test_without_a_session_every_copy_is_applied() -> None:
    store, results = store_with(append(b"k", b"x"), append(b"k", b"x"))
    assert [result.number for result in results] == [1, 2]
    assert store.duplicates_answered == 0


def test_a_sequence_that_its_session_has_passed_is_stale() -> None:
    store, results = store_with(OPEN_SESSION, put(b"k", b"2", 1, 2), put(b"k", b"1", 1, 1), put(b"k", b"2", 1, 2))
    assert results[2].error is ErrorCode.SEQUENCE_STALE
    assert results[3] == DONE
    assert store.get(b"k") == b"2"


def test_a_sequence_is_good_for_one_command_only() -> None:
    store, results = store_with(OPEN_SESSION, put(b"k", b"1", 1, 1), put(b"k", b"2", 1, 1), append(b"k", b"1", 1, 1))
    assert [result.error for result in results[2:]] == [ErrorCode.SEQUENCE_REUSED] * 2
    assert store.get(b"k") == b"1"


def test_sequences_may_leave_gaps() -> None:
    store, results = store_with(OPEN_SESSION, put(b"k", b"1", 1, 4), put(b"k", b"2", 1, 2**64 - 1))
    assert results[1:] == [DONE, DONE]
    assert store.get(b"k") == b"2"


def test_a_session_is_known_from_its_entry_on_and_by_its_index_only() -> None:
    store, results = store_with(put(b"k", b"0", 2, 1), OPEN_SESSION, put(b"k", b"1", 2, 1), put(b"k", b"2", 1, 1))
    assert results[1] == Result(number=2)
    assert [result.error for result in results] == [
        ErrorCode.SESSION_UNKNOWN,
        ErrorCode.OK,
        ErrorCode.OK,
        ErrorCode.SESSION_UNKNOWN,
    ]
    assert store.get(b"k") == b"1"
    assert store.session_count == 1


def test_an_append_that_would_grow_too_long_changes_nothing_and_uses_its_sequence() -> None:
    full = bytes(VALUE_BYTES)
    store, results = store_with(
        OPEN_SESSION, append(b"k", full, 1, 1), append(b"k", b"x", 1, 2), put(b"k", b""), append(b"k", b"x", 1, 2)
    )
    assert results[1] == Result(number=VALUE_BYTES)
    assert results[2] == results[4] == Result(ErrorCode.VALUE_TOO_LARGE)
    assert store.get(b"k") == b""


def test_the_noop_changes_nothing_but_the_position() -> None:
    store, results = store_with(b"", b"")
    assert results == [DONE, DONE]
    assert (store.last_applied, store.key_count) == (2, 0)


@pytest.mark.parametrize("first_index", [0, 1, 3])
def test_entries_must_follow_the_last_one(first_index: int) -> None:
    store, _ = store_with(put(b"k", b"v"))
    with pytest.raises(ValueError, match="do not follow"):
        store.apply(first_index, [1], [put(b"k", b"w")])
    assert (store.get(b"k"), store.last_applied) == (b"v", 1)


@pytest.mark.parametrize("payload", [b"\x01", bytes(29), put(b"k", b"v")[:-1], put(b"k", b"v") + b"x", b"\xff" * 40])
def test_what_is_no_command_cannot_be_applied(payload: bytes) -> None:
    with pytest.raises(ValueError, match="command"):
        store_with(payload)


LOGS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([b"", OPEN_SESSION, put(b"a", b"1"), put(b"a", b"2"), append(b"b", b"x", 1, 1)]),
    ),
    max_size=12,
)


def hash_of(log: list[tuple[int, bytes]], cuts: list[int] | None = None) -> bytes:
    store, at = Store(value_bytes=VALUE_BYTES), 0
    for end in [*sorted(cuts or []), len(log)]:
        batch = log[at:end]
        store.apply(at + 1, [term for term, _ in batch], [payload for _, payload in batch])
        at = max(at, end)
    return store.applied_hash()


@given(LOGS, st.data())
def test_the_applied_hash_tells_logs_apart_and_nothing_else(log: list[tuple[int, bytes]], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=4))
    assert hash_of(log) == hash_of(log, cuts)
    other = data.draw(LOGS)
    assert (hash_of(log) == hash_of(other)) == (log == other)


@given(LOGS, st.data())
def test_the_hash_of_a_prefix_is_what_the_applied_hash_was(log: list[tuple[int, bytes]], data: st.DataObject) -> None:
    store = Store(value_bytes=VALUE_BYTES)
    hashes = [store.applied_hash()]
    for index, (term, payload) in enumerate(log, 1):
        store.apply(index, [term], [payload])
        hashes.append(store.applied_hash())
    index = data.draw(st.integers(0, len(log)))
    assert store.prefix_hash(index) == hashes[index]
    assert store.prefix_hash(len(log) + 1) == b""


def test_the_hash_of_a_prefix_is_over_what_was_applied_not_over_what_the_log_says_now() -> None:
    """A node that applied another entry than the others is found, even if a leader has since repaired its log."""
    good = [put(b"k", b"%d" % k) for k in range(60)]
    bad = [*good[:20], put(b"k", b"another"), *good[21:]]
    log = Log([1] * 60, list(bad))
    store = Store(value_bytes=VALUE_BYTES)
    store.apply(1, log.terms(1, 52), log.payloads(1, 52))
    log.truncate(21)
    log.append([1] * 40, good[20:])
    held = [(1, payload) for payload in bad]
    assert store.prefix_hash(50) == hash_of(held[:50])
    assert store.prefix_hash(20) == hash_of([(1, payload) for payload in good[:20]])


def test_the_hash_of_a_prefix_of_a_long_log_begins_at_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash costs the same wherever the prefix ends, and however large its values are."""
    hashed: list[int] = []
    update = _PrefixHash.update

    def counted(self: _PrefixHash, terms: Sequence[int], payloads: Sequence[bytes]) -> None:
        hashed.append(sum(map(len, payloads)))
        update(self, terms, payloads)

    monkeypatch.setattr(_PrefixHash, "update", counted)
    small = [put(b"k", b"%d" % (k % 1000)) for k in range(3 * MARK_EVERY)]
    large = [put(b"k", bytes([k % 250 + 1]) * (MARK_BYTES // 16)) for k in range(64)]
    for payloads, batch in ((small, 1000), (large, 5)):
        log, store = Log([1] * len(payloads), payloads), Store(value_bytes=MARK_BYTES)
        hashes = {}
        for lo in range(1, len(payloads), batch):
            store.apply(lo, log.terms(lo, lo + batch), log.payloads(lo, lo + batch))
            hashes[store.last_applied] = store.applied_hash()
        hashed.clear()
        for index, digest in hashes.items():
            assert store.prefix_hash(index) == digest
        store.prefix_hash(store.last_applied - 1)
        assert max(hashed) < MARK_BYTES * 21 / 16


def test_the_state_hash_does_not_depend_on_the_order_of_insertion() -> None:
    one, _ = store_with(put(b"a", b"1"), put(b"b", b"2"), encode(Kind.DELETE, b"c"))
    two, _ = store_with(put(b"b", b"2"), put(b"c", b"3"), put(b"a", b"0"), encode(Kind.DELETE, b"c"), put(b"a", b"1"))
    assert one.state_hash() == two.state_hash()
    assert one.applied_hash() != two.applied_hash()


def test_the_state_hash_covers_values_sessions_and_their_results() -> None:
    logs = [
        [],
        [put(b"a", b"1")],
        [put(b"a", b"2")],
        [put(b"b", b"1")],
        [put(b"a", b""), put(b"1", b"")],
        [OPEN_SESSION],
        [b"", OPEN_SESSION],
        [OPEN_SESSION, put(b"a", b"1", 1, 1)],
        [OPEN_SESSION, put(b"a", b"1", 1, 2)],
        [OPEN_SESSION, append(b"a", b"1", 1, 1)],
        [OPEN_SESSION, put(b"a", b"1"), encode(Kind.COMPARE_AND_SWAP, b"a", b"1", b"1", session_id=1, sequence=1)],
        [OPEN_SESSION, put(b"a", b"1"), encode(Kind.COMPARE_AND_SWAP, b"a", b"1", b"0", session_id=1, sequence=1)],
    ]
    hashes = [store_with(*log)[0].state_hash() for log in logs]
    assert len(set(hashes)) == len(logs)


@pytest.mark.parametrize(
    ("current", "command", "after", "result"),
    [
        (None, Command(Kind.GET, b"k"), None, Result(found=False)),
        (b"", Command(Kind.GET, b"k"), b"", Result(found=True, value=b"")),
        (b"v", Command(Kind.PUT, b"k", b"w"), b"w", Result()),
        (None, Command(Kind.DELETE, b"k"), None, Result(found=False)),
        (b"", Command(Kind.DELETE, b"k"), None, Result(found=True)),
        (None, Command(Kind.COMPARE_AND_SWAP, b"k", b"w"), b"w", Result(found=True)),
        (b"", Command(Kind.COMPARE_AND_SWAP, b"k", b"w"), b"", Result(found=False, value=b"")),
        (None, Command(Kind.COMPARE_AND_SWAP, b"k", b"w", b""), None, Result(found=False)),
        (None, Command(Kind.APPEND, b"k", b""), b"", Result(number=0)),
        (b"12345", Command(Kind.APPEND, b"k", b"67"), b"12345", Result(ErrorCode.VALUE_TOO_LARGE)),
    ],
)
def test_the_specification_itself(current: bytes | None, command: Command, after: bytes | None, result: Result) -> None:
    assert step(current, command, value_bytes=VALUE_BYTES) == (after, result)


def test_the_specification_has_no_session_to_open_on_a_key() -> None:
    with pytest.raises(ValueError, match="not about a key"):
        step(None, Command(Kind.OPEN_SESSION), value_bytes=VALUE_BYTES)
