"""Crashes at every system call, power failures that forget or tear what was not synced, and failing disks.

A recording disk notes every call that changes files. From the calls up to any moment, a model of a file
system makes the images that a crash at that moment may leave: unsynced writes and unsynced directory
entries, each kept or lost, writes out of order, torn or zeroed. The log must open on every one of them
and keep its promises.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from raft_actor_node.errors import DataCorrupt, DiskError
from raft_actor_node.runtime.disk import Disk
from raft_actor_node.runtime.wal import LOG_NAME, Recovered, Wal

State = tuple[int, str | None, list[tuple[int, bytes]], int]
"""Term, vote, entries, commit index."""


def open_wal(directory: Path, *, bootstrap: bool = False, **options: Any) -> tuple[Wal, Recovered]:
    return Wal.open(directory, cluster_id="c", node_id="n1", bootstrap=bootstrap, allow_memory_fs=True, **options)


def state_of(recovered: Recovered) -> State:
    log = list(zip(recovered.terms, recovered.payloads, strict=True))
    return recovered.current_term, recovered.voted_for, log, recovered.commit_index


# -- the model of a file system


class Died(BaseException):
    """The process was killed."""


class Calls(list[tuple[Any, ...]]):
    """The record of a disk; the process dies when it would become longer than `most`."""

    most: int | None = None

    def append(self, call: tuple[Any, ...]) -> None:
        if len(self) == self.most:
            raise Died
        super().append(call)


class RecordingDisk(Disk):
    """The real disk, with a record of what was asked of it. `deaf` names calls that wrongly do nothing."""

    def __init__(self, root: Path, deaf: Sequence[str] = ()) -> None:
        self.deaf = deaf
        self.calls = Calls()
        self._files = itertools.count()
        self._names: dict[Path, int | Path] = {}
        self._open: dict[int, int | Path] = {}
        for path in sorted(root.rglob("*")):
            self._names[path] = path if path.is_dir() else next(self._files)
            self.calls.append(("existing", path, self._names[path], b"" if path.is_dir() else path.read_bytes()))

    def open(self, path: Path, flags: int) -> int:
        if flags & os.O_CREAT and path not in self._names:
            file = next(self._files)
            self.calls.append(("link", path, file))
            self._names[path] = file
        elif flags & os.O_TRUNC:
            self.calls.append(("truncate", self._names[path], 0))
        fd = super().open(path, flags)
        self._open[fd] = path if flags & os.O_DIRECTORY else self._names[path]
        return fd

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        self.calls.append(("write", self._open[fd], offset, b"".join(buffers)))
        return super().pwritev(fd, buffers, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self.calls.append(("truncate", self._open[fd], size))
        super().ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        if "fdatasync" not in self.deaf:
            self.calls.append(("sync", self._open[fd]))

    def fsync(self, fd: int) -> None:
        kind = "fsync of directories" if isinstance(self._open[fd], Path) else "fsync of files"
        if kind not in self.deaf:
            self.calls.append(("sync", self._open[fd]))

    def replace(self, source: Path, target: Path) -> None:
        self.calls.append(("rename", source, target, self._names[source]))
        self._names[target] = self._names.pop(source)
        super().replace(source, target)

    def mkdir(self, path: Path) -> None:
        self.calls.append(("link", path, path))
        self._names[path] = path
        super().mkdir(path)


class FileSystem:
    """What is durable and what is not, after a number of recorded calls."""

    def __init__(self, calls: Sequence[tuple[Any, ...]]) -> None:
        self.names: dict[Path, int | Path] = {}
        self.pending_names: list[tuple[Any, ...]] = []
        self.data: dict[int | Path, bytes] = {}
        self.pending: list[tuple[Any, ...]] = []
        for call in calls:
            self._apply(call)

    def _apply(self, call: tuple[Any, ...]) -> None:
        kind = call[0]
        if kind == "existing":
            self.names[call[1]] = call[2]
            self.data[call[2]] = call[3]
        elif kind in ("link", "rename"):
            self.pending_names.append(call)
        elif kind in ("write", "truncate"):
            self.pending.append(call)
        elif isinstance(call[1], Path):
            synced = [entry for entry in self.pending_names if entry[1].parent == call[1]]
            self.pending_names = [entry for entry in self.pending_names if entry[1].parent != call[1]]
            self.names = self._with_names(synced)
        else:
            synced = [write for write in self.pending if write[1] == call[1]]
            self.pending = [write for write in self.pending if write[1] != call[1]]
            self.data = self._with_data(synced)

    def _with_names(self, entries: Sequence[tuple[Any, ...]]) -> dict[Path, int | Path]:
        names = dict(self.names)
        for entry in entries:
            if entry[0] == "rename":
                names.pop(entry[1], None)
                names[entry[2]] = entry[3]
            else:
                names[entry[1]] = entry[2]
        return names

    def _with_data(self, writes: Sequence[tuple[Any, ...]]) -> dict[int | Path, bytes]:
        data = dict(self.data)
        for write in writes:
            content = data.get(write[1], b"")
            if write[0] == "truncate":
                data[write[1]] = content[: write[2]]
            else:
                _, file, offset, new = write
                content = content.ljust(offset, b"\0")
                data[file] = content[:offset] + new + content[offset + len(new) :]
        return data

    def crash(self, target: Path, root: Path, keep_names: bool, writes: str) -> None:
        """Make the directory below `target` that a crash leaves."""
        names = self._with_names(self.pending_names) if keep_names else self.names
        kept = list(self.pending)
        if writes == "lost":
            kept = []
        elif writes == "zeroed":
            kept = [(*write[:3], bytes(len(write[3]))) if write[0] == "write" else write for write in kept]
        elif writes == "newest":
            kept = kept[-1:]
        elif writes == "torn" and kept and kept[-1][0] == "write":
            kept[-1] = (*kept[-1][:3], kept[-1][3][: len(kept[-1][3]) // 2])
        data = self._with_data(kept)
        for path in sorted(names):
            image = target / path.relative_to(root)
            if not image.parent.exists():
                continue  # its directory was lost
            if names[path] == path:
                image.mkdir()
            else:
                image.write_bytes(data.get(names[path], b""))


class Story:
    """Calls on a log, with the state promised after each and the number of disk calls until then."""

    def __init__(self, root: Path, disk: RecordingDisk) -> None:
        self.root = root
        self.disk = disk
        self.first_call = len(disk.calls)
        self.promises: list[tuple[int, State]] = []
        self.wal: Wal | None = None

    def open(self, *, bootstrap: bool, fsync: bool = True) -> None:
        self.wal, recovered = open_wal(self.root / "data" / "n1", bootstrap=bootstrap, fsync=fsync, disk=self.disk)
        self._promise(state_of(recovered))

    def _promise(self, state: State) -> None:
        self.promises.append((len(self.disk.calls), state))

    def hard_state(self, term: int, vote: str | None) -> None:
        assert self.wal is not None
        self.wal.save_hard_state(term, vote)
        self._promise((term, vote, *self.promises[-1][1][2:]))

    def append(self, first_index: int, entries: list[tuple[int, bytes]], commit_index: int) -> None:
        assert self.wal is not None
        self.wal.append(first_index, [term for term, _ in entries], [data for _, data in entries], commit_index)
        term, vote, log, _ = self.promises[-1][1]
        self._promise((term, vote, log[: first_index - 1] + entries, commit_index))

    def close(self) -> None:
        assert self.wal is not None
        self.wal.close()
        self._promise(self.promises[-1][1])

    def images(self, scratch: Path) -> Iterator[tuple[Path, list[State], list[State]]]:
        """Every directory that a crash may leave, with the state that was promised by then and the one underway."""
        for moment in range(self.first_call, len(self.disk.calls) + 1):
            file_system = FileSystem(self.disk.calls[:moment])
            promised = [state for calls, state in self.promises if calls <= moment]
            underway = [state for calls, state in self.promises if calls > moment]
            for keep_names, writes in itertools.product((True, False), ("kept", "lost", "newest", "torn", "zeroed")):
                image = scratch / f"{moment}-{'kept' if keep_names else 'lost'}-{writes}"
                image.mkdir(parents=True)
                file_system.crash(image, self.root, keep_names, writes)
                yield image / "data" / "n1", promised[-1:], underway[:1]
                shutil.rmtree(image)


def live(story: Story, **options: Any) -> None:
    """The life of a new node, with everything that happens to a log."""
    story.open(bootstrap=True, **options)
    story.hard_state(1, "n1")
    story.append(1, [(1, b""), (1, b"one"), (1, b"x" * 300)], 1)
    story.hard_state(2, None)
    story.hard_state(2, "n3")
    story.append(3, [(2, b"y" * 700)], 2)
    story.append(4, [(2, b"")], 3)
    story.close()


def broken_promises(story: Story, scratch: Path) -> list[str]:
    """What a crash at any moment of the story breaks; empty for a sound log."""
    broken = []
    for directory, promised, underway in story.images(scratch):
        where = directory.relative_to(scratch).parts[0]
        try:
            # Before the first promise the bootstrap may be given again, later it must not be needed.
            wal, recovered = open_wal(directory, bootstrap=not promised, fsync=False)
        except DataCorrupt as error:
            broken.append(f"{where}: {error}")
            continue
        wal.close()
        if state_of(recovered) not in promised + underway:
            broken.append(f"{where}: recovered {state_of(recovered)}, promised {promised}, underway {underway}")
        after = {path.name: path.read_bytes() for path in directory.iterdir()}
        wal, again = open_wal(directory, fsync=False)
        wal.close()
        if (state_of(again), again.warnings) != (state_of(recovered), []):
            broken.append(f"{where}: a second open differs")
        if {path.name: path.read_bytes() for path in directory.iterdir()} != after:
            broken.append(f"{where}: a second open changed something")
    return broken


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory, if there is one: the power failures here are imagined, the disk need not be real."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture
def root(scratch: Path) -> Path:
    path = scratch / "disk"
    path.mkdir()
    return path


def test_a_crash_at_any_call_keeps_every_promise(root: Path, scratch: Path) -> None:
    story = Story(root, RecordingDisk(root))
    live(story)
    assert len(story.disk.calls) > 50
    assert broken_promises(story, scratch / "images") == []


def test_recovery_makes_durable_what_a_killed_process_left_in_the_page_cache(root: Path, scratch: Path) -> None:
    """The process is killed at any call, the next one recovers and promises it, and then the power fails."""
    for moment in itertools.count():
        disk_root = root / str(moment)
        disk_root.mkdir()
        first = Story(disk_root, RecordingDisk(disk_root))
        first.disk.calls.most = moment
        try:
            live(first)
        except Died:
            if first.wal is not None:
                first.wal.close()
        else:
            break
        first.disk.calls.most = None
        second = Story(disk_root, first.disk)
        second.open(bootstrap=not first.promises)
        second.first_call = len(second.disk.calls)
        now = FileSystem(second.disk.calls)
        assert now.pending_names == []
        assert [write for write in now.pending if write[1] in now.names.values()] == []
        second.hard_state(9, "n2")
        second.close()
        assert broken_promises(second, scratch / "images" / str(moment)) == []
    assert moment > 50


def test_a_crash_during_recovery_keeps_every_promise(root: Path, scratch: Path) -> None:
    live(Story(root, RecordingDisk(root)))
    directory = root / "data" / "n1"
    # The worst that one crash leaves: the copies of the hard state a save apart, and a torn tail.
    copy_b = (directory / "hard-state-b").read_bytes()
    wal, _ = open_wal(directory)
    wal.save_hard_state(3, "n2")
    wal.close()
    (directory / "hard-state-b").write_bytes(copy_b)
    with (directory / LOG_NAME).open("ab") as log:
        log.write(b"torn" * 50)
    second = Story(root, RecordingDisk(root))
    second.open(bootstrap=False)
    assert second.promises[0][1][:2] == (3, "n2")
    # All of that is on disk before recovery begins, so it must be found at every moment.
    second.promises.insert(0, (second.first_call, second.promises[0][1]))
    second.append(5, [(3, b"after")], 3)
    second.close()
    assert broken_promises(second, scratch / "images") == []


@pytest.mark.parametrize("deaf", ["fdatasync", "fsync of files", "fsync of directories"])
def test_a_disk_that_ignores_an_fsync_breaks_promises(root: Path, scratch: Path, deaf: str) -> None:
    """A control: the images above tell a log that syncs from one that does not."""
    story = Story(root, RecordingDisk(root, deaf=[deaf]))
    live(story)
    assert broken_promises(story, scratch / "images") != []


def test_without_fsync_a_power_failure_breaks_promises(root: Path, scratch: Path) -> None:
    story = Story(root, RecordingDisk(root))
    live(story, fsync=False)
    assert not [call for call in story.disk.calls if call[0] == "sync"]
    assert broken_promises(story, scratch / "images") != []


def test_a_bootstrap_that_was_interrupted_can_be_done_again(tmp_path: Path) -> None:
    directory = tmp_path / "n1"
    wal, _ = open_wal(directory, bootstrap=True)
    wal.close()
    (directory / LOG_NAME).rename(directory / f"{LOG_NAME}.tmp")
    (directory / "durable-mark").unlink()
    (directory / "hard-state-b").unlink()
    with pytest.raises(DataCorrupt, match="must not come back empty"):
        open_wal(directory)
    wal, recovered = open_wal(directory, bootstrap=True)
    wal.close()
    assert (state_of(recovered), recovered.warnings) == ((0, None, [], 0), [])


# -- disks that fail


class FailingDisk(Disk):
    """A disk whose call number `fails_at` (counted over all kinds) raises, after half of a write."""

    def __init__(self, fails_at: int, code: int) -> None:
        self.calls = 0
        self.fails_at = fails_at
        self.code = code

    def _count(self) -> bool:
        self.calls += 1
        return self.calls == self.fails_at

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        if self._count():
            data = b"".join(buffers)
            super().pwritev(fd, [data[: len(data) // 2]], offset)
            raise OSError(self.code, os.strerror(self.code))
        return super().pwritev(fd, buffers, offset)

    def fdatasync(self, fd: int) -> None:
        if self._count():
            raise OSError(self.code, os.strerror(self.code))

    def fsync(self, fd: int) -> None:
        self.fdatasync(fd)


def calls_of_life(wal: Wal) -> list[tuple[Callable[[], None], State]]:
    """Calls on a new log and the state each of them promises."""
    return [
        (lambda: wal.save_hard_state(1, "n1"), (1, "n1", [], 0)),
        (lambda: wal.append(1, [1, 1], [b"a", b"b" * 500], 0), (1, "n1", [(1, b"a"), (1, b"b" * 500)], 0)),
        (lambda: wal.append(2, [1], [b"B"], 1), (1, "n1", [(1, b"a"), (1, b"B")], 1)),
    ]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize(
    "fails_at", range(1, 4 + 3 + 3 + 1)
)  # writes and fsyncs of two copies, of two units with marks
def test_after_any_error_nothing_is_promised_or_tried_again(tmp_path: Path, code: int, fails_at: int) -> None:
    disk = FailingDisk(0, code)
    wal, _ = open_wal(tmp_path / "n1", bootstrap=True, disk=disk)
    disk.calls, disk.fails_at = 0, fails_at
    states: list[State] = [(0, None, [], 0)]

    def run() -> None:
        for call, state in calls_of_life(wal):
            states.append(state)
            call()

    with pytest.raises(DiskError, match=os.strerror(code)):
        run()
    with pytest.raises(DiskError, match=os.strerror(code)):
        wal.save_hard_state(9, None)
    with pytest.raises(DiskError, match=os.strerror(code)):
        wal.append(1, [], [], 0)
    wal.close()
    assert disk.calls == fails_at, "the disk was used again after it had failed"
    wal, recovered = open_wal(tmp_path / "n1")
    wal.close()
    assert state_of(recovered) in states[-2:]


def test_an_error_while_opening_is_a_disk_error_and_releases_the_lock(tmp_path: Path) -> None:
    healthy = FailingDisk(0, errno.EIO)
    wal, _ = open_wal(tmp_path / "healthy", bootstrap=True, disk=healthy)
    calls = healthy.calls
    wal.close()
    assert calls > 10
    for fails_at in range(1, calls + 1):
        directory = tmp_path / str(fails_at)
        with pytest.raises(DiskError, match=re.escape(str(directory))):
            open_wal(directory, bootstrap=True, disk=FailingDisk(fails_at, errno.EIO))
        wal, recovered = open_wal(directory, bootstrap=True)
        wal.close()
        assert state_of(recovered) == (0, None, [], 0)


def test_an_error_at_close_is_reported_and_releases_the_lock(tmp_path: Path) -> None:
    disk = FailingDisk(0, errno.EIO)
    wal, _ = open_wal(tmp_path / "n1", bootstrap=True, disk=disk)
    disk.fails_at = disk.calls + 1
    with pytest.raises(DiskError):
        wal.close()
    open_wal(tmp_path / "n1")[0].close()


class StutteringDisk(Disk):
    """A disk that takes at most seven bytes at a time."""

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        return super().pwritev(fd, [b"".join(buffers)[:7]], offset)


class FullDisk(Disk):
    """A disk that takes nothing and reports no error."""

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        return 0


def test_short_writes_are_completed(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path / "n1", bootstrap=True, disk=StutteringDisk())
    expected: State = (0, None, [], 0)
    for call, state in calls_of_life(wal):
        call()
        expected = state
    wal.close()
    wal, recovered = open_wal(tmp_path / "n1")
    wal.close()
    assert (state_of(recovered), recovered.warnings) == (expected, [])


def test_a_write_that_takes_nothing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="took nothing"):
        open_wal(tmp_path / "n1", bootstrap=True, disk=FullDisk())


def test_a_log_deleted_in_use_promises_nothing_more(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path / "n1", bootstrap=True)
    wal.save_hard_state(1, None)
    for path in (tmp_path / "n1").iterdir():
        path.unlink()
    with pytest.raises(DiskError, match="deleted while in use"):
        wal.append(1, [1], [b"x"], 0)
    with pytest.raises(DiskError, match="deleted while in use"):
        wal.save_hard_state(2, None)
    wal.close()


def test_any_interruption_of_a_write_ends_the_log(tmp_path: Path) -> None:
    class InterruptedDisk(Disk):
        armed = False

        def fdatasync(self, fd: int) -> None:
            if self.armed:
                raise KeyboardInterrupt

    disk = InterruptedDisk()
    wal, _ = open_wal(tmp_path / "n1", bootstrap=True, disk=disk)
    disk.armed = True
    with pytest.raises(KeyboardInterrupt):
        wal.append(1, [0], [b"x"], 0)
    with pytest.raises(DiskError):
        wal.append(1, [0], [b"x"], 0)
    wal.close()
