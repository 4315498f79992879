"""Logs of older versions: they open, and from then on they are bound to their members.

format-1/ is the directory of a node of version 0.1.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from orchestration.sim_cluster.disk import SimDisk
from raft_actor_node.errors import DataCorrupt, DiskError
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.kv.store import Store
from raft_actor_node.runtime.wal import LOG_NAME, MARK_NAME
from raft_actor_node.runtime.wal_format import ReplayedLog, Segment, decode_segment_header, encode_unit, replay, rewrite
from tests.runtime.torture import DIRECTORY, MEMBERS, Died, State, dies_after, open_wal, state_of

OLD = {path.name: path.read_bytes() for path in (Path(__file__).parent / "format-1").iterdir()}
HELD: State = (
    3,
    "n3",
    [
        (1, b""),
        (1, encode(Kind.OPEN_SESSION)),
        (1, encode(Kind.PUT, b"k", b"abcd", session_id=2, sequence=1)),
        (3, b""),
        (3, encode(Kind.APPEND, b"k", b"efgh", session_id=2, sequence=2)),
    ],
    4,
)
"""The content of that directory's log."""
SEEDS = range(8)


def old_disk(*seed: object, log: bytes = OLD[LOG_NAME]) -> SimDisk:
    disk = SimDisk(random.Random(repr(seed)))
    open_wal(disk, bootstrap=True)[0].close()
    for name, data in (OLD | {LOG_NAME: log}).items():
        disk.put(DIRECTORY / name, data)
    return disk


def open_and_close(disk: SimDisk, **options: object) -> tuple[State, list[str]]:
    wal, recovered = open_wal(disk, **options)
    wal.close()
    return state_of(recovered), recovered.warnings


def test_an_old_log_opens_and_is_bound_to_its_members() -> None:
    disk = old_disk()
    state, warnings = open_and_close(disk)
    assert state == HELD
    assert warnings == [f"{DIRECTORY / LOG_NAME}: rewritten from format 1, now bound to members ['n1', 'n2', 'n3']"]
    before = disk.contents()
    assert decode_segment_header(before[DIRECTORY / LOG_NAME], "").members == tuple(MEMBERS)
    assert open_and_close(disk) == (HELD, [])
    with pytest.raises(DataCorrupt, match="members"):
        open_wal(disk, members=["n1"])
    assert disk.contents() == before


def test_an_old_log_that_was_opened_goes_on() -> None:
    disk = old_disk()
    wal, _ = open_wal(disk)
    wal.save_hard_state(4, None)
    wal.append(5, [4], [b""], 4)
    wal.close()
    term, vote, log, commit_index = HELD
    assert open_and_close(disk) == ((term + 1, None, [*log[:4], (4, b"")], commit_index), [])
    assert vote == "n3"


def test_the_entries_of_an_old_log_mean_what_they_meant() -> None:
    log = HELD[2]
    store = Store(value_bytes=8)
    store.apply(1, [term for term, _ in log], [payload for _, payload in log])
    assert store.get(b"k") == b"abcdefgh"


def test_a_torn_tail_of_an_old_log_is_cut_off() -> None:
    state, warnings = open_and_close(old_disk(log=OLD[LOG_NAME] + b"torn"))
    assert state == HELD
    assert "cut off 4 bytes" in warnings[0]


def test_a_damaged_old_log_is_refused_and_left_alone() -> None:
    damaged = bytearray(OLD[LOG_NAME])
    damaged[-20] ^= 1
    disk = old_disk(log=bytes(damaged))
    before = disk.contents()
    with pytest.raises(DataCorrupt, match=LOG_NAME):
        open_wal(disk)
    assert disk.contents() == before


def test_a_crash_at_any_moment_of_the_rewriting_loses_nothing() -> None:
    """The process dies at each call that changes the disk; then the power may fail too."""
    rewritten = set()
    for call, seed in ((call, seed) for call in itertools.count() for seed in SEEDS):
        disk = old_disk(call, seed)
        disk.on_call = dies_after(call)
        try:
            open_and_close(disk)
        except Died:
            disk.on_call = None
            if seed % 2:
                disk.lose_power()
            else:
                disk.kill()
        else:
            break
        rewritten.add(bool(decode_segment_header(disk.contents()[DIRECTORY / LOG_NAME], "").members))
        assert open_and_close(disk)[0] == HELD, f"call {call}, seed {seed}"
        assert open_and_close(disk) == (HELD, [])
    assert call > 15
    assert rewritten == {False, True}, "it died before, and behind the moment that counts"


def test_a_full_disk_leaves_an_old_log_as_it_was() -> None:
    disk = old_disk()
    disk.capacity_bytes = sum(map(len, OLD.values())) + 100
    with pytest.raises(DiskError):
        open_wal(disk)
    assert disk.contents()[DIRECTORY / LOG_NAME] == OLD[LOG_NAME]
    disk.kill()
    disk.capacity_bytes = None
    assert open_and_close(disk)[0] == HELD


def test_a_long_old_log_is_rewritten_in_several_units() -> None:
    """Damage at the old log's end must not look like a tear of the whole log."""
    count = 10_000
    segment = Segment(1, b"12345678", "c", "n1", (), 0, 0)
    old = ReplayedLog(0, 0, 0, commit_index=9_000)
    old.terms.extend([1] * count)
    old.payloads.extend(b"%d" % i for i in range(count))
    data = rewrite(segment, old, ["n2", "n1"])
    header = decode_segment_header(data, "log")
    assert (header.members, header.nonce) == (("n1", "n2"), segment.nonce)
    found = replay(data, header, None, "log")
    assert (found.terms, found.payloads, found.commit_index) == (old.terms, old.payloads, old.commit_index)
    torn = replay(data[:-1], header, None, "log")
    assert count // 2 < len(torn.terms) < count
    follows = encode_unit(
        header.nonce,
        found.end,
        found.chain,
        first_index=count + 1,
        terms=[1],
        payloads=[b""],
        commit_index=count,
        durable_offset=found.end,
    )
    assert len(replay(data + follows[0] + follows[1], header, None, "log").terms) == count + 1


def test_the_mark_of_an_old_log_is_not_taken_for_that_of_the_new_one() -> None:
    """The mark is emptied before the log is replaced: each of the two logs opens without a mark."""
    disk = old_disk()
    disk.put(DIRECTORY / MARK_NAME, b"")
    assert open_and_close(disk)[0] == HELD
