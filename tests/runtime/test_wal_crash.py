"""Crashes at every call that changes the disk, power failures, and disks that fail.

The disk is simulated (orchestration/sim_cluster/disk.py). At each call in a log's life, the process or the disk fails.
Unsynced data is kept, torn or lost, by many seeds. The log must open on every result and keep its promises. Controls
show that these seeds distinguish a log that syncs from one that does not.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.sim_cluster.disk import SimDisk
from raft_actor_node.errors import DataCorrupt, DiskError
from raft_actor_node.runtime.disk import Disk
from raft_actor_node.runtime.wal import HARD_STATE_NAMES, LOG_NAME, MARK_NAME, Wal
from tests.runtime.torture import DIRECTORY, NEW, Died, Ledger, dies_after, open_wal, sim_disk, state_of

SEEDS = range(12)


def calls_and_seeds() -> Iterator[tuple[int, int]]:
    """The first call with each seed, then the second call, and so on."""
    return ((call, seed) for call in itertools.count() for seed in SEEDS)


def crashed_at_any_call(disk: Callable[..., SimDisk] = sim_disk, **options: Any) -> Iterator[Ledger]:
    """New nodes that die at their first call, their second, and so on; those of one call differ in the seed only."""
    for call, seed in calls_and_seeds():
        ledger = Ledger(disk(call, seed))
        ledger.disk.on_call = dies_after(call)
        try:
            ledger.open(**options)
            ledger.live()
        except Died:
            ledger.disk.on_call = None
            yield ledger
        else:
            assert call > 40
            return


def broken(ledgers: Iterator[Ledger]) -> list[str]:
    """The promises that a power failure breaks."""
    found = []
    for ledger in ledgers:
        ledger.disk.lose_power()
        try:
            ledger.check()
        except (AssertionError, DataCorrupt) as error:
            found.append(str(error))
    return found


def test_a_power_failure_at_any_call_keeps_every_promise() -> None:
    lost: Counter[str] = Counter()
    for ledger in crashed_at_any_call():
        lost.update(ledger.disk.lose_power()._asdict())
        ledger.check()
    assert min(lost.values()) > 10, lost


def test_recovery_makes_durable_what_a_killed_process_left_in_the_page_cache() -> None:
    """The process is killed at any call, the next one recovers and promises the entries, and then the power fails."""
    for ledger in crashed_at_any_call():
        ledger.disk.kill()
        ledger.open()
        ledger.disk.lose_power()
        ledger.open()
        ledger.save_hard_state(9, "n2")
        ledger.disk.lose_power()
        ledger.check()


@pytest.mark.parametrize("end", [SimDisk.kill, SimDisk.lose_power])
def test_a_crash_at_any_call_of_recovery_keeps_every_promise(end: Callable[[SimDisk], object]) -> None:
    """Recovery begins with the worst result of one crash: copies of the hard state that differ, and a torn tail."""
    for call, seed in calls_and_seeds():
        ledger = Ledger(sim_disk(call, seed))
        ledger.open()
        ledger.live()
        copy_b = ledger.disk.contents()[DIRECTORY / HARD_STATE_NAMES[1]]
        ledger.open()
        ledger.save_hard_state(3, "n2")
        ledger.close()
        ledger.disk.put(DIRECTORY / HARD_STATE_NAMES[1], copy_b)
        log = ledger.disk.contents()[DIRECTORY / LOG_NAME]
        ledger.disk.put(DIRECTORY / LOG_NAME, log + b"torn" * 50)
        ledger.disk.on_call = dies_after(call)
        try:
            ledger.open()
        except Died:
            ledger.disk.on_call = None
        else:
            assert call > 10
            return
        end(ledger.disk)
        ledger.open()
        ledger.append(5, [(3, b"after")], 3)
        ledger.disk.lose_power()
        ledger.check()


class DeafDisk(SimDisk):
    """A disk that skips one kind of sync without an error."""

    def __init__(self, deaf: str, *seed: object) -> None:
        super().__init__(random.Random(repr(seed)))
        self._deaf = deaf
        self._directories: set[int] = set()

    def open(self, path: Path, flags: int) -> int:
        fd = super().open(path, flags)
        if flags & os.O_DIRECTORY:
            self._directories.add(fd)
        return fd

    def fdatasync(self, fd: int) -> None:
        if self._deaf != "fdatasync":
            super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        if self._deaf != ("fsync of directories" if fd in self._directories else "fsync of files"):
            super().fsync(fd)


@pytest.mark.parametrize("deaf", ["fdatasync", "fsync of files", "fsync of directories"])
def test_a_disk_that_ignores_a_sync_breaks_promises(deaf: str) -> None:
    assert broken(crashed_at_any_call(disk=lambda *seed: DeafDisk(deaf, *seed))) != []
    assert broken(crashed_at_any_call(disk=lambda *seed: DeafDisk("nothing", *seed))) == []


def test_without_fsync_a_power_failure_breaks_promises() -> None:
    assert any("not (1, 'n1'" in line for line in broken(crashed_at_any_call(fsync=False)))


def test_without_fsync_nothing_is_synced_once_the_log_is_open() -> None:
    ledger, calls = Ledger(sim_disk()), Counter[str]()
    ledger.open(fsync=False)
    ledger.disk.on_call = lambda name: calls.update([name])
    ledger.live()
    assert set(calls) == {"write", "truncate"}


def test_a_bootstrap_that_was_interrupted_can_be_done_again() -> None:
    disk = sim_disk()
    open_wal(disk, bootstrap=True)[0].close()
    files = disk.contents()
    disk.put(DIRECTORY / f"{LOG_NAME}.tmp", files[DIRECTORY / LOG_NAME])
    for name in (LOG_NAME, MARK_NAME, HARD_STATE_NAMES[1]):
        disk.put(DIRECTORY / name, None)
    with pytest.raises(DataCorrupt, match="must not come back empty"):
        open_wal(disk)
    _, recovered = open_wal(disk, bootstrap=True)
    assert (state_of(recovered), recovered.warnings) == (NEW, [])


# ------------------------------------------------------------------------------ disks that fail


def fails_at(disk: SimDisk, call: int, code: int) -> Callable[[], int]:
    """Let the disk fail from this call on; return a function that counts the calls."""
    calls = 0

    def count(name: str) -> None:
        nonlocal calls
        calls += 1
        if calls > call:
            disk.fail_writes = disk.fail_syncs = code
            if name not in ("write", "sync"):
                raise OSError(code, os.strerror(code))

    disk.on_call = count
    return lambda: calls


def repair(disk: SimDisk) -> None:
    disk.fail_writes = disk.fail_syncs = disk.on_call = disk.capacity_bytes = None


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_after_any_error_nothing_is_promised_or_tried_again(code: int) -> None:
    """The process ends, another one recovers what the page cache shows, and then the power fails.

    Data of a failed sync is shown but not written, and a second sync does not write it either.
    """
    for call, seed in calls_and_seeds():
        ledger = Ledger(sim_disk(call, seed))
        ledger.open()
        calls = fails_at(ledger.disk, call, code)
        try:
            ledger.live()
        except DiskError as error:
            assert os.strerror(code) in str(error)  # noqa: PT017 - in the last round there is none
        else:
            assert call > 20
            return
        wal = ledger.wal
        assert wal is not None
        with pytest.raises(DiskError):
            wal.save_hard_state(9, None)
        with pytest.raises(DiskError):
            wal.append(1, [], [], 0)
        wal.close()
        assert calls() == call + 1, "the disk was used again after it had failed"
        repair(ledger.disk)
        ledger.open()
        ledger.disk.lose_power()
        ledger.check()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_an_error_while_opening_is_a_disk_error_and_releases_the_lock(code: int) -> None:
    for call, seed in calls_and_seeds():
        ledger = Ledger(sim_disk(call, seed))
        fails_at(ledger.disk, call, code)
        try:
            ledger.open()
        except DiskError as error:
            assert str(DIRECTORY.parent) in str(error)  # noqa: PT017 - in the last round there is none
        else:
            assert call > 30
            return
        repair(ledger.disk)
        ledger.open()
        ledger.disk.lose_power()
        ledger.check()


def test_an_error_at_close_is_reported_and_releases_the_lock() -> None:
    ledger = Ledger(sim_disk())
    ledger.open()
    fails_at(ledger.disk, 0, errno.EIO)
    with pytest.raises(DiskError):
        ledger.close()
    repair(ledger.disk)
    ledger.check()


@pytest.mark.parametrize("failing", ["log", "hard state"])
def test_what_a_failed_fsync_left_in_the_page_cache_is_written_again(failing: str) -> None:
    """After a failed fsync the kernel shows unwritten data as if it were written.

    The next process may promise that data only after it has written it again: an fsync alone finds nothing to do.
    """
    for seed in SEEDS:
        ledger = Ledger(sim_disk(seed))
        ledger.open()
        ledger.save_hard_state(1, None)
        ledger.disk.fail_syncs = errno.EIO
        with pytest.raises(DiskError):
            if failing == "log":
                ledger.append(1, [(1, b"x" * 3000)], 0)
            else:
                ledger.save_hard_state(1, "n2")
        repair(ledger.disk)
        ledger.disk.kill()
        ledger.open()
        assert ledger.promised == ((1, None, [(1, b"x" * 3000)], 0) if failing == "log" else (1, "n2", [], 0))
        ledger.disk.lose_power()
        ledger.check()


def test_a_vote_whose_fsync_failed_survives_the_tearing_of_its_other_copy() -> None:
    """The second copy of a vote is in the page cache only, and a power failure tears the first one during its rewrite.

    The second copy then holds the vote, if it was written again before anything was promised.
    """
    for seed in range(150):
        ledger = Ledger(sim_disk(seed))
        ledger.disk.whole_sectors = False
        ledger.open()
        ledger.save_hard_state(1, "n1")
        syncs = itertools.count(1)

        def second(call: str, disk: SimDisk = ledger.disk, syncs: Iterator[int] = syncs) -> None:
            if call == "sync":
                disk.fail_syncs = errno.EIO if next(syncs) == 2 else None

        ledger.disk.on_call = second
        with pytest.raises(DiskError):
            ledger.save_hard_state(2, "n2")
        repair(ledger.disk)
        ledger.disk.commit()
        ledger.disk.kill()
        ledger.open()
        assert ledger.promised == (2, "n2", [], 0)
        ledger.interrupt = True
        with pytest.raises(Died):
            ledger.save_hard_state(3, None)
        ledger.disk.lose_power()
        ledger.check()


def test_a_disk_that_fills_up_at_any_byte_promises_nothing_more() -> None:
    needed = Ledger(sim_disk())
    needed.open()
    empty = sum(map(len, needed.disk.contents().values()))
    full = 0
    for free in range(0, 2 * SimDisk.room_bytes, 7):
        ledger = Ledger(sim_disk(free))
        ledger.open()
        ledger.disk.capacity_bytes = empty + free
        try:
            ledger.live()
        except DiskError as error:
            assert os.strerror(errno.ENOSPC) in str(error)  # noqa: PT017 - with room enough there is none
            full += 1
        repair(ledger.disk)
        ledger.disk.lose_power()
        ledger.check()
    assert 100 < full < free / 7, "some were full, and some had room enough"


def test_short_writes_are_completed() -> None:
    for seed in SEEDS:
        ledger = Ledger(sim_disk(seed))
        ledger.disk.short_writes = True
        ledger.open()
        ledger.live()
        ledger.disk.lose_power()
        ledger.check()


class FullDisk(Disk):
    """A disk that writes nothing and reports no error."""

    def pwritev(self, fd: int, buffers: object, offset: int) -> int:
        return 0


def open_on(tmp_path: Path, disk: Disk) -> Wal:
    options: dict[str, Any] = {"cluster_id": "c", "node_id": "n1", "members": ["n1"], "allow_memory_fs": True}
    wal, _ = Wal.open(tmp_path, bootstrap=True, disk=disk, **options)
    return wal


def test_a_write_that_takes_nothing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="wrote no bytes"):
        open_on(tmp_path, FullDisk())


def test_a_log_deleted_in_use_promises_nothing_more(tmp_path: Path) -> None:
    wal = open_on(tmp_path, Disk())
    wal.save_hard_state(1, None)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DiskError, match="deleted while in use"):
        wal.append(1, [1], [b"x"], 0)
    with pytest.raises(DiskError, match="deleted while in use"):
        wal.save_hard_state(2, None)
    wal.close()


def test_any_interruption_of_a_write_ends_the_log() -> None:
    ledger = Ledger(sim_disk())
    ledger.open()
    ledger.disk.on_call = dies_after(0)
    with pytest.raises(Died):
        ledger.append(1, [(0, b"x")], 0)
    ledger.disk.on_call = None
    with pytest.raises(DiskError):
        ledger.append(1, [(0, b"x")], 0)
