"""Damage to the files of a log at rest.

The log is cut at every byte and flipped at every bit. Sectors are zeroed or overwritten. Stale bytes lie behind the
tail. Files are missing, doubled or of another log. The test parses the units of the sample by the documented layout,
not by the code under test. Every outcome belongs to one of the categories of torture.py; none is ever wrong data.
"""

from __future__ import annotations

import itertools
import os
import random
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.sim_cluster.disk import SECTOR_BYTES, SimDisk
from raft_actor_node.errors import DataCorrupt
from raft_actor_node.runtime.hard_state import StoredHardState, encode_hard_state
from raft_actor_node.runtime.wal import HARD_STATE_NAMES, LOG_NAME, MARK_NAME, Recovered
from raft_actor_node.runtime.wal_format import DurableMark, decode_segment_header, encode_mark, encode_unit, replay
from tests.runtime.torture import DIRECTORY, OUTCOMES, open_wal, sim_disk

UNIT = struct.Struct("<8sQQQQQIII")

State = tuple[list[tuple[int, bytes]], int]
"""Entries (term, payload) and commit index."""


def open_and_close(disk: SimDisk) -> Recovered:
    wal, recovered = open_wal(disk)
    wal.close()
    return recovered


def state_of(recovered: Recovered) -> State:
    return list(zip(recovered.terms, recovered.payloads, strict=True)), recovered.commit_index


@dataclass
class Sample:
    """A closed log with every kind of content, and the state at the end of each unit."""

    disk: SimDisk
    files: dict[str, bytes]
    nonce: bytes
    ends: list[int]
    """The offset behind the segment header and behind each unit."""
    chains: list[int]
    states: list[State]

    def put(self, changed: dict[str, bytes]) -> dict[str, bytes]:
        """Write the sample to the directory, with some of the files changed."""
        files = self.files | changed
        for name in self.contents().keys() - files.keys():
            self.disk.put(DIRECTORY / name, None)
        for name, data in files.items():
            self.disk.put(DIRECTORY / name, data)
        return files

    def mark(self, unit: int) -> bytes:
        """The durable mark as it was written behind a unit (0: when the log was created)."""
        return encode_mark(self.nonce, DurableMark(self.ends[unit], self.chains[unit]))

    def contents(self) -> dict[str, bytes]:
        return {path.name: data for path, data in self.disk.contents().items()}


Calls = list[tuple[int, list[int], list[bytes], int]]


SAMPLE_CALLS: Calls = [
    (1, [1], [b""], 0),
    (2, [1, 1, 1], [b"two", b"three" * 9, b""], 1),
    (3, [4, 4], [b"THREE", b"FOUR"], 2),
    (5, [], [], 3),
    (5, [4], [b"\xff" * 20], 4),
]


@pytest.fixture
def sample() -> Sample:
    return make_sample(SAMPLE_CALLS)


@pytest.fixture
def long_sample() -> Sample:
    """A sample whose units take from less than a sector to several."""
    return make_sample([(i, [4], [b"%d" % i * 97 * i], i - 1) for i in range(1, 21)])


def make_sample(calls: Calls, nonce_of: str = "n1") -> Sample:
    disk = sim_disk(nonce_of)
    wal, _ = open_wal(disk, bootstrap=True)
    states: list[State] = [([], 0)]
    for term, vote in ((1, None), (4, "n2")):
        wal.save_hard_state(term, vote)
    for first_index, terms, payloads, commit_index in calls:
        wal.append(first_index, terms, payloads, commit_index)
        log = states[-1][0][: first_index - 1] + list(zip(terms, payloads, strict=True))
        states.append((log, commit_index))
    wal.close()
    files = {path.name: data for path, data in disk.contents().items()}
    log_bytes = files[LOG_NAME]
    segment = decode_segment_header(log_bytes, "")
    ends, chains = [segment.header_bytes], [segment.crc]
    while ends[-1] < len(log_bytes):
        fields = UNIT.unpack_from(log_bytes, ends[-1])
        ends.append(ends[-1] + UNIT.size + fields[5])
        chains.append(fields[7])
    assert len(ends) == len(calls) + 1
    return Sample(disk, files, segment.nonce, ends, chains, states)


def assert_refused(sample: Sample, before: dict[str, bytes], match: str = LOG_NAME) -> None:
    with pytest.raises(DataCorrupt, match=match):
        open_and_close(sample.disk)
    assert sample.contents() == before


def assert_second_open_changes_nothing(sample: Sample, first: Recovered) -> None:
    before = sample.contents()
    second = open_and_close(sample.disk)
    assert state_of(second) == state_of(first)
    assert second.warnings == []
    assert sample.contents() == before


def test_the_layout_is_as_documented(sample: Sample) -> None:
    log_bytes = sample.files[LOG_NAME]
    header = b"RAFTWAL\n" + struct.pack("<IQ", 2, 1) + sample.nonce + struct.pack("<HHH", 1, 2, 8) + b"cn1n1,n2,n3"
    assert log_bytes[: sample.ends[0]] == header + struct.pack("<I", crc32(header))
    start, end = sample.ends[2], sample.ends[3]
    body = struct.pack("<QQII", 4, 4, 5, 4) + b"THREEFOUR"
    fields = struct.pack("<8sQQQQQI", sample.nonce, start, 3, 2, start, len(body), 2)
    chained = fields + struct.pack("<I", crc32(body, crc32(fields, sample.chains[2])))
    assert log_bytes[start:end] == chained + struct.pack("<I", crc32(chained)) + body
    assert sample.files[MARK_NAME] == sample.mark(len(sample.ends) - 1)
    assert {len(sample.files[name]) for name in ("hard-state-a", "hard-state-b")} == {128}


def judge(sample: Sample, damaged: bytes, marked: int) -> str:
    """Open a damaged log, check the outcome against the layout, count it, and return it.

    All units of the sample were promised, and the durable mark covers the first `marked` of them.
    """
    log_bytes, ends = sample.files[LOG_NAME], sample.ends
    before = sample.put({LOG_NAME: damaged, MARK_NAME: sample.mark(marked)})
    first_bad = next((i for i, (a, b) in enumerate(zip(damaged, log_bytes, strict=False)) if a != b), len(damaged))
    if first_bad >= len(log_bytes):
        outcome, kept = "cut", len(ends) - 1
    else:
        bad = sum(end <= first_bad for end in ends)  # 0 is the header, i the i-th unit
        later_headers = (slice(end, end + UNIT.size) for end in ends[bad:-1])
        if bad <= marked or any(damaged[header] == log_bytes[header] for header in later_headers):
            assert_refused(sample, before)
            OUTCOMES["refused"] += 1
            return "refused"
        outcome, kept = "indistinguishable", bad - 1
    recovered = open_and_close(sample.disk)
    assert state_of(recovered) == sample.states[kept]
    torn_bytes = len(damaged) - ends[kept]
    if damaged[ends[kept] :].strip(b"\0"):
        (warning,) = recovered.warnings
        assert f"{LOG_NAME}: offset {ends[kept]}: cut off {torn_bytes} bytes of a torn last unit" in warning
    else:
        assert recovered.warnings == [], "zeros are room, as it is written ahead of the log"
    assert sample.contents()[LOG_NAME] == log_bytes[: ends[kept]]
    assert_second_open_changes_nothing(sample, recovered)
    OUTCOMES[outcome] += 1
    return outcome


@pytest.mark.parametrize("marked", [5, 4, 0])
def test_a_log_cut_at_any_byte_keeps_what_was_marked_or_is_refused(sample: Sample, marked: int) -> None:
    log_bytes = sample.files[LOG_NAME]
    outcomes = Counter(judge(sample, log_bytes[:size], marked) for size in range(len(log_bytes)))
    unmarked = len(log_bytes) - sample.ends[marked]
    assert outcomes == Counter(refused=sample.ends[marked], indistinguishable=unmarked)


@pytest.mark.parametrize("marked", [5, 4], ids=["marked to the end", "last unit above the mark"])
def test_no_flipped_bit_is_ever_taken_for_data(sample: Sample, marked: int) -> None:
    """The mark covers everything after a clean close, and after each append while the machine stays up.

    A power failure may leave the mark behind, as the mark is not synced.
    """
    log_bytes = sample.files[LOG_NAME]
    outcomes = Counter(judge(sample, flipped(log_bytes, bit), marked) for bit in range(8 * len(log_bytes)))
    last_bits = 8 * (sample.ends[5] - sample.ends[marked])
    assert outcomes == Counter(refused=8 * len(log_bytes) - last_bits, indistinguishable=last_bits)


@pytest.mark.parametrize("name", [*HARD_STATE_NAMES, MARK_NAME])
def test_a_flipped_bit_in_a_small_file_is_repaired(sample: Sample, name: str) -> None:
    for bit in range(8 * len(sample.files[name])):
        sample.put({name: flipped(sample.files[name], bit)})
        _, recovered = open_wal(sample.disk)
        assert (recovered.current_term, recovered.voted_for) == (4, "n2")
        assert state_of(recovered) == sample.states[5]
        assert [f"{name}: was damaged" in warning for warning in recovered.warnings] == [True]
        assert sample.contents() == sample.files
        sample.disk.kill()
        OUTCOMES["repaired"] += 1


@pytest.mark.parametrize("name", [*HARD_STATE_NAMES, MARK_NAME])
def test_a_small_file_cut_at_any_byte_is_repaired(sample: Sample, name: str) -> None:
    data = sample.files[name]
    for size in range(len(data)):
        sample.put({name: data[:size]})
        recovered = open_and_close(sample.disk)
        assert (recovered.current_term, recovered.voted_for) == (4, "n2")
        assert state_of(recovered) == sample.states[5]
        assert [f"{name}: was damaged" in warning for warning in recovered.warnings] == [True]
        assert sample.contents() == sample.files
        OUTCOMES["repaired"] += 1


@pytest.mark.parametrize("name", HARD_STATE_NAMES)
def test_a_small_file_cut_at_any_byte_beside_a_bad_one_is_refused(sample: Sample, name: str) -> None:
    """The hard state has two copies; the other one is empty here."""
    other = next(each for each in HARD_STATE_NAMES if each != name)
    for size in range(len(sample.files[name])):
        before = sample.put({name: sample.files[name][:size], other: b""})
        assert_refused(sample, before, match="no copy of term and vote is good")
        OUTCOMES["refused"] += 1


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_overwritten_bytes_are_refused_or_cut_off_as_a_tail(sample: Sample) -> None:
    log_bytes = sample.files[LOG_NAME]

    @settings(max_examples=400, database=None)
    @given(st.integers(0, 5), st.integers(0, len(log_bytes) - 1), st.integers(1, 300), st.booleans(), st.randoms())
    def check(marked: int, start: int, size: int, zeros: bool, chance: Any) -> None:
        stop = min(start + size, len(log_bytes))
        noise = bytes(stop - start) if zeros else chance.randbytes(stop - start)
        judge(sample, log_bytes[:start] + noise + log_bytes[stop:], marked)

    check()


def test_any_zeroed_or_random_sectors_are_refused_or_cut_off_as_a_tail(long_sample: Sample) -> None:
    """Each run of sectors, in the middle and at the tail, with the mark at each unit."""
    sample, chance = long_sample, random.Random(0)
    log_bytes, units = sample.files[LOG_NAME], len(sample.ends) - 1
    sectors = range(0, len(log_bytes), SECTOR_BYTES)
    assert len(sectors) > 2 * units > 30
    outcomes: Counter[str] = Counter()
    for start, length in itertools.product(sectors, (1, 2, 7, len(sectors))):
        stop = min(start + length * SECTOR_BYTES, len(log_bytes))
        for noise in (bytes(stop - start), chance.randbytes(stop - start)):
            damaged = log_bytes[:start] + noise + log_bytes[stop:]
            for marked in (units, units - 1, chance.randrange(units)):
                outcomes[judge(sample, damaged, marked)] += 1
    assert set(outcomes) == {"refused", "indistinguishable"}
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("room", [0, 1, 700])
def test_stale_bytes_behind_the_tail_are_cut_off(sample: Sample, room: int) -> None:
    """A file system may leave earlier units of this log or of another one there, whole or in part."""
    log_bytes, ends, chance = sample.files[LOG_NAME], sample.ends, random.Random(0)
    twin = make_sample(SAMPLE_CALLS, nonce_of="a twin")
    pieces = [chance.randbytes(100), log_bytes, twin.files[LOG_NAME], twin.files[LOG_NAME][ends[-2] :]]
    for start, end in itertools.combinations(ends, 2):
        pieces += [log_bytes[start:end], log_bytes[start : end - 1], log_bytes[start + UNIT.size :]]
    for marked, piece in itertools.product((0, 4, 5), pieces):
        assert judge(sample, log_bytes + bytes(room) + piece, marked) == "cut"


def test_room_is_no_damage(sample: Sample) -> None:
    sample.put({LOG_NAME: sample.files[LOG_NAME] + bytes(SimDisk.room_bytes)})
    recovered = open_and_close(sample.disk)
    assert (state_of(recovered), recovered.warnings) == (sample.states[5], [])
    assert sample.contents() == sample.files


# ------------------------------------------------------------------------------ files


def test_any_missing_files_are_restored_or_missed(sample: Sample) -> None:
    names = (LOG_NAME, *HARD_STATE_NAMES, MARK_NAME)
    for missing in (set(some) for size in (1, 2, 3, 4) for some in itertools.combinations(names, size)):
        sample.put({})
        for name in sorted(missing):
            sample.disk.put(DIRECTORY / name, None)
        before = sample.contents()
        if LOG_NAME in missing or missing.issuperset(HARD_STATE_NAMES):
            match = "must not come back empty" if LOG_NAME in missing else "no copy of term and vote is good"
            assert_refused(sample, before, match=match)
            OUTCOMES["refused"] += 1
            continue
        recovered = open_and_close(sample.disk)
        assert state_of(recovered) == sample.states[5]
        assert len(recovered.warnings) == len(missing)
        assert all(any(f"{name}: was missing" in line for line in recovered.warnings) for name in missing)
        assert sample.contents() == sample.files
        OUTCOMES["repaired"] += 1


def test_any_file_of_another_log_is_refused_or_replaced(sample: Sample) -> None:
    twin = make_sample(SAMPLE_CALLS, nonce_of="a twin")
    for name in (LOG_NAME, *HARD_STATE_NAMES, MARK_NAME):
        before = sample.put({name: twin.files[name]})
        if name == LOG_NAME:
            assert_refused(sample, before, match="no copy of term and vote is good")
            OUTCOMES["refused"] += 1
            continue
        recovered = open_and_close(sample.disk)
        assert [f"{name}: was damaged" in warning for warning in recovered.warnings] == [True]
        assert sample.contents() == sample.files
        OUTCOMES["repaired"] += 1


def test_doubled_and_foreign_files_beside_the_log_are_left_alone(sample: Sample) -> None:
    others = {
        "segment-00000002.wal": sample.files[LOG_NAME],
        f"{LOG_NAME}.orig": sample.files[LOG_NAME][:-7],
        "hard-state-c": sample.files[HARD_STATE_NAMES[0]],
        "notes.txt": b"of a person",
    }
    sample.put(others)
    for _ in range(2):
        recovered = open_and_close(sample.disk)
        assert (state_of(recovered), recovered.warnings) == (sample.states[5], [])
        assert sample.contents() == sample.files | others


def test_a_doubled_unit_is_refused_or_cut_off(sample: Sample) -> None:
    log_bytes = sample.files[LOG_NAME]
    for unit, (start, end) in enumerate(itertools.pairwise(sample.ends), 1):
        doubled = log_bytes[:end] + log_bytes[start:]
        assert judge(sample, doubled, 5) == ("cut" if unit == 5 else "refused")


def test_an_older_copy_of_a_file_is_repaired_refused_or_indistinguishable(sample: Sample) -> None:
    """As after a careless restore.

    One old copy of the hard state loses to the other's higher sequence number. Two old copies show only if the log is
    ahead of them. An old log shows by its mark; with an equally old mark it looks like a tear.
    """
    older = encode_hard_state(sample.nonce, StoredHardState(1, 1, None))
    for name in HARD_STATE_NAMES:
        sample.put({name: older})
        assert f"{name}: was out of date" in open_and_close(sample.disk).warnings[0]
        assert sample.contents() == sample.files
        OUTCOMES["repaired"] += 1
    both = dict.fromkeys(HARD_STATE_NAMES, older)
    assert_refused(sample, sample.put(both), match="the last entry has term 4, but the hard state has term 1")
    OUTCOMES["refused"] += 1
    first_unit = sample.files[LOG_NAME][: sample.ends[1]]
    sample.put({**both, LOG_NAME: first_unit, MARK_NAME: sample.mark(1)})
    recovered = open_and_close(sample.disk)
    assert (recovered.current_term, state_of(recovered), recovered.warnings) == (1, sample.states[1], [])
    OUTCOMES["indistinguishable"] += 1


def test_a_damaged_mark_is_reported_and_made_anew(sample: Sample) -> None:
    for data in (b"", bytes(36), sample.files[MARK_NAME] + b"\0"):
        sample.put({MARK_NAME: data})
        recovered = open_and_close(sample.disk)
        assert "durable-mark: was damaged" in recovered.warnings[0]
        assert sample.contents() == sample.files


def test_a_mark_of_another_history_is_refused(sample: Sample) -> None:
    between = encode_mark(sample.nonce, DurableMark(sample.ends[2] + 1, sample.chains[2]))
    other_chain = encode_mark(sample.nonce, DurableMark(sample.ends[2], sample.chains[1]))
    for mark in (between, other_chain):
        assert_refused(sample, sample.put({MARK_NAME: mark}), match="does not fit its durable mark")


def test_two_bad_copies_of_the_hard_state_are_refused(sample: Sample) -> None:
    before = sample.put({"hard-state-a": bytes(128), "hard-state-b": b""})
    assert_refused(sample, before, match="no copy of term and vote is good")


def test_copies_of_the_hard_state_that_contradict_each_other_are_refused(sample: Sample) -> None:
    other_vote = encode_hard_state(sample.nonce, StoredHardState(2, 4, "n3"))
    before = sample.put({"hard-state-b": other_vote})
    assert_refused(sample, before, match="contradict each other")


# ------------------------------------------------------------------------------ what a client can put into a payload


def torn_behind(sample: Sample, payload: bytes) -> bytes:
    """The sample's log and one more unit with this payload, whose last byte never reached the disk."""
    header, body, _ = encode_unit(
        sample.nonce,
        sample.ends[-1],
        sample.chains[-1],
        first_index=6,
        terms=[4],
        payloads=[payload + b"!"],
        commit_index=4,
        durable_offset=sample.ends[-1],
    )
    return sample.files[LOG_NAME] + header + body[:-1]


def unit_at(sample: Sample, nonce: bytes, offset: int) -> bytes:
    """A complete unit that claims to be at an offset."""
    header, body, _ = encode_unit(
        nonce, offset, 0, first_index=7, terms=[4], payloads=[b"forged"], commit_index=4, durable_offset=0
    )
    return header + body


def test_a_payload_cannot_pass_for_a_unit(sample: Sample) -> None:
    offset = sample.ends[-1] + UNIT.size + 12
    guessed = unit_at(sample, bytes(8), offset)
    moved = unit_at(sample, sample.nonce, offset + 1)
    for payload in (guessed, moved, sample.files[LOG_NAME]):
        sample.put({LOG_NAME: torn_behind(sample, payload)})
        recovered = open_and_close(sample.disk)
        assert state_of(recovered) == sample.states[-1]
        assert len(recovered.warnings) == 1
    # With the right nonce and offset it is a unit; clients do not know the nonce.
    before = sample.put({LOG_NAME: torn_behind(sample, unit_at(sample, sample.nonce, offset))})
    assert_refused(sample, before, match=f"a later one is valid at offset {offset}")


# ------------------------------------------------------------------------------ units whose checksums hold


def with_header(sample: Sample, body: bytes = b"", **changed: int) -> bytes:
    """The sample's log and one more unit with consistent checksums and arbitrary fields."""
    start = sample.ends[-1]
    named = {"first_index": 6, "commit_index": 4, "durable_offset": start, "body_bytes": len(body), "count": 0}
    fields = struct.pack("<8sQQQQQI", sample.nonce, start, *(named | changed).values())
    chained = fields + struct.pack("<I", crc32(body, crc32(fields, sample.chains[-1])))
    return sample.files[LOG_NAME] + chained + struct.pack("<I", crc32(chained)) + body


def test_an_absurd_length_is_a_torn_unit_and_allocates_nothing(sample: Sample) -> None:
    sample.put({LOG_NAME: with_header(sample, body_bytes=2**63)})
    recovered = open_and_close(sample.disk)
    assert state_of(recovered) == sample.states[-1]
    assert f"cut off {UNIT.size} bytes" in recovered.warnings[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"count": 2**32 - 1},
        {"first_index": 0},
        {"first_index": 7},
        {"first_index": 4},
        {"commit_index": 3},
        {"commit_index": 6},
        {"durable_offset": 10**6},
        {"body": b"no entry"},
        {"count": 1, "body": struct.pack("<QI", 4, 2) + b"x"},
        {"count": 1, "body": struct.pack("<QI", 4, 2**32 - 1)},
    ],
    ids=str,
)
def test_a_unit_that_contradicts_itself_or_the_log_is_refused(sample: Sample, changed: dict[str, Any]) -> None:
    before = sample.put({LOG_NAME: with_header(sample, **changed)})
    assert_refused(sample, before, match=f"offset {sample.ends[-1]}: a unit contradicts")


def test_a_version_of_the_format_that_is_not_known_is_refused(sample: Sample) -> None:
    log_bytes = sample.files[LOG_NAME]
    before = sample.put({LOG_NAME: log_bytes[:8] + b"\x03" + log_bytes[9:]})
    assert_refused(sample, before, match="format 3; this program reads formats 1 to 2: use the version that wrote it")


def test_replay_needs_no_files(sample: Sample) -> None:
    log_bytes = sample.files[LOG_NAME]
    log = replay(log_bytes + os.urandom(40), decode_segment_header(log_bytes, "log"), None, "log")
    assert (log.end, log.chain) == (sample.ends[-1], sample.chains[-1])
    assert (list(zip(log.terms, log.payloads, strict=True)), log.commit_index) == sample.states[-1]
