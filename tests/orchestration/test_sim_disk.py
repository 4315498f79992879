"""The disk in memory: a process sees an ordinary disk, and a power failure loses only unsynced changes."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.sim_cluster.disk import SECTOR_BYTES, PowerLoss, SimDisk
from raft_actor_node.errors import DirectoryLocked
from raft_actor_node.runtime.disk import REAL_DISK, Disk, sync_directory, write_all

FILE = Path("/file")
CREATE = os.O_RDWR | os.O_CREAT | os.O_TRUNC
SEEDS = range(100)


def new_disk(seed: object = 0, content: bytes = b"") -> tuple[SimDisk, int]:
    """A disk with an open file that is durable as it is."""
    disk = SimDisk(random.Random(repr(seed)))
    disk.put(FILE, content)
    return disk, disk.open(FILE, os.O_RDWR)


NAMES = ("a", "b", "sub/a")
CALLS = st.lists(
    st.one_of(
        st.tuples(
            st.just("open"), st.sampled_from(NAMES), st.sampled_from([os.O_RDWR, CREATE, os.O_RDWR | os.O_CREAT])
        ),
        st.tuples(st.just("write"), st.integers(0, 5), st.binary(max_size=9), st.integers(0, 20)),
        st.tuples(st.just("cut"), st.integers(0, 5), st.integers(0, 20)),
        st.tuples(st.just("sync"), st.integers(0, 5)),
        st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("mkdir"), st.just("sub")),
        st.tuples(st.just("read"), st.sampled_from((*NAMES, "sub"))),
    ),
    max_size=20,
)


def perform(disk: Disk, root: Path, calls: list[tuple[object, ...]]) -> list[object]:
    """Return the result of each call, or the error that it raises."""
    told: list[object] = []
    fds: list[int] = []
    for call in calls:
        try:
            match call:
                case ("open", str(name), int(flags)):
                    fds.append(disk.open(root / name, flags))
                case ("write", int(i), bytes(data), int(offset)) if i < len(fds):
                    told.append(disk.pwritev(fds[i], [data, b"!"], offset))
                case ("cut", int(i), int(size)) if i < len(fds):
                    disk.ftruncate(fds[i], size)
                case ("sync", int(i)) if i < len(fds):
                    disk.fdatasync(fds[i])
                    told.append(disk.links(fds[i]))
                case ("rename", str(source), str(target)):
                    disk.replace(root / source, root / target)
                case ("mkdir", str(name)):
                    disk.mkdir(root / name)
                case ("read", str(name)):
                    told.append((disk.exists(root / name), disk.read(root / name)))
        except OSError as error:
            told.append(errno.errorcode[error.errno or 0])
    for fd in fds:
        disk.close(fd)
    return told


def test_a_process_cannot_tell_it_from_a_real_disk(tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=150, deadline=None, database=None)
    @given(CALLS)
    def check(calls: list[tuple[object, ...]]) -> None:
        simulated = SimDisk(random.Random(0))
        simulated.mkdir(Path("/root"))
        told = perform(simulated, Path("/root"), calls)
        assert told == perform(REAL_DISK, tmp_path_factory.mktemp("root"), calls)
        before = simulated.contents()
        simulated.kill()
        assert simulated.contents() == before, "a killed process leaves the page cache"

    check()


def test_what_was_synced_survives_a_power_failure() -> None:
    for seed in SEEDS:
        disk, fd = new_disk(seed)
        write_all(disk, fd, (b"synced" * 500,), 0)
        disk.fdatasync(fd)
        assert disk.lose_power() == PowerLoss(0, 0, 0, 0, 0)
        assert disk.contents() == {FILE: b"synced" * 500}


def test_unsynced_sectors_are_old_or_new_each_on_its_own() -> None:
    old, new = bytes(4 * SECTOR_BYTES), b"x" * (3 * SECTOR_BYTES)
    seen = set()
    for seed in SEEDS:
        disk, fd = new_disk(seed, old)
        write_all(disk, fd, (new,), SECTOR_BYTES // 2)
        loss = disk.lose_power()
        content = disk.contents()[FILE]
        kept = [content[max(i, 256) : i + SECTOR_BYTES].startswith(b"x") for i in range(0, len(old), SECTOR_BYTES)]
        expected = bytearray(old)
        for sector, is_new in enumerate(kept):
            start, stop = max(sector * SECTOR_BYTES, 256), min((sector + 1) * SECTOR_BYTES, 256 + len(new))
            if is_new:
                expected[start:stop] = new[: stop - start]
        assert content == expected
        assert loss[:3] == (all(kept), any(kept) and not all(kept), not any(kept))
        seen.add(tuple(kept))
    assert len(seen) > 10


def test_names_survive_once_their_directory_was_synced() -> None:
    seen = set()
    for seed in SEEDS:
        disk, fd = new_disk(seed, b"old")
        new = disk.open(Path("/new"), CREATE)
        write_all(disk, new, (b"new",), 0)
        disk.fsync(new)
        disk.replace(Path("/new"), FILE)
        assert (disk.links(fd), disk.links(new)) == (0, 1)
        if seed % 2:
            sync_directory(disk, Path("/"))
        disk.lose_power()
        contents = {path.name: data for path, data in disk.contents().items()}
        if seed % 2:
            assert contents == {"file": b"new"}
        seen.add(tuple(sorted(contents.items())))
    assert seen == {
        (("file", b"old"),),
        (("file", b"new"),),
        (("file", b"old"), ("new", b"new")),
    }


def test_what_lies_in_a_lost_directory_is_lost() -> None:
    disk = SimDisk(random.Random(1))
    disk.mkdir(Path("/d"))
    fd = disk.open(Path("/d/file"), CREATE)
    disk.fsync(fd)
    sync_directory(disk, Path("/d"))
    while disk.lose_power().names_kept:
        disk.mkdir(Path("/d"))
    assert disk.exists(Path("/d")) == disk.exists(Path("/d/file"))


def test_a_crash_leaves_any_prefix_of_what_is_under_way() -> None:
    seen = set()
    for seed in SEEDS:
        disk, fd = new_disk(seed)
        disk.begin()
        write_all(disk, fd, (b"one",), 0)
        disk.fdatasync(fd)
        write_all(disk, fd, (b"two",), 3)
        disk.kill()
        seen.add(disk.contents()[FILE])
    assert seen == {b"onetwo"[:size] for size in range(7)}


def test_what_was_committed_is_not_under_way() -> None:
    for seed in SEEDS:
        disk, fd = new_disk(seed)
        disk.begin()
        write_all(disk, fd, (b"one",), 0)
        disk.fdatasync(fd)
        disk.commit()
        disk.begin()
        write_all(disk, fd, (b"two",), 0)
        disk.lose_power()
        assert disk.contents()[FILE] in (b"one", b"two", b"twe", b"tne")


def test_the_same_seed_tells_the_same_story() -> None:
    def story(seed: int) -> list[object]:
        disk, fd = new_disk(seed)
        told: list[object] = [disk.random_bytes(8)]
        disk.short_writes = True
        for _ in range(10):
            write_all(disk, fd, (b"x" * 3000,), 0)
            told += [disk.lose_power(), disk.contents()]
            fd = disk.open(FILE, os.O_RDWR)
        return told

    assert story(1) == story(1) != story(2)


def test_failures_that_are_asked_for() -> None:
    disk, fd = new_disk()
    disk.fail_writes = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disk.pwritev(fd, [b"x"], 0)
    disk.fail_writes, disk.capacity_bytes = None, 5
    disk.ftruncate(fd, 0)
    assert disk.pwritev(fd, [b"1234", b"56"], 0) == 5
    assert disk.pwritev(fd, [b"54321"], 0) == 5, "what is overwritten takes no room"
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        disk.pwritev(fd, [b"6"], 5)
    disk.fail_syncs = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disk.fdatasync(fd)


def test_after_a_failed_sync_the_next_one_covers_nothing() -> None:
    seen = set()
    for seed in SEEDS:
        disk, fd = new_disk(seed, b"old")
        write_all(disk, fd, (b"new",), 0)
        disk.fail_syncs = errno.EIO
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            disk.fdatasync(fd)
        disk.fail_syncs = None
        disk.fdatasync(fd)
        assert disk.contents()[FILE] == b"new", "the page cache goes on showing it"
        disk.lose_power()
        seen.add(disk.contents()[FILE])
    assert seen == {b"old", b"new"}


def test_a_lock_ends_with_its_holder() -> None:
    disk, fd = new_disk()
    disk.lock(Path("/"))
    with pytest.raises(DirectoryLocked):
        disk.lock(Path("/"))
    disk.kill()
    disk.close(disk.lock(Path("/")))
    disk.lock(Path("/"))
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        disk.fdatasync(fd)
