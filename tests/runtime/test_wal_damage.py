"""Damage to the files of a log: cut at every byte, flipped at every bit, overwritten at random.

The units of the sample are parsed here from the documented layout, not with the code under test.
Every outcome belongs to one of the categories below; none is ever wrong data.

    refused             DataCorrupt, and no byte was changed
    repaired            everything recovered, with a warning; a copy was restored
    indistinguishable   the last unit, above the durable mark, was cut off with a warning: it looks like a tear
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_actor_node.errors import DataCorrupt
from raft_actor_node.runtime.disk import Disk
from raft_actor_node.runtime.hard_state import HardState, encode_hard_state
from raft_actor_node.runtime.wal import LOG_NAME, MARK_NAME, Recovered, Wal
from raft_actor_node.runtime.wal_format import DurableMark, decode_segment_header, encode_mark, encode_unit, replay

UNIT = struct.Struct("<8sQQQQQIII")

State = tuple[list[tuple[int, bytes]], int]
"""Entries (term, payload) and commit index."""


class HastyDisk(Disk):
    """A disk that waits for nothing: damage is put into the files when nobody writes them."""

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync(self, fd: int) -> None:
        pass


def open_and_close(directory: Path) -> Recovered:
    wal, recovered = Wal.open(
        directory, cluster_id="c", node_id="n1", bootstrap=False, allow_memory_fs=True, disk=HastyDisk()
    )
    wal.close()
    return recovered


def state_of(recovered: Recovered) -> State:
    return list(zip(recovered.terms, recovered.payloads, strict=True)), recovered.commit_index


@dataclass
class Sample:
    """A closed log with everything that occurs in one, and what it holds at the end of each unit."""

    directory: Path
    files: dict[str, bytes]
    nonce: bytes
    ends: list[int]
    """Offset behind the segment header and behind each unit."""
    chains: list[int]
    states: list[State]

    def put(self, changed: dict[str, bytes]) -> dict[str, bytes]:
        """Make the directory the sample's, with some of the files changed."""
        files = self.files | changed
        present = self.contents()
        assert set(present) <= set(files)
        for name, data in files.items():
            if present.get(name) != data:
                (self.directory / name).write_bytes(data)
        return files

    def mark(self, unit: int) -> bytes:
        """The durable mark as it was written behind a unit (0: when the log was created)."""
        return encode_mark(self.nonce, DurableMark(self.ends[unit], self.chains[unit]))

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory, if there is one: files are rewritten here by the ten thousand."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture
def sample(scratch: Path) -> Sample:
    directory = scratch / "n1"
    wal, _ = Wal.open(directory, cluster_id="c", node_id="n1", bootstrap=True, allow_memory_fs=True)
    states: list[State] = [([], 0)]
    calls: list[tuple[int, list[int], list[bytes], int]] = [
        (1, [1], [b""], 0),
        (2, [1, 1, 1], [b"two", b"three" * 9, b""], 1),
        (3, [4, 4], [b"THREE", b"FOUR"], 2),
        (5, [], [], 3),
        (5, [4], [b"\xff" * 20], 4),
    ]
    for term, vote in ((1, None), (4, "n2")):
        wal.save_hard_state(term, vote)
    for first_index, terms, payloads, commit_index in calls:
        wal.append(first_index, terms, payloads, commit_index)
        log = states[-1][0][: first_index - 1] + list(zip(terms, payloads, strict=True))
        states.append((log, commit_index))
    wal.close()
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    log_bytes = files[LOG_NAME]
    segment = decode_segment_header(log_bytes, "")
    ends, chains = [segment.header_bytes], [segment.crc]
    while ends[-1] < len(log_bytes):
        fields = UNIT.unpack_from(log_bytes, ends[-1])
        ends.append(ends[-1] + UNIT.size + fields[5])
        chains.append(fields[7])
    assert len(ends) == len(calls) + 1
    return Sample(directory, files, segment.nonce, ends, chains, states)


def assert_refused(sample: Sample, before: dict[str, bytes], match: str = LOG_NAME) -> None:
    with pytest.raises(DataCorrupt, match=match):
        open_and_close(sample.directory)
    assert sample.contents() == before


def assert_second_open_changes_nothing(sample: Sample, first: Recovered) -> None:
    before = sample.contents()
    second = open_and_close(sample.directory)
    assert state_of(second) == state_of(first)
    assert second.warnings == []
    assert sample.contents() == before


def test_the_layout_is_as_documented(sample: Sample) -> None:
    log_bytes = sample.files[LOG_NAME]
    header = b"RAFTWAL\n" + struct.pack("<IQ", 1, 1) + sample.nonce + struct.pack("<HH", 1, 2) + b"cn1"
    assert log_bytes[: sample.ends[0]] == header + struct.pack("<I", crc32(header))
    start, end = sample.ends[2], sample.ends[3]
    body = struct.pack("<QQII", 4, 4, 5, 4) + b"THREEFOUR"
    fields = struct.pack("<8sQQQQQI", sample.nonce, start, 3, 2, start, len(body), 2)
    chained = fields + struct.pack("<I", crc32(body, crc32(fields, sample.chains[2])))
    assert log_bytes[start:end] == chained + struct.pack("<I", crc32(chained)) + body
    assert sample.files[MARK_NAME] == sample.mark(len(sample.ends) - 1)
    assert {len(sample.files[name]) for name in ("hard-state-a", "hard-state-b")} == {128}


@pytest.mark.parametrize("marked", [5, 4, 0])
def test_a_log_cut_at_any_byte_keeps_what_was_marked_or_is_refused(sample: Sample, marked: int) -> None:
    log_bytes = sample.files[LOG_NAME]
    for size in range(len(log_bytes)):
        before = sample.put({LOG_NAME: log_bytes[:size], MARK_NAME: sample.mark(marked)})
        if size < sample.ends[marked]:
            assert_refused(sample, before)
            continue
        unit = max(i for i, end in enumerate(sample.ends) if end <= size)
        recovered = open_and_close(sample.directory)
        assert state_of(recovered) == sample.states[unit]
        torn_bytes = size - sample.ends[unit]
        assert len(recovered.warnings) == (1 if torn_bytes else 0)
        if torn_bytes:
            (warning,) = recovered.warnings
            assert f"{LOG_NAME}: offset {sample.ends[unit]}: cut off {torn_bytes} bytes" in warning
        assert (sample.directory / LOG_NAME).read_bytes() == log_bytes[: sample.ends[unit]]
        assert_second_open_changes_nothing(sample, recovered)


@pytest.mark.parametrize("marked", [5, 4], ids=["marked to the end", "last unit above the mark"])
def test_no_flipped_bit_is_ever_taken_for_data(sample: Sample, marked: int) -> None:
    """All is below the mark after a clean close, and after each append while the machine stays up; a power
    failure may leave the mark behind, since it is not synced."""
    files = sample.files | {MARK_NAME: sample.mark(marked)}
    outcomes: Counter[tuple[str, str]] = Counter()
    for name, data in files.items():
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            before = sample.put(files | {name: bytes(flipped)})
            refusal = ""
            try:
                recovered = open_and_close(sample.directory)
            except DataCorrupt as error:
                refusal = str(error)
            if refusal:
                assert f"{LOG_NAME}: offset " in refusal
                assert sample.contents() == before
                outcomes[name, "refused"] += 1
                continue
            assert len(recovered.warnings) == 1, f"bit {bit} of {name} passed unnoticed"
            assert (recovered.current_term, recovered.voted_for) == (4, "n2")
            cut = name == LOG_NAME and bit // 8 >= sample.ends[marked]
            assert state_of(recovered) == sample.states[4 if cut else 5]
            outcomes[name, "indistinguishable" if cut else "repaired"] += 1
            if bit % 16 == 0:
                assert_second_open_changes_nothing(sample, recovered)
    last_bits = 8 * (sample.ends[5] - sample.ends[marked])
    assert outcomes == Counter(
        {
            (LOG_NAME, "refused"): 8 * len(files[LOG_NAME]) - last_bits,
            (LOG_NAME, "indistinguishable"): last_bits,
            ("hard-state-a", "repaired"): 8 * 128,
            ("hard-state-b", "repaired"): 8 * 128,
            (MARK_NAME, "repaired"): 8 * 32,
        }
    )


def test_overwritten_bytes_are_refused_or_cut_off_as_a_tail(sample: Sample) -> None:
    log_bytes, ends = sample.files[LOG_NAME], sample.ends

    @settings(max_examples=400, deadline=None, database=None)
    @given(st.integers(0, 5), st.integers(0, len(log_bytes) - 1), st.integers(1, 300), st.booleans(), st.randoms())
    def check(marked: int, start: int, size: int, zeros: bool, random: Any) -> None:
        stop = min(start + size, len(log_bytes))
        noise = bytes(stop - start) if zeros else random.randbytes(stop - start)
        damaged = log_bytes[:start] + noise + log_bytes[stop:]
        changed = [i for i in range(start, stop) if damaged[i] != log_bytes[i]]
        before = sample.put({LOG_NAME: damaged, MARK_NAME: sample.mark(marked)})
        if not changed:
            assert state_of(open_and_close(sample.directory)) == sample.states[5]
            return
        first_bad = sum(end <= changed[0] for end in ends)  # 0 is the header, i the i-th unit
        later_headers = [range(ends[i], ends[i] + UNIT.size) for i in range(first_bad, 5)]
        promised = first_bad <= marked or any(not set(header) & set(changed) for header in later_headers)
        if promised:
            assert_refused(sample, before)
        else:
            recovered = open_and_close(sample.directory)
            assert state_of(recovered) == sample.states[first_bad - 1]
            assert len(recovered.warnings) == 1
            assert_second_open_changes_nothing(sample, recovered)

    check()


def test_a_damaged_mark_or_a_missing_one_is_reported_and_made_anew(sample: Sample) -> None:
    for data in (b"", bytes(36), sample.files[MARK_NAME] + b"\0"):
        sample.put({MARK_NAME: data})
        recovered = open_and_close(sample.directory)
        assert "durable-mark: was damaged" in recovered.warnings[0]
        assert sample.contents() == sample.files
    (sample.directory / MARK_NAME).unlink()
    assert "durable-mark: was missing" in open_and_close(sample.directory).warnings[0]
    assert sample.contents() == sample.files


def test_a_mark_of_another_history_is_refused(sample: Sample) -> None:
    between = encode_mark(sample.nonce, DurableMark(sample.ends[2] + 1, sample.chains[2]))
    other_chain = encode_mark(sample.nonce, DurableMark(sample.ends[2], sample.chains[1]))
    for mark in (between, other_chain):
        assert_refused(sample, sample.put({MARK_NAME: mark}), match="does not fit its durable mark")


@pytest.mark.parametrize("lost", ["hard-state-a", "hard-state-b"])
def test_a_missing_copy_of_the_hard_state_is_restored(sample: Sample, lost: str) -> None:
    (sample.directory / lost).unlink()
    recovered = open_and_close(sample.directory)
    assert (recovered.current_term, recovered.voted_for) == (4, "n2")
    assert f"{lost}: was missing" in recovered.warnings[0]
    assert sample.contents() == sample.files


def test_two_bad_copies_of_the_hard_state_are_refused(sample: Sample) -> None:
    before = sample.put({"hard-state-a": bytes(128), "hard-state-b": b""})
    assert_refused(sample, before, match="no copy of term and vote is good")


def test_copies_of_the_hard_state_that_contradict_each_other_are_refused(sample: Sample) -> None:
    other_vote = encode_hard_state(sample.nonce, HardState(2, 4, "n3"))
    before = sample.put({"hard-state-b": other_vote})
    assert_refused(sample, before, match="contradict each other")


# -- what a client can put into a payload


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
    """A complete unit that says it stands at an offset."""
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
        recovered = open_and_close(sample.directory)
        assert state_of(recovered) == sample.states[-1]
        assert len(recovered.warnings) == 1
    # With nonce and offset right it is a unit: that is what the nonce keeps from clients.
    before = sample.put({LOG_NAME: torn_behind(sample, unit_at(sample, sample.nonce, offset))})
    assert_refused(sample, before, match=f"a later one is valid at offset {offset}")


# -- units whose checksums hold


def with_header(sample: Sample, body: bytes = b"", **changed: int) -> bytes:
    """The sample's log and one more unit with consistent checksums and arbitrary fields."""
    start = sample.ends[-1]
    named = {"first_index": 6, "commit_index": 4, "durable_offset": start, "body_bytes": len(body), "count": 0}
    fields = struct.pack("<8sQQQQQI", sample.nonce, start, *(named | changed).values())
    chained = fields + struct.pack("<I", crc32(body, crc32(fields, sample.chains[-1])))
    return sample.files[LOG_NAME] + chained + struct.pack("<I", crc32(chained)) + body


def test_an_absurd_length_is_a_torn_unit_and_allocates_nothing(sample: Sample) -> None:
    sample.put({LOG_NAME: with_header(sample, body_bytes=2**63)})
    recovered = open_and_close(sample.directory)
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
    before = sample.put({LOG_NAME: log_bytes[:8] + b"\x02" + log_bytes[9:]})
    assert_refused(sample, before, match="version 2 of the format")


def test_replay_needs_no_files(sample: Sample) -> None:
    log_bytes = sample.files[LOG_NAME]
    log = replay(log_bytes + os.urandom(40), decode_segment_header(log_bytes, "log"), None, "log")
    assert (log.end, log.chain) == (sample.ends[-1], sample.chains[-1])
    assert (list(zip(log.terms, log.payloads, strict=True)), log.commit_index) == sample.states[-1]
