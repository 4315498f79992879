"""A disk in memory that can lose or tear unsynced writes, fail on demand, and fill up.

The write-ahead log of a simulated node runs on it unchanged. Each file has two contents: the page cache, which every
process sees, and the platter. A sync of the file copies its changes from the cache to the platter. Names work the same
way: a creation or a rename is on the platter once its directory was synced.

    kill         ends the process; the page cache survives
    lose_power   each unsynced change is lost, kept or torn: any subset of 512-byte sectors, any subset of names, the
                 size of a file with or without its content. Sectors themselves are not torn, as drives promise,
                 unless `whole_sectors` is unset.

A crash may interrupt a call. All calls between `begin` and `commit` count as still running until the commit; a crash
before the commit leaves any prefix of these calls.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

from raft_actor_node.errors import DirectoryLocked
from raft_actor_node.runtime.disk import Disk

SECTOR_BYTES = 512

_Change = tuple[int, bytes | None]
"""A write: an offset and its bytes; None instead of bytes truncates the file at the offset."""


class PowerLoss(NamedTuple):
    """Counts of what a power failure did to the unsynced changes."""

    writes_kept: int
    writes_torn: int
    writes_lost: int
    names_kept: int
    names_lost: int


class _File:
    """The content of a file, independent of its names."""

    __slots__ = ("cached", "durable", "links", "pending")

    def __init__(self, content: bytes = b"") -> None:
        self.cached = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[_Change] = []
        """Changes of `cached` that are not in `durable`, in order."""
        self.links = 1


class _NewName(NamedTuple):
    """A creation (`source` is None) or a rename that no sync of its directory covers yet."""

    source: Path | None
    target: Path
    file: _File | None
    """The file; None for a directory."""


class SimDisk(Disk):
    """A file system in memory; all random choices come from `rng`."""

    room_bytes = 4096

    def __init__(self, rng: random.Random, *, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        """Capacity; a write beyond it is cut short, then fails with ENOSPC. None is no limit."""
        self.fail_writes: int | None = None
        """While set, each write raises this errno after some of its bytes were written."""
        self.fail_syncs: int | None = None
        """While set, each sync raises this errno. Then some of its changes are on the platter, and no later sync
        covers the rest: the kernel considers them written."""
        self.failures = 0
        """Number of calls that failed because of `capacity_bytes`, `fail_writes` or `fail_syncs`."""
        self.short_writes = False
        """While set, a write may take only some of its bytes, and returns their number."""
        self.slowness = 1.0
        """Factor on the latency of this disk relative to the other disks; the writer applies it (writer.py)."""
        self.whole_sectors = True
        """While unset, a power failure may tear a sector: new bytes first, old bytes after them."""
        self.on_call: Callable[[str], None] | None = None
        """Called with the name of each call that changes or syncs something, before the call; may raise."""
        self._rng = rng
        self._names: dict[Path, _File | None] = {Path("/"): None}
        self._durable_names = dict(self._names)
        self._new_names: list[_NewName] = []
        self._open: dict[int, _File | Path] = {}
        self._locks: dict[int, Path] = {}
        self._next_fd = 0
        self._under_way: list[tuple[_File, _Change | None]] | None = None
        """Calls since `begin` that are not performed yet; a change of None is a sync."""

    # ------------------------------------------------------------------------------ processes and power

    def begin(self) -> None:
        """Begin a period in which writes and syncs stay in progress until `commit`.

        Calls that read, or that concern names, first complete them.
        """
        self._accept()
        self._under_way = []

    def commit(self) -> None:
        """Complete all calls since `begin`."""
        self._accept()
        self._under_way = None

    def kill(self) -> None:
        """End the process that uses this disk: perform a random prefix of the calls in progress; close its files."""
        under_way, self._under_way = self._under_way or [], None
        done = self._rng.randint(0, len(under_way))
        for file, change in under_way[:done]:
            self._perform(file, change)
        if done < len(under_way):
            file, change = under_way[done]
            if change is not None and change[1] is not None:
                self._perform(file, (change[0], change[1][: self._rng.randint(0, len(change[1]))]))
        self._open.clear()
        self._locks.clear()

    def lose_power(self) -> PowerLoss:
        """End the process and the machine: each unsynced change is kept, torn or lost at random."""
        self.kill()
        keep = self._probability()
        kept_names = [name for name in self._new_names if self._rng.random() < keep]
        names_lost = len(self._new_names) - len(kept_names)
        self._new_names.clear()
        for name in kept_names:
            _enter(self._durable_names, name)
        # Entries of a lost directory are unreachable.
        reached: dict[Path, _File | None] = {}
        for path in sorted(self._durable_names, key=lambda path: len(path.parts)):
            if path.parent in reached or path == path.parent:
                reached[path] = self._durable_names[path]
        self._names, self._durable_names = reached, dict(reached)
        fates: Counter[str] = Counter()
        for file in self._files():
            file.links = sum(other is file for other in reached.values())
            fates.update(self._tear(file))
        return PowerLoss(fates["kept"], fates["torn"], fates["lost"], len(kept_names), names_lost)

    def _probability(self) -> float:
        """Draw the probability that an unsynced change survives; often 0 or 1."""
        return self._rng.choice((0.0, 1.0, 0.5, self._rng.random()))

    def _tear(self, file: _File) -> Iterator[str]:
        """Write some of the unsynced changes to the platter and drop the rest; yield the fate of each change."""
        keep = self._probability()
        for change in file.pending:
            pieces = _sectors(change)
            kept = [piece for piece in pieces if self._rng.random() < keep]
            for offset, data in kept:
                if data is not None and not self.whole_sectors:
                    data = data[: self._rng.randint(0, len(data))]  # noqa: PLW2901
                _apply(file.durable, (offset, data))
            yield "kept" if len(kept) == len(pieces) else "torn" if kept else "lost"
        grown = len(file.cached) - len(file.durable)
        if file.pending and grown > 0 and self._rng.random() < keep:
            file.durable.extend(bytes(grown))
        file.pending.clear()
        file.cached[:] = file.durable

    # ------------------------------------------------------------------------------ files at rest

    def contents(self) -> dict[Path, bytes]:
        """Return the content of each file as a process sees it."""
        self._accept()
        return {path: bytes(file.cached) for path, file in self._names.items() if file is not None}

    def put(self, path: Path, content: bytes | None) -> None:
        """Replace the content of a file durably, bypassing processes and faults; None deletes the file."""
        self._accept()
        for names in (self._names, self._durable_names):
            names.pop(path, None)
        if content is not None:
            self._names[path] = self._durable_names[path] = _File(content)

    # ------------------------------------------------------------------------------ Disk: what is there

    def exists(self, path: Path) -> bool:
        return path in self._names

    def read(self, path: Path) -> bytes | None:
        self._accept()
        if path not in self._names:
            return None
        return bytes(self._file_at(path).cached)

    def links(self, fd: int) -> int:
        return self._file(fd).links

    def memory_file_system(self, path: Path) -> str | None:
        return None  # it is in memory, but simulates a disk that is not

    def random_bytes(self, size: int) -> bytes:
        return self._rng.randbytes(size)

    # ------------------------------------------------------------------------------ Disk: descriptors

    def lock(self, directory: Path) -> int:
        self._check_directory(directory)
        if directory in self._locks.values():
            raise DirectoryLocked(f"{directory}: another process holds this directory; nothing was touched")
        fd = self._descriptor(directory)
        self._locks[fd] = directory
        return fd

    def open(self, path: Path, flags: int) -> int:
        self._accept()
        if flags & os.O_DIRECTORY:
            self._check_directory(path)
            return self._descriptor(path)
        if path not in self._names and flags & os.O_CREAT:
            self._call("create")
            self._check_directory(path.parent)
            self._rename(_NewName(None, path, _File()))
        file = self._file_at(path)
        if flags & os.O_TRUNC and file.cached:
            self._call("truncate")
            self._perform(file, (0, None))
        return self._descriptor(file)

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        self._locks.pop(fd, None)

    # ------------------------------------------------------------------------------ Disk: changes

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        self._call("write")
        file, data = self._file(fd), b"".join(buffers)
        if self.fail_writes is not None:
            self._change(file, (offset, data[: self._rng.randint(0, len(data))]))
            self._refuse(self.fail_writes)
        if self.short_writes and data:
            data = data[: self._rng.randint(1, len(data))]
        if self.capacity_bytes is not None:
            used = sum(len(other.cached) for other in self._files())
            data = data[: max(self.capacity_bytes - used + max(len(file.cached) - offset, 0), 0)]
            if not data:
                self._refuse(errno.ENOSPC)
        self._change(file, (offset, data))
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        self._change(self._file(fd), (size, None))

    def fdatasync(self, fd: int) -> None:
        self._sync(self._file(fd))

    def fsync(self, fd: int) -> None:
        directory = self._open.get(fd)
        if not isinstance(directory, Path):
            self._sync(self._file(fd))
            return
        self._call("sync directory")
        self._accept()
        if self.fail_syncs is not None:
            self._refuse(self.fail_syncs)
        others = []
        for name in self._new_names:
            if name.target.parent == directory:
                _enter(self._durable_names, name)
            else:
                others.append(name)
        self._new_names = others

    def replace(self, source: Path, target: Path) -> None:
        self._call("rename")
        self._accept()
        file = self._file_at(source)
        self._check_directory(target.parent)
        if source != target:
            self._rename(_NewName(source, target, file))

    def mkdir(self, path: Path) -> None:
        self._call("mkdir")
        self._accept()
        self._check_directory(path.parent)
        if path not in self._names:
            self._rename(_NewName(None, path, None))

    # ------------------------------------------------------------------------------ inside

    def _call(self, name: str) -> None:
        if self.on_call is not None:
            self.on_call(name)

    def _refuse(self, code: int) -> NoReturn:
        self.failures += 1
        raise OSError(code, os.strerror(code))

    def _accept(self) -> None:
        """Perform the calls in progress."""
        if self._under_way:
            for file, change in self._under_way:
                self._perform(file, change)
            self._under_way.clear()

    def _change(self, file: _File, change: _Change | None) -> None:
        if self._under_way is None:
            self._perform(file, change)
        else:
            self._under_way.append((file, change))

    def _perform(self, file: _File, change: _Change | None) -> None:
        """Apply a change to the page cache; with None write the file to the platter."""
        if change is not None:
            _apply(file.cached, change)
            file.pending.append(change)
            return
        for pending in file.pending:
            _apply(file.durable, pending)
        file.pending.clear()

    def _sync(self, file: _File) -> None:
        self._call("sync")
        if self.fail_syncs is None:
            self._change(file, None)
            return
        # The kernel drops what it could not write, but still shows it to processes until the power fails.
        self._accept()
        for change in file.pending:
            for piece in _sectors(change):
                if self._rng.random() < 0.5:
                    _apply(file.durable, piece)
        file.pending.clear()
        self._refuse(self.fail_syncs)

    def _rename(self, name: _NewName) -> None:
        replaced = self._names.get(name.target)
        if replaced is not None:
            replaced.links -= 1
        _enter(self._names, name)
        self._new_names.append(name)

    def _descriptor(self, opened: _File | Path) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = opened
        return self._next_fd

    def _file(self, fd: int) -> _File:
        file = self._open.get(fd)
        if not isinstance(file, _File):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def _file_at(self, path: Path) -> _File:
        file = self._names.get(path, _ABSENT)
        if file is _ABSENT or file is None:
            code = errno.ENOENT if file is _ABSENT else errno.EISDIR
            raise OSError(code, os.strerror(code), str(path))
        return file

    def _check_directory(self, path: Path) -> None:
        found = self._names.get(path, _ABSENT)
        if found is not None:
            code = errno.ENOENT if found is _ABSENT else errno.ENOTDIR
            raise OSError(code, os.strerror(code), str(path))

    def _files(self) -> Iterator[_File]:
        return (file for file in self._names.values() if file is not None)


_ABSENT = _File()
"""A marker for a missing file, because None means a directory."""


def _enter(names: dict[Path, _File | None], name: _NewName) -> None:
    if name.source is not None:
        names.pop(name.source, None)
    names[name.target] = name.file


def _apply(content: bytearray, change: _Change) -> None:
    offset, data = change
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _sectors(change: _Change) -> list[_Change]:
    """Split a change at sector bounds into pieces that reach the platter independently."""
    offset, data = change
    if data is None:
        return [change]
    end = offset + len(data)
    bounds = [offset, *range(offset - offset % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES), end]
    return [(start, data[start - offset : stop - offset]) for start, stop in pairwise(bounds)]
